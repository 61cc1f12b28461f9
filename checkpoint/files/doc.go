// Package files tells whether the files that a checkpoint was made beside are
// still the same, and keeps copies of those that are the container's own.
//
// Nouns: a Listing says what the directories of one tree looked like; a layer
// is a container's writable layer, or a file system in memory, of which a copy
// is kept with the checkpoint.
//
// A process that is restored has read files, or found that they are missing,
// before it was checkpointed. Restored beside other files it would act on what
// is no longer so: code that was changed, a database that has grown. So the
// Listing covers every file of a mount, also those the process never opened.
//
// Listings say only that something changed: names, sizes, modes, owners, times
// of modification, and for files outside the container also inode numbers and
// times of change. Content is not read.
//
// Functions may be called concurrently for different trees. What is in the
// trees is not trusted: links are never followed.
package files
