package compose

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"torpor/host"
)

// project writes files below a new directory called demo.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "demo")
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content)
	}
	return dir
}

func mustLoad(t *testing.T, opts LoadOptions) *host.ProjectSpec {
	t.Helper()
	spec, err := Load(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func TestDiscovery(t *testing.T) {
	one := "services: {web: {image: one, environment: {A: '1'}}}\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		dir   string
		env   map[string]string
		want  []string // files used
	}{
		{"compose.yaml", map[string]string{"compose.yaml": one, "docker-compose.yml": one}, "", nil, []string{"compose.yaml"}},
		{"compose.yml", map[string]string{"compose.yml": one}, "", nil, []string{"compose.yml"}},
		{"docker-compose.yml", map[string]string{"docker-compose.yml": one}, "", nil, []string{"docker-compose.yml"}},
		{"override", map[string]string{"compose.yaml": one, "compose.override.yaml": "services: {web: {environment: {A: '2'}}}"}, "", nil,
			[]string{"compose.yaml", "compose.override.yaml"}},
		{"upwards", map[string]string{"compose.yaml": one, "a/b/.keep": ""}, "a/b", nil, []string{"compose.yaml"}},
		{"COMPOSE_FILE", map[string]string{"compose.yaml": one, "x.yaml": one, "y.yaml": one}, "",
			map[string]string{"COMPOSE_FILE": "x.yaml:y.yaml"}, []string{"x.yaml", "y.yaml"}},
		{"COMPOSE_FILE of .env", map[string]string{"compose.yaml": one, "x.yaml": one, ".env": "COMPOSE_FILE=x.yaml\n"}, "", nil, []string{"x.yaml"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := project(t, test.files)
			t.Chdir(filepath.Join(dir, test.dir))
			spec := mustLoad(t, LoadOptions{Environment: test.env})
			var want []string
			for _, name := range test.want {
				want = append(want, filepath.Join(dir, name))
			}
			if !slices.Equal(spec.Files, want) || spec.WorkingDir != dir || spec.Name != "demo" {
				t.Errorf("files %v in %s called %s, want %v in %s called demo", spec.Files, spec.WorkingDir, spec.Name, want, dir)
			}
			if test.name == "override" && spec.Services[0].Environment["A"] != "2" {
				t.Errorf("the override has no effect: %v", spec.Services[0].Environment)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		t.Chdir(t.TempDir())
		if _, err := Load(context.Background(), LoadOptions{}); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("error %v, want not found", err)
		}
		if _, err := Load(context.Background(), LoadOptions{Files: []string{"none.yaml"}}); !errors.Is(err, host.ErrNotFound) {
			t.Errorf("error %v, want not found", err)
		}
	})
}

func TestProjectName(t *testing.T) {
	plain, named := "services: {web: {image: i}}\n", "name: ${N:-said}\nservices: {web: {image: i}}\n"
	for _, test := range []struct {
		text, option string
		env          map[string]string
		want         host.ProjectName
	}{
		{plain, "", nil, "demo"},
		{named, "", nil, "said"},
		{named, "", map[string]string{"COMPOSE_PROJECT_NAME": "env"}, "env"},
		{named, "asked", map[string]string{"COMPOSE_PROJECT_NAME": "env"}, "asked"},
		{named, "Not-Allowed", nil, ""},
	} {
		dir := project(t, map[string]string{"compose.yaml": test.text})
		spec, err := Load(context.Background(), LoadOptions{WorkingDir: dir, ProjectName: test.option, Environment: test.env})
		if test.want == "" {
			if !errors.Is(err, host.ErrInvalid) {
				t.Errorf("name %q: error %v, want invalid", test.option, err)
			}
			continue
		}
		if err != nil || spec.Name != test.want || spec.Networks["default"].Name != string(test.want)+"_default" {
			t.Errorf("option %q, environment %v: %v, %v, want %s", test.option, test.env, spec, err, test.want)
		}
	}
}

// TestEnvironment: the caller's variables win over .env, a service's own over
// its env_file, and unset variables are told of once.
func TestEnvironment(t *testing.T) {
	dir := project(t, map[string]string{
		".env":  "A=dotenv\nB=dotenv\n",
		"x.env": "X=file\nY=file\nB=file\nZ=${A}\n",
		"l.env": "label=file\n",
		"compose.yaml": `
services:
  web:
    image: i:$A-$B-$UNSET-${UNSET}-${FINE:-}
    env_file: [x.env, {path: none.env, required: false}]
    label_file: l.env
    environment: [Y=own, B]
`})
	caller := map[string]string{"A": "caller"}
	var warnings []string
	spec := mustLoad(t, LoadOptions{WorkingDir: dir, Environment: caller, Warn: func(w string) { warnings = append(warnings, w) }})
	s := spec.Services[0]
	if s.Image != "i:caller-dotenv---" {
		t.Errorf("image %s", s.Image)
	}
	if want := map[string]string{"X": "file", "Y": "own", "B": "dotenv", "Z": "caller"}; !maps.Equal(s.Environment, want) {
		t.Errorf("environment %v, want %v", s.Environment, want)
	}
	if s.Labels["label"] != "file" {
		t.Errorf("labels %v", s.Labels)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "UNSET") {
		t.Errorf("warnings %q, want one of UNSET", warnings)
	}
	if len(caller) != 1 {
		t.Errorf("the caller's environment was changed to %v", caller)
	}
}

// TestManyFiles follows a service through extends, include and an override:
// paths start at the file that says them, and problems name that file.
func TestManyFiles(t *testing.T) {
	files := map[string]string{
		"compose.yaml": `
include: [sub/part.yaml]
services:
  web:
    extends: {file: "${BASE:-lib/base.yaml}", service: base}
    image: web
    x-torpor: {verify: true}
  local:
    extends: inner
    image: local
  inner:
    image: i
    user: inner
`,
		"lib/base.yaml": `
services:
  base:
    extends: {service: root}
    volumes: [./data:/data]
    x-torpor:
      sleep: never
  root:
    user: root-user
    gpus: ${GPUS}
`,
		"sub/part.yaml": `
services:
  part:
    image: part
    volumes: [./here:/here]
    x-torpor:
      sleep_after: ${AFTER:-5m}
`,
		"over.yaml": "services:\n  web:\n    gpus: !reset null\n    x-torpor: {sleep_after: 7s}\n",
	}
	dir := project(t, files)
	opts := LoadOptions{
		Files:       []string{filepath.Join(dir, "compose.yaml"), filepath.Join(dir, "over.yaml")},
		Environment: map[string]string{"GPUS": "all"},
	}
	spec := mustLoad(t, opts)
	services := map[host.ServiceName]host.ServiceSpec{}
	for _, s := range spec.Services {
		services[s.Name] = s
	}
	web := services["web"]
	if web.User != "root-user" || !web.Torpor.NeverSleep || !web.Torpor.Verify || web.Torpor.SleepAfter.String() != "7s" {
		t.Errorf("web is %+v", web)
	}
	if got := web.Mounts[0].Source; got != filepath.Join(dir, "lib/data") {
		t.Errorf("mount of lib/base.yaml from %s", got)
	}
	if got := services["part"].Mounts[0].Source; got != filepath.Join(dir, "sub/here") {
		t.Errorf("mount of sub/part.yaml from %s", got)
	}
	if services["local"].User != "inner" {
		t.Errorf("local is %+v", services["local"])
	}

	opts.Files = opts.Files[:1] // gpus is not reset any more
	opts.Environment["AFTER"] = "soon"
	_, err := Load(context.Background(), opts)
	want := "lib/base.yaml:10: services.web.gpus: not supported\n" +
		"sub/part.yaml:7: services.part.x-torpor.sleep_after: \"soon\": want a duration such as 30s"
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
}

func TestRootFSStartsAtItsFile(t *testing.T) {
	dir := project(t, map[string]string{
		"compose.yaml":  "services:\n  web:\n    extends: {file: lib/base.yaml, service: base}\n",
		"lib/base.yaml": "services:\n  base:\n    x-torpor: {rootfs: ./root}\n",
	})
	spec := mustLoad(t, LoadOptions{WorkingDir: dir})
	if got := spec.Services[0].Torpor.RootFS; got != filepath.Join(dir, "lib/root") {
		t.Errorf("rootfs %s, want it below lib", got)
	}
}
