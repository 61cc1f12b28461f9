package nbd

import (
	"errors"
	"syscall"

	"torpor/block"
)

// errno is the error of a reply. The protocol knows these only.
type errno uint32

const (
	errnoPerm     errno = 1
	errnoIO       errno = 5
	errnoNoMemory errno = 12
	errnoInvalid  errno = 22
	errnoNoSpace  errno = 28
	errnoOverflow errno = 75
	errnoNotSup   errno = 95
	errnoShutdown errno = 108
)

// errnos is what clients are told of a device's errors; of those that are not
// here, errnoIO.
var errnos = map[syscall.Errno]errno{
	syscall.EPERM:      errnoPerm,
	syscall.EACCES:     errnoPerm,
	syscall.EROFS:      errnoPerm,
	syscall.EIO:        errnoIO,
	syscall.ENOMEM:     errnoNoMemory,
	syscall.EINVAL:     errnoInvalid,
	syscall.ENOSPC:     errnoNoSpace,
	syscall.EDQUOT:     errnoNoSpace,
	syscall.EFBIG:      errnoNoSpace,
	syscall.EOVERFLOW:  errnoOverflow,
	syscall.EOPNOTSUPP: errnoNotSup,
	syscall.ESHUTDOWN:  errnoShutdown,
}

// errnoOf maps an error of a device that came up for a request. Writes behind
// the end are said to lack space, and only fast zeroing can be unsupported.
func errnoOf(err error, h header) errno {
	if errors.Is(err, block.ErrRange) && (h.command == commandWrite || h.command == commandWriteZeroes) {
		return errnoNoSpace
	}
	e, known := errnos[block.Errno(err)]
	switch {
	case !known:
		return errnoIO
	case e == errnoNotSup && h.flags&flagFastZero == 0:
		return errnoInvalid
	}
	return e
}
