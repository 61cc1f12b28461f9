// Package image keeps OCI images and makes root file systems of them.
//
// Nouns: a Store is a directory with images and layers; an Image is what is
// known of one image, plain data; a layer is one unpacked change set, named by
// the digest of its tar stream (its diff ID) and shared by all images that
// have it; a RootFS is an overlay mount of layers, or of a host directory,
// under a private writable directory; a holder is somebody who uses an image
// and so keeps it.
//
// A Store may be used by many goroutines at once and is open in one process
// at a time. Its one lock guards memory and the index file only: it is never
// held over a download or an unpack. Every change is a rename of something
// complete, so a process killed at any point leaves a store that the next Open
// cleans.
//
// Nothing that arrives is trusted: manifests, configs and layers are checked
// against their digests before they are used, and archives are unpacked where
// their names can not lead out (package kernel/tree). The store directory
// itself is trusted and closed to others than root: layers hold device nodes
// and set-user-ID programs.
//
// The package does not build images, push them, or check signatures.
// docs/format/image-store.md describes the directory.
package image
