package compose

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/host"
)

// corpusFile prepares a file of the corpus in a directory of its own. Its
// leading comments name the variables (env:) and empty files (files:) that its
// readme would tell people to make.
func corpusFile(t testing.TB, file string) LoadOptions {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(file), ".yaml"))
	opts := LoadOptions{Files: []string{filepath.Join(dir, "compose.yaml")}, Environment: map[string]string{}}
	for line := range strings.Lines(string(content)) {
		if vars, ok := strings.CutPrefix(line, "# env: "); ok {
			for _, v := range strings.Fields(vars) {
				name, value, _ := strings.Cut(v, "=")
				opts.Environment[name] = value
			}
		}
		if files, ok := strings.CutPrefix(line, "# files: "); ok {
			for _, f := range strings.Fields(files) {
				writeFile(t, filepath.Join(dir, f), "A_VARIABLE=from "+f+"\n")
			}
		}
	}
	writeFile(t, opts.Files[0], string(content))
	return opts
}

func writeFile(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func corpus(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.yaml")
	if err != nil || len(files) < 40 {
		t.Fatalf("corpus has %d files (%v), want 40 or more", len(files), err)
	}
	return files
}

// TestCorpus wants 95 % of compose files as people write them to be accepted,
// and the others to be refused for what they ask, not for an error of ours.
func TestCorpus(t *testing.T) {
	files, accepted, services := corpus(t), 0, 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			opts := corpusFile(t, file)
			spec, err := Load(context.Background(), opts)
			if errors.Is(err, host.ErrUnsupported) && !errors.Is(err, host.ErrInvalid) {
				t.Logf("refused:\n%v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			accepted++
			services += len(spec.Services)
			roundTrip(t, spec, opts)
		})
	}
	t.Logf("accepted %d of %d files (%.1f %%), %d services", accepted, len(files), 100*float64(accepted)/float64(len(files)), services)
	if accepted*100 < len(files)*95 {
		t.Errorf("accepted %d of %d files, want 95 %%", accepted, len(files))
	}
}

// roundTrip prints a spec over the file that it came from and loads it again.
func roundTrip(t *testing.T, spec *host.ProjectSpec, opts LoadOptions) []byte {
	t.Helper()
	printed, err := Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts.Files = []string{filepath.Join(dir, "printed.yaml")}
	opts.WorkingDir = spec.WorkingDir
	writeFile(t, opts.Files[0], string(printed))
	again, err := Load(context.Background(), opts)
	if err != nil {
		t.Fatalf("load what was printed: %v\n%s", err, printed)
	}
	again.Files = spec.Files
	if diff := cmp.Diff(spec, again); diff != "" {
		t.Fatalf("spec changed by printing (-first +again):\n%s\n%s", diff, printed)
	}
	return printed
}
