// Package analyzer learns how the connections of a service behave, and says
// from it which of them are parked or suspended while the service sleeps,
// whether it may sleep, and when it has to be woken ahead of what it must do by
// itself. Every answer has its reason in words.
//
// Nouns: an [Observation] is what the kernel tells of one connection at one
// time; an [Analyzer] makes a history of each connection out of it. An
// *exchange* is data that goes back and forth between two silences. The peer
// begins it (a request), or the service (its own *ping*, whatever it says). A
// [Choice] is what to do with one connection, a [Wake] when to wake.
//
// An exchange is the service's own if data was sent before any was received.
// Observations lie some time apart, but the kernel tells when data last went in
// each direction, so a ping is told from an answer even if both ways were used
// in between; when the kernel's clock is too coarse for that, segments without
// data decide: who asks must acknowledge the answer by one, and who answers has
// the acknowledgement in it.
//
// Nothing here does I/O or reads a clock. An Analyzer is for one goroutine at a
// time. It takes about 250 bytes a connection and forgets those that are gone.
package analyzer
