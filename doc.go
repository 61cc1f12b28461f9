// Package torpor holds no code but the rules that the tree keeps, as tests; run
// them with go test. The program is in cmd/torpor; DESIGN.md says what is
// where.
package torpor
