package compose

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// origin is every file that a project comes from and what of them makes up
// each service. It answers positions; what a file means is compose-go's.
type origin struct {
	projectDir string
	env        types.Mapping
	main       []*document // the files asked for, without what they include
	documents  []*document // weakest first: an include comes before the file that names it
	services   map[string][]fragment
}

// fragment is one place that adds to a service: a mapping node under services.
type fragment struct {
	doc  *document
	node *yaml.Node
}

// maxNesting bounds includes of includes and extends of extends.
const maxNesting = 16

// readOrigin parses the files and all that they include or extend. Files that
// are named but cannot be read are left to compose-go to complain of.
func readOrigin(details types.ConfigDetails) (*origin, error) {
	o := &origin{projectDir: details.WorkingDir, env: details.Environment, services: map[string][]fragment{}}
	var problems Problems
	for _, f := range details.ConfigFiles {
		d, err := parseDocument(f.Filename, shownName(o.projectDir, f.Filename), o.projectDir, f.Content)
		if err != nil {
			problems = append(problems, err.(Problem))
			continue
		}
		o.main = append(o.main, d)
		o.include(d, maxNesting)
	}
	for _, d := range o.documents {
		for _, e := range d.section("services") {
			o.extend(e.key.Value, fragment{d, resolveAlias(e.value)}, maxNesting)
		}
	}
	return o, problems.err()
}

// section lists the entries of a top-level key.
func (d *document) section(key string) []entry {
	var list []entry
	for _, root := range d.roots {
		if e, ok := child(root, key); ok {
			list = append(list, entries(e.value)...)
		}
	}
	return list
}

// include adds what d includes, then d.
func (o *origin) include(d *document, depth int) {
	if depth == 0 || slices.ContainsFunc(o.documents, func(other *document) bool { return other.file == d.file }) {
		return
	}
	for _, root := range d.roots {
		list, ok := child(root, "include")
		if !ok {
			continue
		}
		for _, item := range resolveAlias(list.value).Content {
			o.includeItem(d, resolveAlias(item), depth)
		}
	}
	o.documents = append(o.documents, d)
}

func (o *origin) includeItem(d *document, item *yaml.Node, depth int) {
	dir := ""
	paths := []*yaml.Node{item}
	if item.Kind == yaml.MappingNode {
		paths = nil
		if e, ok := child(item, "path"); ok {
			paths = scalars(e.value)
		}
		if e, ok := child(item, "project_directory"); ok {
			dir = o.resolve(d.base, e.value)
		}
	}
	for _, p := range paths {
		file := o.resolve(d.base, p)
		if dir == "" {
			dir = filepath.Dir(file)
		}
		if sub, err := openDocument(file, shownName(o.projectDir, file), dir); err == nil {
			o.include(sub, depth-1)
		}
	}
}

// extend adds the service that a fragment extends, then the fragment.
func (o *origin) extend(service string, f fragment, depth int) {
	if e, ok := child(f.node, "extends"); ok && depth > 0 {
		base, name := f.doc, o.expand(resolveAlias(e.value).Value)
		if s, ok := child(e.value, "service"); ok {
			name = o.expand(s.value.Value)
		}
		if s, ok := child(e.value, "file"); ok {
			file := o.resolve(f.doc.base, s.value)
			base, _ = openDocument(file, shownName(o.projectDir, file), filepath.Dir(file))
		}
		if base != nil {
			for _, e := range base.section("services") {
				if e.key.Value == name {
					o.extend(service, fragment{base, resolveAlias(e.value)}, depth-1)
				}
			}
		}
	}
	o.services[service] = append(o.services[service], f)
}

// scalars lists the scalars of a node that is one or a list of them.
func scalars(node *yaml.Node) []*yaml.Node {
	node = resolveAlias(node)
	if node.Kind == yaml.ScalarNode {
		return []*yaml.Node{node}
	}
	var list []*yaml.Node
	for _, item := range node.Content {
		if item = resolveAlias(item); item.Kind == yaml.ScalarNode {
			list = append(list, item)
		}
	}
	return list
}

// resolve is a path given in a file, absolute.
func (o *origin) resolve(base string, node *yaml.Node) string {
	path := o.expand(resolveAlias(node).Value)
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

// expand replaces variables. A text that does not expand stays as it is:
// compose-go complains of it.
func (o *origin) expand(text string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	expanded, err := template.SubstituteWithOptions(text, o.env.Resolve, template.WithoutLogging)
	if err != nil {
		return text
	}
	return expanded
}

// position is where something stands.
type position struct {
	file string
	line int
	base string // directory that relative paths there start from
}

// at finds where a path was written: the deepest of its parts that is found,
// in the file that has the last word.
func (o *origin) at(path ...string) position {
	best, bestDepth := position{base: o.projectDir}, -1
	if len(o.documents) > 0 {
		best.file = o.documents[len(o.documents)-1].name
	}
	consider := func(d *document, line, depth int) {
		if depth >= bestDepth && line > 0 {
			best, bestDepth = position{d.name, line, d.base}, depth
		}
	}
	if len(path) > 1 && path[0] == "services" {
		for _, f := range o.services[path[1]] {
			line, depth := descend(f.node, path[2:])
			if depth == 0 {
				line = f.headLine(path[1])
			}
			consider(f.doc, line, depth)
		}
		return best
	}
	for _, d := range o.documents {
		for _, root := range d.roots {
			if line, depth := descend(root, path); depth > 0 {
				consider(d, line, depth)
			}
		}
	}
	return best
}

// headLine is the line of a service's name, or of its first key if it is
// called otherwise there.
func (f fragment) headLine(service string) int {
	for _, e := range f.doc.section("services") {
		if e.key.Value == service && resolveAlias(e.value) == f.node {
			return e.key.Line
		}
	}
	return f.node.Line
}

// descend follows a path from a node and says on which line the deepest part
// found stands, and how many parts were found.
func descend(node *yaml.Node, path []string) (line, depth int) {
	for _, part := range path {
		node = resolveAlias(node)
		if node.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(node.Content) {
				return line, depth
			}
			node = node.Content[i]
			line = node.Line
		} else {
			e, ok := child(node, part)
			if !ok {
				return line, depth
			}
			line, node = e.key.Line, e.value
		}
		depth++
	}
	return line, depth
}

// item finds the item of a service's list that mentions a text; the list
// itself if there is none. Items are found by their text because merging and
// port ranges move them.
func (o *origin) item(service, key, mention string) position {
	for _, f := range slices.Backward(o.services[service]) {
		e, ok := child(f.node, key)
		if !ok {
			continue
		}
		list := resolveAlias(e.value)
		if list.Kind != yaml.SequenceNode {
			continue
		}
		for _, node := range list.Content {
			if mention != "" && o.mentions(resolveAlias(node), mention, maxNesting) {
				return position{f.doc.name, node.Line, f.doc.base}
			}
		}
	}
	return o.at("services", service, key)
}

func (o *origin) mentions(node *yaml.Node, text string, depth int) bool {
	if node.Kind == yaml.ScalarNode {
		return strings.Contains(o.expand(node.Value), text)
	}
	if depth == 0 {
		return false
	}
	return slices.ContainsFunc(node.Content, func(n *yaml.Node) bool {
		return o.mentions(resolveAlias(n), text, depth-1)
	})
}

// absolute resolves a path that compose-go does not know to be one.
func (o *origin) absolute(at position, path string) string {
	if path == "" {
		return ""
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	base := at.base
	if base == "" {
		base = o.projectDir
	}
	return filepath.Join(base, path)
}
