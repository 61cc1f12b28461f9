package socket

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Defaults are the options of a fresh socket of one kind, to compare others
// with, fast: one that has no option of its own costs no memory. It may be used
// concurrently.
type Defaults struct {
	kind    Kind
	options []defaultOption
}

type defaultOption struct {
	knownOption
	value [longestOption]byte
}

// longestOption is the length of IFNAMSIZ, of names of congestion control, and
// of struct timeval.
const longestOption = 16

// ReadDefaults makes a socket of the kind in the namespace of the calling
// thread and reads its options.
func ReadDefaults(k Kind) (*Defaults, error) {
	fd, err := New(k)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	d := &Defaults{kind: k}
	for _, o := range known {
		if !o.applies(k) || o.idle || o.buffer() || k.Protocol == TCP && o.moot() {
			continue
		}
		option := defaultOption{knownOption: o}
		_, err := getRaw(fd, o.level, o.name, option.value[:o.lenBytes])
		if absent(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read option %d of level %d: %w", o.name, o.level, err)
		}
		d.options = append(d.options, option)
	}
	return d, nil
}

// moot are options that an established connection of TCP has and that change
// nothing: what they ask for comes with datagrams or with Unix sockets, or is
// over once it is established. A third of the time of Differences.
var moot = map[int][]int{
	unix.SOL_SOCKET: {unix.SO_BROADCAST, unix.SO_NO_CHECK, unix.SO_PASSCRED, unix.SO_PASSSEC, soPassPIDFD, unix.SO_RXQ_OVFL, unix.SO_DEBUG},
	unix.IPPROTO_IP: {unix.IP_RECVOPTS, unix.IP_RETOPTS, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_RECVORIGDSTADDR, unix.IP_CHECKSUM,
		unix.IP_BIND_ADDRESS_NO_PORT, ipLocalPortRange},
	unix.IPPROTO_TCP: {unix.TCP_SYNCNT, unix.TCP_DEFER_ACCEPT, unix.TCP_SAVE_SYN},
	unix.IPPROTO_IPV6: {unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVRTHDR, unix.IPV6_RECVHOPOPTS, unix.IPV6_RECVDSTOPTS,
		unix.IPV6_RECVTCLASS, unix.IPV6_RECVORIGDSTADDR, unix.IPV6_RECVFRAGSIZE},
}

func (o knownOption) moot() bool { return slices.Contains(moot[o.level], o.name) }

// absent reports whether an error says that sockets of this kind, or this
// kernel, do not have an option.
func absent(err error) bool {
	return err == unix.ENOPROTOOPT || err == unix.EOPNOTSUPP || err == unix.EINVAL || err == unix.ENOTCONN
}

// Differences returns the options of a connected socket of the kind that are
// not the defaults, of TCP without the moot ones.
func (d *Defaults) Differences(fd int) (Options, error) {
	var differ Options
	var value [longestOption]byte
	for i := range d.options {
		o := &d.options[i]
		b := value[:o.lenBytes]
		clear(b)
		if _, err := getRaw(fd, o.level, o.name, b); err != nil {
			if absent(err) {
				continue
			}
			return nil, fmt.Errorf("read option %d of level %d: %w", o.name, o.level, err)
		}
		if !bytes.Equal(b, o.value[:o.lenBytes]) {
			differ = append(differ, Option{o.level, o.name, bytes.TrimRight(bytes.Clone(b), "\x00")})
		}
	}
	buffers, err := ownBuffers(fd)
	return append(differ, buffers...), err
}

// ownBuffers returns the sizes of buffers that the program has chosen.
func ownBuffers(fd int) (Options, error) {
	locked, err := getInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	if err == nil && locked == 0 {
		return nil, nil
	}
	var all Options
	for _, o := range buffers() {
		if err == nil && locked>>o.lockBit()&1 == 0 {
			continue
		}
		b := make([]byte, o.lenBytes)
		if _, err := getRaw(fd, o.level, o.name, b); err != nil {
			return nil, fmt.Errorf("read option %d of level %d: %w", o.name, o.level, err)
		}
		all = append(all, Option{o.level, o.name, bytes.TrimRight(b, "\x00")})
	}
	return all, nil
}
