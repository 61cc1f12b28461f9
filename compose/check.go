package compose

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"torpor/host"
)

// finding is a key that Torpor does not act on, as it stands in a file.
type finding struct {
	Problem
	key string // path with "*" for list items: what files and the merged model agree on
}

// maxVisits bounds the nodes looked at: aliases can make a small file huge.
const maxVisits = 200_000

// checker walks nodes along the rules.
type checker struct {
	doc      *document
	findings []finding
	visits   int
}

// check looks at every key of every file. The findings of a service that is
// not started afterwards do not matter; the caller sorts that out.
func (o *origin) check() ([]finding, error) {
	var all []finding
	c := &checker{}
	for _, d := range o.documents {
		c.doc = d
		for _, root := range d.roots {
			c.mapping(root, topRules(), nil, nil)
		}
	}
	for name, fragments := range o.services {
		for _, f := range fragments {
			c.doc = f.doc
			c.node(f.node, rules().keys["services"].each, []string{"services", name}, []string{"services", name})
		}
	}
	if c.visits > maxVisits {
		return nil, Problem{File: o.at().file, Kind: host.ErrInvalid,
			Reason: fmt.Sprintf("more than %d nodes after anchors are expanded", maxVisits)}
	}
	all = append(all, c.findings...)
	return all, nil
}

// topRules are the rules without those of services, which are looked at with
// all that they extend.
func topRules() *rule {
	top := &rule{keys: map[string]*rule{"services": {each: &rule{}}}}
	for key, r := range rules().keys {
		if key != "services" {
			top.keys[key] = r
		}
	}
	return top
}

func (c *checker) node(n *yaml.Node, r *rule, path, key []string) {
	if c.visits++; c.visits > maxVisits {
		return
	}
	n = resolveAlias(n)
	switch {
	case n.Kind == yaml.MappingNode:
		c.mapping(n, r, path, key)
	case n.Kind == yaml.SequenceNode && r.each != nil:
		for i, item := range n.Content {
			indexed := append(path[:len(path)-1:len(path)-1], fmt.Sprintf("%s[%d]", path[len(path)-1], i))
			c.node(item, r.each, indexed, append(key[:len(key):len(key)], "*"))
		}
	}
}

func (c *checker) mapping(n *yaml.Node, r *rule, path, key []string) {
	if r.keys == nil && r.each == nil {
		return
	}
	for _, e := range entries(n) {
		name := e.key.Value
		at, atKey := append(path[:len(path):len(path)], name), append(key[:len(key):len(key)], name)
		if r.keys == nil {
			c.node(e.value, r.each, at, atKey)
			continue
		}
		next := r.keys[name]
		switch {
		case e.value.Tag == "!reset":
		case next == nil && name == extensionKey:
			c.find(e.key, at, atKey, host.ErrInvalid, "has an effect under a service only")
		case next == nil && strings.HasPrefix(name, "x-"):
		case next == nil:
			reason := "unknown key"
			if near := r.nearest(name); near != "" {
				reason = fmt.Sprintf("unknown key, did you mean %s?", near)
			}
			c.find(e.key, at, atKey, host.ErrInvalid, reason)
		case next.unsupported:
			c.find(e.key, at, atKey, host.ErrUnsupported, "")
		default:
			c.node(e.value, next, at, atKey)
		}
	}
}

func (c *checker) find(node *yaml.Node, path, key []string, kind error, reason string) {
	c.findings = append(c.findings, finding{
		Problem: Problem{File: c.doc.name, Line: node.Line, Path: strings.Join(path, "."), Reason: reason, Kind: kind},
		key:     strings.Join(key, "\x00"),
	})
}

// unsupported lists the paths of the merged model that no file may hold, list
// items as "*". The model is what compose-go made after !reset, !override and
// extends, so it has the last word on whether a key is there. A key that asks
// for nothing (false, empty) is as good as absent.
func unsupported(model any, r *rule, path []string) [][]string {
	var found [][]string
	switch v := model.(type) {
	case map[string]any:
		for name, value := range v {
			at := append(path[:len(path):len(path)], name)
			switch next := r.keys[name]; {
			case r.keys == nil && r.each != nil:
				found = append(found, unsupported(value, r.each, at)...)
			case next == nil, next.unsupported && asksNothing(value):
			case next.unsupported:
				found = append(found, at)
			default:
				found = append(found, unsupported(value, next, at)...)
			}
		}
	case []any:
		if r.each != nil {
			for _, value := range v {
				found = append(found, unsupported(value, r.each, append(path[:len(path):len(path)], "*"))...)
			}
		}
	}
	return found
}

func asksNothing(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return false
}
