package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"torpor/compose"
	"torpor/host"
	"torpor/internal/kerneltest"
)

func load(t *testing.T, name string) *host.ProjectSpec {
	t.Helper()
	project, err := compose.Load(context.Background(), compose.LoadOptions{
		Files: []string{filepath.Join(name, "compose.yaml")},
		Warn:  func(text string) { t.Errorf("%s: warning: %s", name, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// The examples run from the host's files, sleep, and find what they mount.
func TestExamplesAreUnderstood(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name := e.Name()
		project := load(t, name)
		if got := string(project.Name); got != name {
			t.Errorf("%s: project is called %s", name, got)
		}
		for _, s := range project.Services {
			if s.Torpor.RootFS != "/" || s.Torpor.NeverSleep {
				t.Errorf("%s: service %s: root file system %q, never sleeps %v", name, s.Name, s.Torpor.RootFS, s.Torpor.NeverSleep)
			}
			for _, m := range s.Mounts {
				if m.Kind != host.MountBind && m.Kind != host.MountFile {
					continue
				}
				if _, err := os.Stat(m.Source); err != nil {
					t.Errorf("%s: service %s: mount at %s: %v", name, s.Name, m.Target, err)
				}
			}
		}
	}
}

func TestHelloIsConfigurable(t *testing.T) {
	project, err := compose.Load(context.Background(), compose.LoadOptions{
		Files:       []string{"hello/compose.yaml"},
		Environment: map[string]string{"HEAP_MB": "10", "HELLO_PORT": "18080", "HELLO_ADDRESS": "0.0.0.0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := project.Services[0]
	if s.Environment["HEAP_MB"] != "10" || s.Ports[0].Published != 18080 || s.Ports[0].HostIP != "0.0.0.0" {
		t.Errorf("environment %v, ports %+v", s.Environment, s.Ports)
	}
}

// Programs of the examples are read by the programs that run them.
func TestProgramsParse(t *testing.T) {
	for _, tt := range []struct {
		file string
		args []string
	}{
		{"hello/server.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		{"chat/server.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		{"web/app.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		{"front/api.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		{"volume/server.py", []string{"python3", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		{"front/site.js", []string{"node", "--check"}},
		{"web/db.sh", []string{"sh", "-n"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			kerneltest.Require(t, kerneltest.Program(tt.args[0]))
			if out, err := exec.Command(tt.args[0], append(tt.args[1:], tt.file)...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
