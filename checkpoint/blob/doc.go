// Package blob holds the three pieces of machine code that Torpor runs outside
// itself: the interpreter that executes a restore script inside a new process,
// the stub that enters a container's namespaces and waits to become that
// process, and the init that is pid 1 of every container.
//
// They are written in Go's assembler (blob_amd64.s), use no memory but what
// their protocol names, call nothing, and are position independent except that
// the stub finds its parameters at ParamAddr. The functions here copy them out
// of this binary's text; they are pure and may be called concurrently.
//
// Nothing here is trusted with input from a container: the init reads only
// datagrams sent to a socket in a directory of root, the stub only its own
// parameters, the interpreter only a script that this host compiled.
package blob
