package compose

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
)

// TestKeysCoverTheSchema: each key that compose-go's schema knows has a line
// in keys.txt, and keys.txt has no other, so that an update of compose-go can
// not bring a key that passes unseen.
func TestKeysCoverTheSchema(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal([]byte(schema.Schema), &root); err != nil {
		t.Fatal(err)
	}
	s := schemaWalk{t: t, root: root}
	s.compare(root, rules(), nil)
}

type schemaWalk struct {
	t    *testing.T
	root map[string]any
}

// compare walks a schema and the rules side by side.
func (s schemaWalk) compare(node map[string]any, r *rule, path []string) {
	if len(path) > 12 {
		s.t.Fatalf("schema nests too deep at %s", strings.Join(path, "."))
	}
	node = s.resolve(node)
	properties, each := s.properties(node)
	for key, sub := range properties {
		at := append(slices.Clone(path), key)
		next := r.keys[key]
		if next == nil {
			if r.keys != nil || r.each == nil {
				s.t.Errorf("keys.txt has no line for %s", strings.Join(at, "."))
			}
			continue
		}
		if !next.unsupported {
			s.compareBelow(sub, next, at)
		}
	}
	for key := range r.keys {
		if _, known := properties[key]; !known && len(properties) > 0 && key != extensionKey {
			s.t.Errorf("compose does not know %s", strings.Join(append(path, key), "."))
		}
	}
	for _, sub := range each {
		if r.each != nil {
			s.compare(sub, r.each, append(slices.Clone(path), "*"))
		}
	}
}

// compareBelow skips what keys.txt takes as a whole, such as develop.
func (s schemaWalk) compareBelow(node any, r *rule, path []string) {
	if sub, ok := node.(map[string]any); ok && (r.keys != nil || r.each != nil) {
		s.compare(sub, r, path)
	} else if ok {
		if properties, _ := s.properties(s.resolve(sub)); len(properties) > 0 && path[len(path)-1] != "develop" {
			s.t.Errorf("keys.txt takes %s without looking at its keys", strings.Join(path, "."))
		}
	}
}

func (s schemaWalk) resolve(node map[string]any) map[string]any {
	for {
		ref, ok := node["$ref"].(string)
		if !ok {
			return node
		}
		at := s.root
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			at = at[part].(map[string]any)
		}
		node = at
	}
}

// properties are a schema's own keys and those of its variants, and the
// schemas of its items or of any key.
func (s schemaWalk) properties(node map[string]any) (properties map[string]any, each []map[string]any) {
	properties = map[string]any{}
	add := func(p map[string]any, e []map[string]any) {
		for k, v := range p {
			properties[k] = v
		}
		each = append(each, e...)
	}
	if own, ok := node["properties"].(map[string]any); ok {
		add(own, nil)
	}
	if items, ok := node["items"].(map[string]any); ok {
		each = append(each, s.resolve(items))
	}
	if patterns, ok := node["patternProperties"].(map[string]any); ok {
		for pattern, v := range patterns {
			if sub, ok := v.(map[string]any); ok && pattern != "^x-" {
				each = append(each, s.resolve(sub))
			}
		}
	}
	for _, variants := range []string{"oneOf", "anyOf", "allOf"} {
		list, _ := node[variants].([]any)
		for _, v := range list {
			add(s.properties(s.resolve(v.(map[string]any))))
		}
	}
	return properties, each
}

func TestNearest(t *testing.T) {
	service := rules().keys["services"].each
	for typo, want := range map[string]string{
		"imgae": "image", "enviroment": "environment", "port": "ports", "volume": "volumes", "depend_on": "depends_on",
		"healtcheck": "healthcheck", "foo": "", "zzzzzzzz": "", strings.Repeat("x", 1000): "",
	} {
		if got := service.nearest(typo); got != want {
			t.Errorf("nearest to %s is %q, want %q", typo, got, want)
		}
	}
}
