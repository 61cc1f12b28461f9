package proc

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"torpor/internal/kerneltest"
)

// TestBecomeFlusher looks at the flag in all threads, or at the refusal where
// root lacks the capability, as in most containers.
func TestBecomeFlusher(t *testing.T) {
	kerneltest.Require(t, kerneltest.Kernel("5.6"))
	status, err := ReadStatus(os.Getpid(), os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	err = BecomeFlusher()
	if status.Caps.Effective&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("without CAP_SYS_RESOURCE: got %v, want EPERM", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	flags := make(chan int)
	for range 8 {
		go func() {
			flag, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
			if err != nil {
				flag = -1
			}
			flags <- flag
		}()
	}
	for range 8 {
		if flag := <-flags; flag != 1 {
			t.Errorf("flag of a thread is %d", flag)
		}
	}
}
