package kerneltest

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
)

// GuestKernel is a directory with vmlinuz, a Linux for virtual machines, and
// those of its virtio modules that are not built in.
const GuestKernel = "/usr/local/lib/torpor-test/guest-kernel"

// Guest needs what boots a Linux of one program in a virtual machine.
func Guest() []Need {
	return []Need{
		Program("qemu-system-x86_64"),
		need("a static busybox", tryBusybox),
		need("a kernel for a guest", tryGuestKernel),
	}
}

// Busybox is the path of the busybox of this machine.
func Busybox() (string, error) { return lookUp("busybox") }

// tryBusybox wants one that runs where no libraries are.
func tryBusybox() error {
	path, err := Busybox()
	if err != nil {
		return err
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read busybox: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs libraries: install busybox-static", path)
		}
	}
	return nil
}

func tryGuestKernel() error {
	if _, err := os.Stat(filepath.Join(GuestKernel, "vmlinuz")); err != nil {
		return fmt.Errorf("%w (`packaging/deps test` puts it there)", err)
	}
	return nil
}
