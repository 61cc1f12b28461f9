// Package host holds the nouns that Torpor's parts share: projects, services
// and their specs, states, events and kinds of error.
//
// It is plain data with the rules that belong to it: no I/O, no goroutines and
// nothing but the standard library. Values may be copied and read from several
// goroutines at once; whoever changes one owns it. Specs come from a compose
// file that the machine's administrator runs, so they are trusted like any
// configuration read by root; they are validated where they are made (package
// compose) and again where a rule here says so.
package host
