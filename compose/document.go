package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"torpor/host"
)

// document is one compose file as nodes.
type document struct {
	file  string // absolute, or "-"
	name  string // as shown to people
	base  string // directory that the file's relative paths start from
	roots []*yaml.Node
}

// maxDocumentBytes bounds one compose file; those seen are below 100 KB.
const maxDocumentBytes = 4 << 20

// parseDocument reads YAML documents. A syntax error is a Problem with its line.
func parseDocument(file, name, base string, content []byte) (*document, error) {
	d := &document{file: file, name: name, base: base}
	if len(content) > maxDocumentBytes {
		return nil, Problem{File: name, Kind: host.ErrInvalid,
			Reason: fmt.Sprintf("%d bytes are more than a compose file may have (%d)", len(content), maxDocumentBytes)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return d, nil
		}
		if err != nil {
			line, reason := syntaxError(err.Error(), content)
			return nil, Problem{File: name, Line: line, Kind: host.ErrInvalid, Reason: reason}
		}
		root := &node
		if node.Kind == yaml.DocumentNode {
			if len(node.Content) == 0 {
				continue
			}
			root = node.Content[0]
		}
		if root = resolveAlias(root); root.Kind == yaml.MappingNode {
			d.roots = append(d.roots, root)
		}
	}
}

// openDocument reads a file that another one names.
func openDocument(file, name, base string) (*document, error) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || info.Size() > maxDocumentBytes {
		return nil, fmt.Errorf("open %s: not a regular file of fitting size", file)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseDocument(file, name, base, content)
}

var (
	linePattern   = regexp.MustCompile(`\bline (\d+)(?:, column \d+)?: `)
	offsetPattern = regexp.MustCompile(`\boffset (\d+): `)
)

// syntaxError splits the text of a YAML error into its line, 0 if there is
// none, and what is wrong. The library counts lines from 0 in errors of its
// parser and from 1 in those of its scanner.
func syntaxError(text string, content []byte) (line int, reason string) {
	text = strings.Join(strings.Fields(text), " ")
	if m := offsetPattern.FindStringSubmatchIndex(text); m != nil {
		offset, _ := strconv.Atoi(text[m[2]:m[3]])
		return 1 + bytes.Count(content[:min(offset, len(content))], []byte("\n")), "yaml: " + text[m[1]:]
	}
	all := linePattern.FindAllStringSubmatchIndex(text, -1)
	if all == nil {
		return 0, "yaml: " + strings.TrimPrefix(text, "yaml: ")
	}
	m := all[len(all)-1]
	line, _ = strconv.Atoi(text[m[2]:m[3]])
	if strings.Contains(text, "while parsing ") {
		line++
	}
	return line, "yaml: " + strings.TrimPrefix(text[m[1]:], "yaml: ")
}

// shownName is file as people see it: relative to dir where it lies below it.
func shownName(dir, file string) string {
	if file == "-" {
		return "stdin"
	}
	rel, err := filepath.Rel(dir, file)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return file
	}
	return rel
}

// resolveAlias follows aliases to the node they stand for. An alias of an
// alias is not valid YAML, so a short bound is enough.
func resolveAlias(node *yaml.Node) *yaml.Node {
	for range 4 {
		if node.Kind != yaml.AliasNode || node.Alias == nil {
			break
		}
		node = node.Alias
	}
	return node
}

// entry is one key of a mapping with its value.
type entry struct {
	key, value *yaml.Node
}

// maxMerges bounds how deep merge keys (<<) are followed; cycles are possible.
const maxMerges = 16

// entries lists a mapping's keys, its own first and then those that come from
// merge keys and are not its own.
func entries(node *yaml.Node) []entry {
	var list []entry
	collectEntries(resolveAlias(node), map[string]bool{}, &list, maxMerges)
	return list
}

func collectEntries(node *yaml.Node, seen map[string]bool, list *[]entry, depth int) {
	if node.Kind != yaml.MappingNode || depth == 0 {
		return
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Value == "<<" && key.Kind == yaml.ScalarNode {
			merged = append(merged, resolveAlias(value))
			continue
		}
		if key = resolveAlias(key); !seen[key.Value] {
			seen[key.Value] = true
			*list = append(*list, entry{key, value})
		}
	}
	for _, m := range merged {
		if m.Kind == yaml.SequenceNode {
			for _, item := range m.Content {
				collectEntries(resolveAlias(item), seen, list, depth-1)
			}
			continue
		}
		collectEntries(m, seen, list, depth-1)
	}
}

// child returns the entry of a key, or false.
func child(node *yaml.Node, key string) (entry, bool) {
	for _, e := range entries(node) {
		if e.key.Value == key {
			return e, true
		}
	}
	return entry{}, false
}
