// Package kerneltest lets tests say what they need of the machine and notices
// what they leave behind.
//
// Nouns: a Need is one requirement, tried and not guessed; Require skips a test
// whose needs are not met, with the reason. With TORPOR_REQUIRE_KERNEL=1, as in
// make test, a skip is a failure, so that tests of the kernel can not fall
// silent. Main runs a package's tests and fails if processes, mounts,
// descriptors, goroutines or files of theirs are still there at the end.
//
// Needs are tried once a process and may be asked for concurrently. The package
// knows no other part of Torpor, so that every package's tests can use it.
package kerneltest
