package mount

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxLower is the number of lower directories that overlayfs stacks.
const MaxLower = 500

// maxString is the longest value, without its final zero, that fsconfig takes.
const maxString = 255

// Overlay says which directories a mount stacks. Upper and Work are empty for
// a read-only mount, which then needs two lower directories at least; else
// they are on one file system that has trusted extended attributes.
type Overlay struct {
	Source string   // shown in /proc/self/mountinfo; "" is shown as "overlay"
	Lower  []string // topmost first; never changed by the mount
	Upper  string
	Work   string
}

// Mount makes the stack appear at target. Paths may have any length and hold
// any character: layers are given one by one, as descriptors from Linux 6.13
// on and as names before. The least kernel is 6.8.
//
// A lower directory may hold Upper and Work, as "/" does. One that is below
// Upper, or above or below another lower one, is unix.ELOOP.
func (o Overlay) Mount(target string) error {
	fd, err := o.create((*layers).byDescriptor)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(fd, target)
}

// layers gives the directories of a stack to the kernel.
type layers struct {
	ctx *fsContext
}

// create returns the stack as a mount that is nowhere yet.
func (o Overlay) create(add func(*layers, string, string) error) (int, error) {
	if len(o.Lower) > MaxLower {
		return -1, fmt.Errorf("mount overlay: %d lower directories, the kernel takes %d: %w", len(o.Lower), MaxLower, unix.E2BIG)
	}
	ctx, err := newContext("overlay")
	if err != nil {
		return -1, err
	}
	defer ctx.close()
	source := o.Source
	if source == "" {
		source = "overlay"
	}
	ctx.set("source", source)
	// Said outright, for the defaults differ between kernels: no feature whose
	// attributes would tie an upper directory to one set of lower ones.
	for _, off := range []string{"index", "metacopy", "redirect_dir"} {
		ctx.set(off, "off")
	}
	if ctx.err != nil {
		return -1, ctx.err
	}
	l := &layers{ctx: ctx}
	for _, dir := range o.Lower {
		if err := add(l, "lowerdir+", dir); err != nil {
			return -1, err
		}
	}
	if o.Upper != "" {
		if err := errors.Join(add(l, "upperdir", o.Upper), add(l, "workdir", o.Work)); err != nil {
			return -1, err
		}
	}
	return ctx.mount(0)
}

// byDescriptor adds one directory by an open descriptor, or, where the kernel
// does not know that yet (EINVAL, "bad value"), by its name.
func (l *layers) byDescriptor(key, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", dir, err)
	}
	defer unix.Close(fd)
	err = unix.FsconfigSetFd(l.ctx.fd, key, fd)
	if !errors.Is(err, unix.EINVAL) {
		return l.checked(key, dir, err)
	}
	l.ctx.log() // of the attempt
	return l.byName(key, dir)
}

// byName adds one directory by its name, or by a short one that leads there if
// it is too long or holds a backslash, which some of the keys take for an escape.
func (l *layers) byName(key, dir string) error {
	if len(dir) <= maxString && !strings.ContainsRune(dir, '\\') {
		return l.checked(key, dir, unix.FsconfigSetString(l.ctx.fd, key, dir))
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", dir, err)
	}
	defer unix.Close(fd)
	short := fmt.Sprintf("/proc/self/fd/%d", fd)
	return l.checked(key, dir, unix.FsconfigSetString(l.ctx.fd, key, short))
}

func (l *layers) checked(key, dir string, err error) error {
	l.ctx.fail(fmt.Sprintf("set %s to %s", key, dir), err)
	return l.ctx.err
}
