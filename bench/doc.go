// Package bench measures Torpor on the machine at hand, as torpor bench does.
//
// Nouns: a Case is one program to be measured, a Result the figures of one.
// Everything runs with the real parts: the keeper is a process of its own, the
// programs run below an init in namespaces of their own. One benchmark at a
// time: they would disturb each other.
package bench
