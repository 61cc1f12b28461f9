// Package tree makes files below one directory without ever leaving it.
//
// Nouns: a Tree is an open directory; a name is a slash-separated path below
// it; Meta is what an entry has besides its content.
//
// Names and symbolic links may come from anybody: every parent is looked up by
// openat2 with the directory as its root, so an absolute link, "..", or a link
// out of the tree ends inside the tree, and the last component is never
// followed. A Tree has one owner at a time; nobody else may change the
// directory meanwhile. It needs root, /proc, and Linux 5.8.
//
// What names mean (whiteouts, which entry may replace which) is the caller's.
package tree
