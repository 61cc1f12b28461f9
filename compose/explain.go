package compose

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"torpor/host"
)

var (
	pathPattern    = regexp.MustCompile(`\b(services|networks|volumes|secrets|configs|jobs|models|include|name)((?:\.[A-Za-z0-9_-]+|\[[A-Za-z0-9_.-]+\])+)`)
	servicePattern = regexp.MustCompile(`\bservice "?([A-Za-z0-9._-]+)"?|\bcycle detected: (\S+) `)
	openingPattern = regexp.MustCompile(`^(validating [^:]+: |failed to parse [^:]+: |error while interpolating |service "?[A-Za-z0-9._-]+"? )`)
	partPattern    = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	wordPattern    = regexp.MustCompile(`[^\s"'=,:\[\]{}]+`)
)

// wording makes compose-go's texts read like the others.
var wording = strings.NewReplacer(
	"decoding failed due to the following error(s): ", "",
	": invalid compose project", "",
	"must be a array", "must be a list",
	"must be a integer", "must be a number",
	"You may need to escape any $ with another $.", "a $ that starts no variable is written $$:",
)

// explain turns an error of compose-go into a Problem. compose-go gives no
// position; the line, path or service that its text mentions does, or else a
// word of the text that stands in a file.
func (o *origin) explain(err error) Problem {
	text := strings.Join(strings.Fields(err.Error()), " ")
	p := Problem{Kind: host.ErrInvalid, File: o.at().file, Reason: wording.Replace(openingPattern.ReplaceAllString(text, ""))}
	if linePattern.MatchString(text) {
		if i := slices.IndexFunc(o.documents, func(d *document) bool { return strings.Contains(text, d.file) }); i >= 0 {
			p.File = o.documents[i].name
		}
		p.Line, p.Reason = syntaxError(p.Reason, nil)
		return p
	}
	var at position
	if found := pathPattern.FindString(text); found != "" {
		parts := partPattern.FindAllString(found, -1)
		at, p.Path = o.at(parts...), strings.Join(parts, ".")
		for _, form := range []string{"invalid interpolation format for " + found, "'" + found + "'", found} {
			p.Reason = strings.TrimPrefix(p.Reason, form)
		}
		p.Reason = strings.TrimLeft(p.Reason, ":. ")
	} else if service := mentionedService(text); len(o.services[service]) > 0 {
		at, p.Path = o.at("services", service), "services."+service
	} else {
		at = o.word(text)
	}
	if at.line > 0 {
		p.File, p.Line = at.file, at.line
	}
	return p
}

func mentionedService(text string) string {
	m := servicePattern.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1] + m[2] // one of them is empty
}

// word finds a scalar that holds a word of a text; the text's last words say
// what is wrong, so they are tried first.
func (o *origin) word(text string) position {
	text = strings.TrimSuffix(text, ": no such file or directory")
	for _, word := range slices.Backward(wordPattern.FindAllString(text, -1)) {
		if word = path.Base(strings.TrimRight(word, ".")); len(word) < 2 {
			continue
		}
		for _, d := range slices.Backward(o.documents) {
			budget := maxVisits
			for _, root := range d.roots {
				if n := o.findWord(root, word, &budget); n != nil {
					return position{d.name, n.Line, d.base}
				}
			}
		}
	}
	return position{}
}

// findWord looks at values, not at keys, and does not follow aliases: what
// they stand for is looked at where it is.
func (o *origin) findWord(n *yaml.Node, word string, budget *int) *yaml.Node {
	if *budget--; *budget < 0 {
		return nil
	}
	switch n.Kind {
	case yaml.ScalarNode:
		for _, w := range wordPattern.FindAllString(o.expand(n.Value), -1) {
			if path.Base(w) == word {
				return n
			}
		}
	case yaml.MappingNode, yaml.SequenceNode:
		for i, sub := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				continue
			}
			if found := o.findWord(sub, word, budget); found != nil {
				return found
			}
		}
	}
	return nil
}
