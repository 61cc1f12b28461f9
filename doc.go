// Package torpor holds the rules that the whole tree keeps; its tests check
// them. There is nothing to import: the program is cmd/torpor, and DESIGN.md
// says which package does what.
package torpor
