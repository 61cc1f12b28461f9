package compose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"torpor/host"
)

// Problem is one thing wrong with a compose file. It matches Kind, which is
// host.ErrUnsupported or host.ErrInvalid.
type Problem struct {
	File   string // as shown to people: relative to the project directory where it lies below it
	Line   int    // 1 is the first; 0: not known
	Path   string // "services.web.gpus"; "" where none applies
	Reason string // "" where Kind says it all
	Kind   error
}

// Error is "compose.yaml:12: services.web.gpus: not supported".
func (p Problem) Error() string {
	var parts []string
	switch {
	case p.File != "" && p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", p.File, p.Line))
	case p.File != "":
		parts = append(parts, p.File)
	}
	if p.Path != "" {
		parts = append(parts, p.Path)
	}
	if p.Reason != "" {
		parts = append(parts, p.Reason)
	}
	if p.Kind == host.ErrUnsupported || p.Reason == "" {
		parts = append(parts, p.Kind.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap makes errors.Is find the kind.
func (p Problem) Unwrap() error { return p.Kind }

// Problems are all that is wrong with a project, by file and line. Their text
// has one line each.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is find the kind of any of them.
func (ps Problems) Unwrap() []error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errs
}

// err returns the problems sorted and without repetition, nil if there are none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
	})
	return slices.Compact(ps)
}
