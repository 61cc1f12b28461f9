package compose

import (
	_ "embed"
	"strings"
	"sync"
)

//go:embed keys.txt
var keysText string

// rule is what keys.txt says of one path.
type rule struct {
	unsupported bool
	keys        map[string]*rule // of a closed mapping
	each        *rule            // of an open mapping's values or a list's items
}

// extensionKey is the one extension that Torpor reads, under services only.
const extensionKey = "x-torpor"

// rules is keys.txt as a tree. It is not written to after it was made.
var rules = sync.OnceValue(func() *rule {
	root := &rule{}
	for line := range strings.Lines(keysText) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, unsupported := strings.CutPrefix(line, "- ")
		at := root
		for part := range strings.SplitSeq(path, ".") {
			at = at.grow(part)
		}
		at.unsupported = unsupported
	}
	return root
})

func (r *rule) grow(part string) *rule {
	if part == "*" {
		if r.each == nil {
			r.each = &rule{}
		}
		return r.each
	}
	if r.keys == nil {
		r.keys = map[string]*rule{}
	}
	if r.keys[part] == nil {
		r.keys[part] = &rule{}
	}
	return r.keys[part]
}

// nearest returns the known key that a typo was most likely meant to be, "" if
// none is near.
func (r *rule) nearest(typo string) string {
	best, bestDistance := "", 3
	for key := range r.keys {
		d := distance(typo, key)
		if d < bestDistance || d == bestDistance && best != "" && key < best {
			best, bestDistance = key, d
		}
	}
	if bestDistance*2 >= len(typo) {
		return ""
	}
	return best
}

// distance counts the edits from a to b (Levenshtein), and one for two
// neighbours that changed places.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
