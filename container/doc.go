// Package container makes containers: the OCI bundle of a service, and the
// runtime that creates it from there.
//
// Nouns: a Bundle is all that a container is made from, plain data; a Runtime
// is an OCI runtime's command line (runc unless said); Stdio is the set of
// FIFOs and the socket through which a container's init and application speak
// with the host. Networks are in the subpackage network.
//
// A Runtime may be used from several goroutines at once; the operations on one
// container are the caller's to order. Specs are trusted as configuration of
// root; the root file system is not: paths in it are resolved so that links
// can not lead out of it.
package container
