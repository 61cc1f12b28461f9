// Package unique renews random state.
package unique
