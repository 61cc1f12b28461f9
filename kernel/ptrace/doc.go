// Package ptrace traces processes: seize, stop, registers, injected system
// calls.
//
// Nouns: a Tracer is one operating-system thread on which every request and
// every wait of its tracees is made, as ptrace(2) demands; a task is a thread
// of a tracee, named by its tid in the tracer's pid namespace.
//
// A Tracer's methods may be called from one goroutine at a time, inside Do. It
// trusts nothing about a tracee: registers and statuses are what the kernel
// says, memory is read by the caller.
package ptrace
