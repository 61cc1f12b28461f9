package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func (w *RepairWindow) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func getWindow(fd int) (w RepairWindow, err error) {
	_, err = getRaw(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, w.bytes())
	return w, err
}

func setWindow(fd int, w RepairWindow) error {
	return setRaw(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, w.bytes())
}

// scales reads snd_wscale and rcv_wscale of struct tcp_info, two bit fields
// that package unix leaves out.
func scales(info *unix.TCPInfo) (send, receive uint8) {
	const offset = 6
	b := *(*uint8)(unsafe.Add(unsafe.Pointer(info), offset))
	return b & 15, b >> 4
}
