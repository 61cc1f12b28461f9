package compose

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"torpor/host"
)

// Marshal prints a project as a compose file: paths absolute, variables and
// env_file replaced, short forms written out. Load gives an equal spec again
// when it is told the same project directory, profiles and environment. What
// a secret holds is not printed; one that came from a variable is printed as
// that variable. The error matches host.ErrInvalid for texts that are not UTF-8.
func Marshal(p *host.ProjectSpec) (content []byte, err error) {
	root := newMapping()
	root.text("name", string(p.Name))
	services := newMapping()
	for i := range p.Services {
		services.put(string(p.Services[i].Name), marshalService(&p.Services[i]).node)
	}
	root.put("services", services.node)
	root.mapping("networks", marshalNetworks(p.Networks))
	root.mapping("volumes", marshalVolumes(p.Volumes))
	root.mapping("secrets", marshalFiles(p, true))
	root.mapping("configs", marshalFiles(p, false))

	defer func() { // the YAML library panics on texts that it can not write
		if r := recover(); r != nil {
			content, err = nil, fmt.Errorf("print project %s: %w: %v", p.Name, host.ErrInvalid, r)
		}
	}()
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(root.node); err != nil {
		return nil, fmt.Errorf("print project %s: %w: %w", p.Name, host.ErrInvalid, err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("print project %s: %w", p.Name, err)
	}
	return out.Bytes(), nil
}

// Redacted is a copy of the project without what its secrets hold, to be
// printed as JSON. The copy shares all else with p.
func Redacted(p *host.ProjectSpec) *host.ProjectSpec {
	redacted := *p
	redacted.Services = slices.Clone(p.Services)
	for i := range redacted.Services {
		s := &redacted.Services[i]
		s.Mounts = slices.Clone(s.Mounts)
		for j := range s.Mounts {
			if s.Mounts[j].Secret {
				s.Mounts[j].Content = nil
			}
		}
	}
	return &redacted
}

func marshalNetworks(networks map[string]host.NetworkSpec) *mapping {
	all := newMapping()
	for _, key := range slices.Sorted(maps.Keys(networks)) {
		n, m := networks[key], newMapping()
		m.text("name", n.Name)
		m.flag("external", n.External)
		m.flag("internal", n.Internal)
		m.flag("enable_ipv6", n.IPv6)
		if len(n.Subnets) > 0 {
			ipam, pools := newMapping(), &yaml.Node{Kind: yaml.SequenceNode}
			for _, subnet := range n.Subnets {
				pool := newMapping()
				pool.text("subnet", subnet)
				pools.Content = append(pools.Content, pool.node)
			}
			ipam.put("config", pools)
			m.mapping("ipam", ipam)
		}
		m.texts("labels", n.Labels)
		all.put(key, m.node)
	}
	return all
}

func marshalVolumes(volumes map[string]host.VolumeSpec) *mapping {
	all := newMapping()
	for _, key := range slices.Sorted(maps.Keys(volumes)) {
		v, m := volumes[key], newMapping()
		m.text("name", v.Name)
		m.flag("external", v.External)
		m.text("driver", v.Driver)
		m.texts("driver_opts", v.DriverOpts)
		m.texts("labels", v.Labels)
		all.put(key, m.node)
	}
	return all
}

// marshalFiles prints the secrets or configs that services mount.
func marshalFiles(p *host.ProjectSpec, secrets bool) *mapping {
	files := map[string]host.MountSpec{}
	for _, s := range p.Services {
		for _, m := range s.Mounts {
			if m.Kind == host.MountFile && m.Secret == secrets {
				files[fileName(m)] = m
			}
		}
	}
	all := newMapping()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, m := files[name], newMapping()
		switch {
		case f.FromEnv != "":
			m.text("environment", f.FromEnv)
		case f.Source != "":
			m.text("file", f.Source)
		case secrets: // of unknown origin: refer to it, never print it
			m.text("environment", strings.ToUpper(name))
		default:
			m.put("content", scalar(string(f.Content)))
		}
		all.put(name, m.node)
	}
	return all
}

// fileName is the key of a secret or config.
func fileName(m host.MountSpec) string {
	if m.Name != "" {
		return m.Name
	}
	return path.Base(m.Target)
}

// mapping is a YAML mapping in the making. Its methods but put leave out what
// is empty.
type mapping struct {
	node *yaml.Node
}

func newMapping() *mapping { return &mapping{&yaml.Node{Kind: yaml.MappingNode}} }

func (m *mapping) put(key string, value *yaml.Node) {
	m.node.Content = append(m.node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, value)
}

func (m *mapping) mapping(key string, value *mapping) {
	if len(value.node.Content) > 0 {
		m.put(key, value.node)
	}
}

func (m *mapping) text(key, value string) {
	if value != "" {
		m.put(key, scalar(value))
	}
}

func (m *mapping) flag(key string, value bool) {
	if value {
		m.put(key, boolean(true))
	}
}

func (m *mapping) number(key string, value int64) {
	if value != 0 {
		m.put(key, number(value))
	}
}

func (m *mapping) list(key string, values []string) {
	if len(values) > 0 {
		m.put(key, sequence(values))
	}
}

func (m *mapping) texts(key string, values map[string]string) {
	if len(values) == 0 {
		return
	}
	sub := newMapping()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		sub.put(name, scalar(values[name]))
	}
	m.put(key, sub.node)
}

// scalar is a text with $ doubled, so that Load leaves it alone.
func scalar(text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.ReplaceAll(text, "$", "$$")}
	switch strings.ToLower(text) {
	case "<<", "y", "n", "yes", "no", "on", "off": // a merge, or no text to readers of YAML 1.1
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(b)}
}

func number(n int64) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(n, 10)}
}

func null() *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}

func sequence(values []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if len(values) == 0 {
		n.Style = yaml.FlowStyle
	}
	for _, v := range values {
		n.Content = append(n.Content, scalar(v))
	}
	return n
}
