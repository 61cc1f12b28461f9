// Package cgroup finds and uses control groups, of version 2 or version 1,
// whichever holds the controllers.
//
// Its functions may be called concurrently. Paths come from the kernel or from
// the host's configuration.
package cgroup
