package compose

import (
	"regexp"
	"slices"
	"strings"

	"torpor/host"
)

var (
	pathPattern    = regexp.MustCompile(`\b(services|networks|volumes|secrets|configs|include|name)((?:\.[A-Za-z0-9_-]+|\[\d+\])+)`)
	servicePattern = regexp.MustCompile(`\bservice "?([A-Za-z0-9._-]+)"?`)
	openingPattern = regexp.MustCompile(`^(validating [^:]+: |failed to parse [^:]+: |error while interpolating |invalid interpolation format for |service "?[A-Za-z0-9._-]+"? )`)
	partPattern    = regexp.MustCompile(`[A-Za-z0-9_-]+`)
)

// explain turns an error of compose-go into a Problem. It gives no position;
// the path, service, file or line that its text mentions does.
func (o *origin) explain(err error) Problem {
	text := err.Error()
	p := Problem{Kind: host.ErrInvalid, File: o.at().file, Reason: openingPattern.ReplaceAllString(text, "")}
	if line := lineOf(text); line > 0 {
		if i := slices.IndexFunc(o.documents, func(d *document) bool { return strings.Contains(text, d.file) }); i >= 0 {
			p.File = o.documents[i].name
		}
		p.Line, p.Reason = line, syntaxReason(trimmed{p.Reason})
		return p
	}
	if found := pathPattern.FindString(text); found != "" {
		at := o.at(partPattern.FindAllString(found, -1)...)
		p.File, p.Line = at.file, at.line
		if rest, ok := strings.CutPrefix(p.Reason, found); ok {
			p.Path, p.Reason = found, strings.TrimLeft(rest, ": ")
		}
		return p
	}
	if m := servicePattern.FindStringSubmatch(text); m != nil && len(o.services[m[1]]) > 0 {
		at := o.at("services", m[1])
		p.File, p.Line, p.Path = at.file, at.line, "services."+m[1]
	}
	return p
}

// trimmed is an error that is only its text.
type trimmed struct{ text string }

func (t trimmed) Error() string { return t.text }
