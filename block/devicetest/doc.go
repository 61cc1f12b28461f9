// Package devicetest is the suite that every kind of block.Device passes: it
// compares a device with what package block promises.
//
// Random tests print the seed with which they failed; the environment variable
// TORPOR_DEVICE_SEED repeats it.
package devicetest
