package checkpoint

import (
	"encoding/binary"
	"fmt"

	"torpor/checkpoint/blob"
)

// A script entry is 64 bytes, little endian; blob's interpreter executes it:
//
//	 0  number of the system call, uint32
//	 4  operation, uint8
//	 5  checks, uint8
//	 8  six arguments, uint64 each
//	56  result; with checkEqual the expected one
const entryBytes = 64

type operation uint8

// The interpreter's operations.
const (
	opCall  operation = 0
	opStop  operation = 1 // breakpoint: the tracer takes over
	opClone operation = 2 // system call whose child goes on at the sixth argument
	opCopy  operation = 3 // to, from, length
	opWait  operation = 4 // until the uint32 at the first argument is at least the second
	opCount operation = 5 // add one to the uint32 at the first argument
	opSleep operation = 6 // for the tracer
)

const (
	checkSuccess = 1
	checkEqual   = 2
)

// areaAddr is an address inside the area: where a script, its data and the
// interpreter lie in every process that executes it.
type areaAddr uint64

// script builds the content of an area: the interpreter, data, and routines.
// A routine is a run of entries that one task executes; its address is known
// once it is placed, so routines that name others are placed after them.
type script struct {
	base areaAddr
	b    []byte
}

func newScript(base areaAddr) *script {
	s := &script{base: base}
	s.data(blob.Interpreter())
	return s
}

// interpreter is the address of the interpreter's first instruction.
func (s *script) interpreter() areaAddr { return s.base }

// data places bytes, aligned to 16.
func (s *script) data(b []byte) areaAddr {
	s.align(16)
	addr := s.base + areaAddr(len(s.b))
	s.b = append(s.b, b...)
	return addr
}

// words places 64-bit words.
func (s *script) words(values ...uint64) areaAddr {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return s.data(b)
}

// string places a string ended by a zero byte.
func (s *script) string(v string) areaAddr { return s.data(append([]byte(v), 0)) }

func (s *script) align(n int) {
	for len(s.b)%n != 0 {
		s.b = append(s.b, 0)
	}
}

// place appends a routine and returns its address.
func (s *script) place(r *routine) areaAddr {
	s.align(entryBytes)
	addr := s.base + areaAddr(len(s.b))
	for i := range r.entries {
		s.b = r.entries[i].append(s.b)
	}
	return addr
}

// entry is one decoded script entry.
type entry struct {
	nr     uint32
	op     operation
	checks uint8
	args   [6]uint64
	result uint64
}

func (e *entry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, e.nr)
	b = append(b, byte(e.op), e.checks, 0, 0)
	for _, a := range e.args {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return binary.LittleEndian.AppendUint64(b, e.result)
}

func loadEntry(b []byte) entry {
	e := entry{nr: binary.LittleEndian.Uint32(b), op: operation(b[4]), checks: b[5]}
	for i := range e.args {
		e.args[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	e.result = binary.LittleEndian.Uint64(b[56:])
	return e
}

func (e *entry) String() string {
	return fmt.Sprintf("operation %d, system call %d(%x, %x, %x, %x, %x, %x) = %d",
		e.op, e.nr, e.args[0], e.args[1], e.args[2], e.args[3], e.args[4], e.args[5], int64(e.result))
}

// routine collects entries.
type routine struct{ entries []entry }

func (r *routine) add(e entry, args ...uint64) {
	copy(e.args[:], args)
	r.entries = append(r.entries, e)
}

// call adds a system call that must succeed.
func (r *routine) call(nr uint32, args ...uint64) {
	r.add(entry{nr: nr, checks: checkSuccess}, args...)
}

// expect adds a system call that must return want.
func (r *routine) expect(want uint64, nr uint32, args ...uint64) {
	r.add(entry{nr: nr, checks: checkEqual, result: want}, args...)
}

// try adds a system call whose result does not matter.
func (r *routine) try(nr uint32, args ...uint64) { r.add(entry{nr: nr}, args...) }

// clone adds a clone3 whose child goes on at child.
func (r *routine) clone(args areaAddr, child areaAddr, want int) {
	r.add(entry{nr: sysClone3, op: opClone, checks: checkEqual, result: uint64(want)},
		uint64(args), cloneArgsBytes, 0, 0, 0, uint64(child))
}

func (r *routine) stop() { r.add(entry{op: opStop}) }

func (r *routine) waitFor(word areaAddr, count uint32) {
	r.add(entry{op: opWait}, uint64(word), uint64(count))
}

func (r *routine) count(word areaAddr) { r.add(entry{op: opCount}, uint64(word)) }

func (r *routine) sleep() { r.add(entry{op: opSleep}) }
