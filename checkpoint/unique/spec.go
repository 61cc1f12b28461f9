package unique

import "torpor/kernel/proc"

// Spec is what has to be renewed in one process: plain data, part of a
// checkpoint. Addresses are the process's own; a restored process has the same.
type Spec struct {
	// Places are runs of memory that are overwritten.
	Places []Place `json:"places,omitempty"`
	// Calls are made in this order, after the places were written.
	Calls []Call `json:"calls,omitempty"`
	// Shared names, in words for people, random state that all restores of the
	// checkpoint have in common.
	Shared []string `json:"shared,omitempty"`
}

// Kind says what is at a Place and so how it is renewed.
type Kind string

// The kinds of a Place.
const (
	KindBytes   Kind = "bytes"   // LenBytes that may have any value: random
	KindZero    Kind = "zero"    // LenBytes that a fork would clear: zeros
	KindMT19937 Kind = "mt19937" // uint32 index and 624 uint32 of state
	KindChaCha8 Kind = "chacha8" // State of Go's internal/chacha8rand
	KindV8Math  Kind = "v8 math" // 64 float64 that Math.random takes, from Also: the two words of xorshift128+
	KindV8Seed  Kind = "v8 seed" // RandomNumberGenerator, from which Math.random is seeded
)

// Place is one piece of random state in memory.
type Place struct {
	Kind     Kind      `json:"kind"`
	Addr     proc.Addr `json:"addr"`
	LenBytes uint64    `json:"len_bytes,omitempty"`
	Also     proc.Addr `json:"also,omitempty"`
	// FractionBits is how many bits of a word V8 makes a number of: 52 or 53.
	FractionBits int `json:"fraction_bits,omitempty"`
}

// Call is a chain of calls of the program's functions on one thread.
type Call struct {
	// EveryThread repeats the chain on each thread; else the first one makes it.
	EveryThread bool   `json:"every_thread,omitempty"`
	Steps       []Step `json:"steps"`
}

// Step is one function call. A result of 0 ends its chain.
type Step struct {
	Name string    `json:"name"` // of the function
	Func proc.Addr `json:"func"`
	Args []Arg     `json:"args,omitempty"`
	// Must says that the result 0 is a failure and not just an end.
	Must bool `json:"must,omitempty"`
}

// Arg says what an argument is.
type Arg string

// The values of Arg.
const (
	ArgResult Arg = "result" // what the step before returned
	ArgRandom Arg = "random" // 64 random bits
)
