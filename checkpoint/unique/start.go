package unique

import (
	"encoding/binary"
	"fmt"
	"os"

	"torpor/kernel/proc"
)

// Entries of the auxiliary vector, which the kernel made at exec: where the
// executable's program headers are, and 16 random bytes.
const (
	auxHeaders     = 3
	auxRandom      = 25
	auxRandomBytes = 16
)

// startValue finds the bytes of AT_RANDOM. What libraries made of them at the
// start (the stack canary, the pointer guard) is in frames and pointers by now.
func (f *finder) startValue() error {
	auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", f.pid))
	if err != nil {
		return fmt.Errorf("read auxiliary vector: %w", err)
	}
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		addr := proc.Addr(binary.LittleEndian.Uint64(auxv[8:]))
		switch binary.LittleEndian.Uint64(auxv) {
		case auxHeaders:
			f.headers = addr
		case auxRandom:
			f.add(Place{Kind: KindBytes, Addr: addr, LenBytes: auxRandomBytes})
		}
	}
	return nil
}

// wiped finds memory that the kernel clears in a forked child
// (MADV_WIPEONFORK): libraries keep generators in it, or a flag by which they
// notice that they were copied. A restore is such a copy.
func (f *finder) wiped(pagemap *os.File) error {
	for i := range f.vmas {
		v := &f.vmas[i]
		if !v.Has("wf") {
			continue
		}
		runs, err := proc.PrivatePages(pagemap, v.Start, v.End)
		if err != nil {
			return err
		}
		for _, r := range runs {
			f.add(Place{Kind: KindZero, Addr: r.Start, LenBytes: uint64(r.End - r.Start)})
		}
	}
	return nil
}
