package object

import (
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"
	"unicode/utf8"

	"torpor/host"
	"torpor/kernel/openfile"
	"torpor/kernel/socket"
)

// inode is the number by which sockets know each other.
func (d *socketDescriber) inode(i int) uint32 { return uint32(d.stats[i].Ino) }

// unix describes a Unix socket but for its peer.
func (d *socketDescriber) unix(i int, s *SocketSpec) error {
	info, ok := d.unixes[d.inode(i)]
	if !ok {
		return fmt.Errorf("find it among Unix sockets: %w", os.ErrNotExist)
	}
	switch {
	case info.State == socket.Listening:
		s.State, s.Backlog = SocketListening, info.Backlog
	case info.HasPeer:
		s.State, s.Shutdown = SocketConnected, info.Shutdown&3
	}
	if s.Type != socket.Datagram && s.State == SocketConnected {
		return nil // accepted ones show the listener's name
	}
	s.Name = info.Name
	if len(s.Name) == 0 || s.Name[0] == 0 {
		return nil
	}
	return d.socketFile(i, s, info.File)
}

// socketFile describes the file that a socket is bound to.
func (d *socketDescriber) socketFile(i int, s *SocketSpec, inode uint32) error {
	full := string(s.Name)
	if s.Name[0] == '@' {
		d.refuse(i, "a Unix socket whose path begins with @")
		return nil
	}
	if !path.IsAbs(full) {
		directory, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", d.open[i].PID))
		if err != nil {
			return err
		}
		s.Directory, full = directory, path.Join(directory, full)
	}
	fd, err := d.root.Open(full, openfile.OpenPath|syscall.O_NOFOLLOW, 0)
	var st syscall.Stat_t
	if err == nil {
		defer syscall.Close(fd)
		err = syscall.Fstat(fd, &st)
	}
	gone := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
	if err != nil && !gone {
		return err
	}
	if gone || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK || uint32(st.Ino) != inode || !utf8.ValidString(s.Directory) {
		d.refuse(i, "a Unix socket whose file %s is gone", full)
		return nil
	}
	s.File = &SocketFileSpec{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}
	return nil
}

// unixPeers finds the other ends of Unix sockets among the Specs.
func (d *socketDescriber) unixPeers() error {
	byInode := map[uint32]int{}
	for _, i := range d.sockets {
		if s := d.specs[i].Socket; s != nil && s.Domain == socket.Unix {
			byInode[d.inode(i)] = i
		}
	}
	for _, i := range d.sockets {
		s := d.specs[i].Socket
		if s == nil || s.Domain != socket.Unix {
			continue
		}
		if err := d.unixPeer(i, s, byInode); err != nil {
			return fmt.Errorf("describe %s %s: %w", d.open[i].Target, d.open[i].where(), err)
		}
	}
	return nil
}

func (d *socketDescriber) unixPeer(i int, s *SocketSpec, byInode map[uint32]int) error {
	info := d.unixes[d.inode(i)]
	peer, inside := byInode[info.Peer]
	switch {
	case s.State != SocketConnected:
	case info.Peer != 0 && inside:
		s.Peer = peer
		if back := d.unixes[info.Peer]; back.Peer != d.inode(i) && len(back.Name) == 0 {
			d.refuse(i, "a Unix socket whose peer has no name")
		}
	default:
		s.State = SocketReset
		events, err := socket.Poll(d.open[i].FD, 0, 0)
		if err != nil {
			return err
		}
		if events&socket.HungUp == 0 {
			s.Reset = "Unix socket " + printable(d.unixes[info.Peer].Name)
		}
	}
	if s.State == SocketListening || s.State == SocketIdle && s.Type != socket.Datagram {
		return nil
	}
	var err error
	s.Unread, err = socket.PeekUnix(d.open[i].FD, s.Type)
	if errors.Is(err, socket.ErrDescriptors) {
		d.refuse(i, "a Unix socket with descriptors under way in it")
		return nil
	}
	if err != nil {
		return err
	}
	return d.contents.add(d.describer, i, "a Unix socket", sizeOf(s.Unread))
}

// printable is a name of a Unix socket for people.
func printable(name []byte) string {
	switch {
	case len(name) == 0:
		return "without a name"
	case name[0] == 0:
		return "@" + string(name[1:])
	}
	return string(name)
}

// bindName binds a Unix socket to its name, in the container's root directory.
// An old socket file, of the container that was described, makes room.
func (s *SocketSpec) bindName(fd int) error {
	if len(s.Name) == 0 {
		return nil
	}
	if s.File == nil {
		return socket.BindName(fd, s.Name)
	}
	return s.within(func() error { return s.bindFile(fd) })
}

// within runs f where the socket's path leads to its file.
func (s *SocketSpec) within(f func() error) error {
	if s.Directory == "" {
		return f()
	}
	if err := syscall.Chdir(s.Directory); err != nil {
		return fmt.Errorf("go to the directory of socket %s: %w", s.Name, err)
	}
	return errors.Join(f(), syscall.Chdir("/"))
}

func (s *SocketSpec) bindFile(fd int) error {
	name := string(s.Name)
	var st syscall.Stat_t
	err := syscall.Lstat(name, &st)
	switch {
	case errors.Is(err, syscall.ENOENT):
	case err != nil:
		return fmt.Errorf("bind socket to %s: %w", name, err)
	case st.Mode&syscall.S_IFMT != syscall.S_IFSOCK:
		return fmt.Errorf("bind socket to %s: %w: another file is there", name, host.ErrCorrupt)
	default:
		if err := syscall.Unlink(name); err != nil {
			return fmt.Errorf("remove old socket %s: %w", name, err)
		}
	}
	if err := socket.BindName(fd, s.Name); err != nil {
		return err
	}
	if err := syscall.Lchown(name, int(s.File.UID), int(s.File.GID)); err != nil {
		return fmt.Errorf("own socket %s: %w", name, err)
	}
	if err := syscall.Chmod(name, s.File.Mode); err != nil {
		return fmt.Errorf("set mode of socket %s: %w", name, err)
	}
	return nil
}

// connectUnix makes pairs, and those whose peer is gone.
func (m *maker) connectUnix(i int) error {
	s := m.specs[i].Socket
	switch {
	case s.State == SocketReset:
		return m.orphan(i)
	case s.State != SocketConnected:
		return nil
	case !m.mutual(i):
		peer := m.specs[s.Peer].Socket
		return peer.within(func() error { return socket.ConnectName(m.fds[i], peer.Name) })
	case s.Peer < i:
		return nil
	}
	pair, err := socket.NewPair(s.Type)
	if err != nil {
		return err
	}
	m.fds[i], m.fds[s.Peer] = pair[0], pair[1]
	return errors.Join(s.bindName(pair[0]), m.specs[s.Peer].Socket.bindName(pair[1]))
}

// orphan makes a connected Unix socket whose peer has closed, after it had sent
// what is unread.
func (m *maker) orphan(i int) error {
	s := m.specs[i].Socket
	pair, err := socket.NewPair(s.Type)
	if err != nil {
		return err
	}
	m.fds[i] = pair[0]
	err = errors.Join(s.bindName(pair[0]), socket.Send(pair[1], s.Type, s.Unread), syscall.Close(pair[1]))
	if err != nil {
		return err
	}
	return errors.Join(s.Options.Set(m.fds[i], socket.Again), s.Options.Set(m.fds[i], socket.AfterBind))
}

// sendFromNobody sends datagrams to a socket that is connected to none. Their
// senders are not known any more.
func (m *maker) sendFromNobody(i int) (err error) {
	s := m.specs[i].Socket
	sender, err := socket.New(s.kind())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Close(sender)) }()
	if err := s.within(func() error { return socket.ConnectName(sender, s.Name) }); err != nil {
		return err
	}
	return socket.Send(sender, s.Type, s.Unread)
}
