package kerneltest

import (
	"os"
	"testing"
)

// RequireVariable is the environment variable that turns skips into failures
// when it is 1.
const RequireVariable = "TORPOR_REQUIRE_KERNEL"

// Need is something a test needs of the machine.
type Need struct {
	name  string
	check func() error
}

// Name is how the need is called in messages.
func (n Need) Name() string { return n.name }

// Check tries the need; the error says why it is not met.
func (n Need) Check() error { return n.check() }

// Require skips the test unless every need is met.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	for _, n := range needs {
		if err := n.check(); err != nil {
			unmet(t, n, err)
		}
	}
}

func unmet(t testing.TB, n Need, err error) {
	t.Helper()
	if os.Getenv(RequireVariable) == "1" {
		t.Fatalf("needs %s, and %s=1 forbids to skip: %v", n.name, RequireVariable, err)
	} else {
		t.Skipf("needs %s: %v", n.name, err)
	}
}
