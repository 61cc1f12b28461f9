package checkpoint

import (
	"path/filepath"
	"strings"

	"torpor/kernel/proc"
)

// discards says what MADV_DONTNEED does on a process's restored memory. On a
// private mapping of a file it would bring back the file's pages, where
// programs expect zeros: silent corruption.
type discards int

const (
	// discardsFail: mappings are locked on fault, so that MADV_DONTNEED is
	// EINVAL. It costs nothing, and allocators clear the memory themselves.
	discardsFail discards = iota
	// discardsOld: they return old pages. Right for V8, which treats a failure
	// as fatal and does not take what it discards for zeros.
	discardsOld
	// discardsZero: the memory is anonymous again and read at the restore. Exact
	// for every program; a wake takes as long as copying its memory.
	discardsZero
)

// locking overrides the choice, for tests that show why it is made.
type locking int

const (
	lockByRuntime locking = iota
	lockNever
	lockAlways
)

func (l locking) choose(vmas []proc.VMA) discards {
	switch l {
	case lockNever:
		return discardsOld
	case lockAlways:
		return discardsFail
	}
	var strict, needsZeros bool
	for i := range vmas {
		name := filepath.Base(vmas[i].Name)
		strict = strict || isV8(name)
		needsZeros = needsZeros || strings.HasPrefix(name, "libjemalloc") || strings.HasPrefix(name, "libtcmalloc") || strings.HasPrefix(name, "libmimalloc")
	}
	switch {
	case strict && needsZeros:
		return discardsZero
	case strict:
		return discardsOld
	}
	return discardsFail
}

// isV8 tells the files of V8 and of programs that hold it.
func isV8(name string) bool {
	switch name {
	case "node", "nodejs", "deno", "electron", "chrome", "chromium":
		return true
	}
	return strings.HasPrefix(name, "libnode.so") || strings.HasPrefix(name, "libv8")
}
