package nbd

import (
	"bytes"
	"fmt"
	"os"
)

// initramfs is what Linux unpacks as its first root: a cpio archive of the kind
// "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
type initramfs struct {
	archive bytes.Buffer
	files   int
}

const (
	cpioDir  = 0o040755
	cpioFile = 0o100755
)

// add appends a file or a directory; its name does not start with a slash.
func (i *initramfs) add(name string, mode int, content []byte) {
	i.files++
	i.archive.WriteString("070701")
	for _, field := range []int{
		i.files, mode, 0, 0, // owner and group
		1, 0, len(content), // links, time
		0, 0, 0, 0, len(name) + 1, 0, // devices; no checksum
	} {
		fmt.Fprintf(&i.archive, "%08X", field)
	}
	i.archive.WriteString(name + "\x00")
	i.align()
	i.archive.Write(content)
	i.align()
}

// align: names and contents end on multiples of 4 bytes.
func (i *initramfs) align() {
	for i.archive.Len()%4 != 0 {
		i.archive.WriteByte(0)
	}
}

// write ends the archive and makes a file of it.
func (i *initramfs) write(path string) error {
	i.add("TRAILER!!!", 0, nil)
	return os.WriteFile(path, i.archive.Bytes(), 0o600)
}
