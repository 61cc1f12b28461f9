package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// ResolveUser finds ids for "user", "uid", "user:group" and the like in the
// root file system's own files, and for further groups. "" is root. Errors:
// host.ErrInvalid for a name that is not there.
func ResolveUser(rootfs, name string, groups []string) (*specs.User, error) {
	passwd, err := readInside(rootfs, "etc/passwd")
	if err != nil {
		return nil, fmt.Errorf("find user %q in the image: %w", name, err)
	}
	group, err := readInside(rootfs, "etc/group")
	if err != nil {
		return nil, fmt.Errorf("find user %q in the image: %w", name, err)
	}
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, strings.NewReader(passwd), strings.NewReader(group))
	if err != nil {
		return nil, fmt.Errorf("find user %q in the image: %w: %w", name, err, host.ErrInvalid)
	}
	more, err := user.GetAdditionalGroups(groups, strings.NewReader(group))
	if err != nil {
		return nil, fmt.Errorf("find groups %v in the image: %w: %w", groups, err, host.ErrInvalid)
	}
	u := &specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid)}
	for _, gid := range slices.Concat(found.Sgids, more) {
		if !slices.Contains(u.AdditionalGids, uint32(gid)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
		}
	}
	return u, nil
}

// userFileMost bounds what is read of an image's user files.
const userFileMost = 16 << 20

// linksMost is how many links may follow each other, as in path_resolution(7).
const linksMost = 40

// readInside reads a regular file of the root file system; "" when there is
// none. Links never lead out of it: one at the end that is absolute, or goes up
// too far, means what it would mean in the container. A FIFO that nobody writes
// is not waited for.
func readInside(rootfs, name string) (string, error) {
	root, err := os.OpenRoot(rootfs)
	if err != nil {
		return "", err
	}
	defer root.Close()
	for range linksMost {
		link, err := root.Readlink(name)
		if err != nil {
			break // not a link; what else is wrong, Open says
		}
		if !path.IsAbs(link) {
			link = path.Join(path.Dir(name), link)
		}
		name = strings.TrimPrefix(path.Clean("/"+link), "/")
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("read %s: not a regular file: %w", name, host.ErrInvalid))
	}
	b, err := io.ReadAll(io.LimitReader(f, userFileMost))
	return string(b), err
}
