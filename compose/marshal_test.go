package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torpor/host"
)

var update = flag.Bool("update", false, "write the golden files anew")

const secretValue = "s3cr3t-value"

// loadGolden loads the golden project from a place that is the same on every
// machine but for its parent directory, which the caller replaces by /DIR.
func loadGolden(t *testing.T) (*host.ProjectSpec, LoadOptions) {
	t.Helper()
	content, err := os.ReadFile("testdata/golden/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	opts := LoadOptions{
		Files:       []string{filepath.Join(t.TempDir(), "compose.yaml")},
		Environment: map[string]string{"API_KEY": secretValue},
	}
	writeFile(t, opts.Files[0], string(content))
	return mustLoad(t, opts), opts
}

func TestGolden(t *testing.T) {
	spec, opts := loadGolden(t)
	printed := roundTrip(t, spec, opts)
	asJSON, err := json.MarshalIndent(Redacted(spec), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"printed.yaml": printed, "spec.json": append(asJSON, '\n')} {
		got = bytes.ReplaceAll(got, []byte(spec.WorkingDir), []byte("/DIR"))
		file := filepath.Join("testdata/golden", name)
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestJSON: the daemon gets a spec as JSON, so nothing may be lost on the way.
func TestJSON(t *testing.T) {
	spec, _ := loadGolden(t)
	asJSON, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var again host.ProjectSpec
	if err := json.Unmarshal(asJSON, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, &again); diff != "" {
		t.Errorf("spec changed by JSON (-first +again):\n%s", diff)
	}
}

// TestSecretsAreNotPrinted also for a spec that does not say where a secret
// came from.
func TestSecretsAreNotPrinted(t *testing.T) {
	spec, _ := loadGolden(t)
	if !bytes.Equal(secretContent(spec), []byte(secretValue)) {
		t.Fatalf("the secret holds %q", secretContent(spec))
	}
	for _, from := range []string{"API_KEY", ""} {
		for i := range spec.Services {
			for j := range spec.Services[i].Mounts {
				if m := &spec.Services[i].Mounts[j]; m.Name == "api_key" {
					m.FromEnv = from
				}
			}
		}
		printed, err := Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(Redacted(spec))
		if err != nil {
			t.Fatal(err)
		}
		encoded, _ := json.Marshal([]byte(secretValue))
		for _, text := range []string{string(printed), string(asJSON)} {
			if strings.Contains(text, secretValue) || strings.Contains(text, strings.Trim(string(encoded), `"`)) {
				t.Errorf("the secret is printed:\n%s", text)
			}
		}
		if !strings.Contains(string(printed), "environment: API_KEY") {
			t.Errorf("no reference to the secret:\n%s", printed)
		}
	}
	if !bytes.Equal(secretContent(spec), []byte(secretValue)) {
		t.Error("Redacted changed the spec it was given")
	}
}

func secretContent(spec *host.ProjectSpec) []byte {
	for _, s := range spec.Services {
		for _, m := range s.Mounts {
			if m.Name == "api_key" {
				return m.Content
			}
		}
	}
	return nil
}

// TestOddTexts are texts that YAML or interpolation would take for something
// else.
func TestOddTexts(t *testing.T) {
	texts := []string{"yes", "NO", "on", "null", "~", "1e3", "0x10", "0777", "1:30", "1_000", "=", "<<", "- a", "a: b", "#x", " lead", "trail ",
		"a\nb", "a\n", "\n", "tab\tb", "\u2028", "é", "'", `"`, `\`, "$", "$$", "${A}", "$${A}", "%x", "@x", "`x`", "!x", "&x", "*x", "{", "[", "2024-01-01", ""}
	spec, opts, err := loadText(t, "services: {web: {image: i}}")
	if err != nil {
		t.Fatal(err)
	}
	s := &spec.Services[0]
	s.Environment, s.Labels = map[string]string{}, map[string]string{}
	for _, text := range texts {
		s.Command = append(s.Command, text)
		s.Environment["V"+text] = text
		if strings.TrimSpace(text) != "" { // those are no keys to compose
			s.Labels[text] = text
		}
	}
	roundTrip(t, spec, opts)

	s.Command = []string{"\xff"}
	if _, err := Marshal(spec); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("print what is not UTF-8: %v", err)
	}
}

// FuzzLoad wants no panic from any bytes, and of what is accepted that it can
// be printed and loaded again.
func FuzzLoad(f *testing.F) {
	for _, file := range corpus(f) {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	golden, err := os.ReadFile("testdata/golden/compose.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	for _, text := range []string{"services: &a {a: *a}", "a: &a [*a]\nservices: {x: {<<: *a}}", "services: {a: {extends: a}}",
		"include: [compose.yaml]", "services: {a: {image: i, ulimits: {nofile: {soft: x}}}}", "services: {a: {volumes: [{type: bind}]}}",
		"<<: {<<: {a: b}}\nservices: !reset\n---\nservices: {1: {image: 2}}"} {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		if bytes.Contains(content, []byte("/dev/")) || bytes.Contains(content, []byte("/proc")) {
			return // reading those can block, which is what was asked for
		}
		opts := LoadOptions{Files: []string{filepath.Join(dir, "compose.yaml")}, Environment: testEnv}
		writeFile(t, opts.Files[0], string(content))
		spec, err := Load(context.Background(), opts)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		printed, err := Marshal(spec)
		if err != nil {
			return // not UTF-8
		}
		writeFile(t, opts.Files[0], string(printed))
		opts.Profiles = []string{"*"}
		again, err := Load(context.Background(), opts)
		if err != nil {
			t.Fatalf("load what was printed: %v\n%s", err, printed)
		}
		if diff := cmp.Diff(spec, again); diff != "" {
			t.Fatalf("spec changed by printing:\n%s\n%s", diff, printed)
		}
	})
}
