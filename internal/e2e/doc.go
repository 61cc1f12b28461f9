// Package e2e tests torpor from outside: the built program, a real OCI runtime,
// services that are installed on every machine the tests run on.
//
// It holds tests only. They run in a network and a mount namespace of their
// own, so nothing of the machine's is touched but /torpor in the cgroup trees.
package e2e
