// Package wire is how Torpor's processes talk to each other and to the command
// line: HTTP with JSON over Unix sockets.
//
// Nouns: a Client sends requests to one socket; Answer answers one; a failure
// is an error on the wire, which keeps its kind of package host. A Broadcast
// hands events to everybody who watches, as JSON lines.
//
// Whoever can open a socket is trusted like root; Listen lets root only.
// Everything here may be used from several goroutines at once.
package wire
