// Package disk reads and writes regular files and block devices that are used
// as disks: at offsets, from scattered memory, durably, with holes.
//
// A File or Directory may be used from any number of goroutines; Close must not
// overlap with other calls. Interrupted and short calls are continued. Errors
// are `verb path: cause` and keep the errno.
package disk
