package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"torpor/internal/kerneltest"
)

// TestBuild hands `build` to buildah and runs what it made.
func TestBuild(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("buildah"))
	m := newMachine(t)
	binary, err := os.ReadFile(program) // static, so an image of its own
	if err != nil {
		t.Fatal(err)
	}
	m.file("app", string(binary))
	m.file("Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\nCMD [\"version\"]\n")
	m.compose("services:\n  built: {build: .}\n")
	image := m.project + "-built"
	t.Cleanup(func() {
		if out, err := exec.Command("buildah", "rmi", "--force", image).CombinedOutput(); err != nil {
			t.Errorf("buildah rmi %s: %v\n%s", image, err, out)
		}
	})
	m.must("up", "-d")
	m.eventually("output", func() error {
		if r := m.torpor("logs", "built"); !strings.Contains(r.stdout, "torpor") {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
}
