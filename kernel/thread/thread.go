// Package thread runs functions on threads that are thrown away afterwards:
// what a function changes of its thread (namespaces, root directory) touches
// nobody else.
//
// It holds no state; Do may be called concurrently and from within.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Do runs f on a thread that ends with it. It is never the process's first
// thread, which Go can not end: /proc/self would show its namespaces for good.
// Goroutines that f starts run elsewhere.
func Do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f() // never unlocked
			return
		}
		err := Do(f) // not on this thread, which waits here
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
