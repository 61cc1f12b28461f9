package tree

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenInRoot opens the directory or file name as a process would whose root
// directory root is: links, absolute ones too, end inside it, mounts in it are
// entered. The descriptor is O_PATH; the caller closes it. It is for the roots
// of containers, root being /proc/PID/root.
func OpenInRoot(root, name string) (*os.File, error) {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("open", root, err)
	}
	defer unix.Close(at)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range openTries {
		fd, err := unix.Openat2(at, name, &how)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, wrap("open", name, err)
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	return nil, fmt.Errorf("open %q: %w", name, unix.EAGAIN)
}
