// Package volume serves volumes: virtual disks that lie in a log on a set of
// disks (block/logvolume).
//
// Nouns: a Server is a process that has one log open and offers its volumes to
// this host and to others; a Client is the side of the daemon; State is what is
// kept on disk about a log beside its own disks: where these are, and which
// exports should exist. An export is a block device of this host (attached) or
// an NBD server. A job is a long operation, which tells its progress.
//
// The server is started by the daemon in its own session, for each log, and
// outlives it. It alone writes its State; its lock says that it lives. When it
// was killed the next one recovers the log and makes the same exports again. It
// can execute a newer binary in its place: requests wait meanwhile.
//
// One lock orders what changes volumes and exports; requests for blocks do not
// take it. Whoever can open its socket is trusted like root.
package volume
