// Package fault makes a device fail, for tests: requests that match a Rule end
// in an error, take long, hang, are lost or torn, go elsewhere, or are damaged.
// Without rules everything is handed on to the device below.
//
// Rules may be added and removed while the device is in use, from any number of
// goroutines. What is left to chance comes from a seed: the same requests in the
// same order meet the same faults.
package fault
