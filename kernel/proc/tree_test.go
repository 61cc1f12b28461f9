package proc

import (
	"os/exec"
	"testing"
)

// TestTreeOfShortLives lists processes that end meanwhile.
func TestTreeOfShortLives(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "while :; do (:) & (:) & wait; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for i := range 3000 {
		tree, err := Tree(cmd.Process.Pid)
		if err != nil {
			t.Fatalf("list %d: %v", i, err)
		}
		if tree[0] != cmd.Process.Pid {
			t.Fatalf("list %d: %v", i, tree)
		}
	}
}
