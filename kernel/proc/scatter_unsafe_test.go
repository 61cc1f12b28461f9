package proc

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"unsafe"
)

// TestScatter writes more places of this process than one call takes, and one
// that does not exist.
func TestScatter(t *testing.T) {
	target := make([]byte, 3000)
	start := Addr(uintptr(unsafe.Pointer(&target[0])))
	var patches []Patch
	for i := 0; i < len(target); i += 2 {
		patches = append(patches, Patch{start + Addr(i), []byte{byte(i%251 + 1)}})
	}
	memory := OpenMemory(os.Getpid())
	defer memory.Close()
	if err := memory.Scatter(patches); err != nil {
		t.Fatal(err)
	}
	for i, b := range target {
		if want := byte(i%251 + 1); i%2 == 0 && b != want || i%2 == 1 && b != 0 {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	if err := memory.Scatter([]Patch{{start, []byte{1}}, {0x1000, []byte{1}}}); !errors.Is(err, syscall.EFAULT) {
		t.Errorf("write to nowhere: %v", err)
	}
}
