// Package eventfile makes descriptors that report events: counters, timers,
// signals, watches and sets of them. All are made close-on-exec and belong to
// the caller.
//
// It holds no state and may be called concurrently.
package eventfile
