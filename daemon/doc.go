// Package daemon wires Torpor's parts together: it runs the services of
// projects, remembers what should run, and answers the command line.
//
// Nouns: a Daemon is the process behind torpor serve; a unit is one container
// of a service in its care, with the Record that is kept on disk; a Client is
// the command line's side of the API.
//
// Each unit has one goroutine that alone changes it; others send it work and
// read its status. The order of locks is Daemon.mu before unit.mu. The daemon
// may be killed at any time: what it needs is in records, in the runtime and
// in the keeper, and is found again.
//
// Whoever can open the API's socket is trusted like root.
package daemon
