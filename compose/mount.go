package compose

import (
	"cmp"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"torpor/host"
)

// mounts are volumes, tmpfs, secrets and configs, sorted by target so that a
// mount comes before those below it.
func (c *converter) mounts(s types.ServiceConfig) []host.MountSpec {
	var mounts []host.MountSpec
	for _, v := range s.Volumes {
		mounts = append(mounts, c.volumeMount(s.Name, v))
	}
	for _, text := range s.Tmpfs {
		mounts = append(mounts, c.tmpfs(s.Name, text))
	}
	for _, ref := range s.Secrets {
		mounts = append(mounts, c.fileMount(s.Name, "secrets", types.FileReferenceConfig(ref),
			types.FileObjectConfig(c.project.Secrets[ref.Source])))
	}
	for _, ref := range s.Configs {
		mounts = append(mounts, c.fileMount(s.Name, "configs", types.FileReferenceConfig(ref),
			types.FileObjectConfig(c.project.Configs[ref.Source])))
	}
	c.checkVolumeOptions(s.Name)
	slices.SortStableFunc(mounts, func(a, b host.MountSpec) int { return cmp.Compare(a.Target, b.Target) })
	return mounts
}

func (c *converter) volumeMount(service string, v types.ServiceVolumeConfig) host.MountSpec {
	at := c.item(service, "volumes", v.Target)
	m := host.MountSpec{Source: v.Source, Target: c.target(at, v.Target), ReadOnly: v.ReadOnly}
	switch v.Type {
	case types.VolumeTypeBind:
		m.Kind = host.MountBind
		if v.Source == "" || !filepath.IsAbs(v.Source) {
			c.invalid(at, "%q: source is not a path", v.Source)
		}
		if v.Bind != nil {
			m.CreateHostPath, m.Propagation = bool(v.Bind.CreateHostPath), v.Bind.Propagation
		}
		if m.Propagation != "" && !slices.Contains(propagations, m.Propagation) {
			c.invalid(at, "%q: unknown propagation", m.Propagation)
		}
	case types.VolumeTypeVolume:
		m.Kind = host.MountVolume
		if v.Volume != nil {
			m.NoCopy, m.Subpath = v.Volume.NoCopy, v.Volume.Subpath
		}
		if m.Subpath != "" && !filepath.IsLocal(m.Subpath) {
			c.invalid(at, "%q: subpath leaves the volume", m.Subpath)
		}
	case types.VolumeTypeTmpfs:
		m.Kind, m.Source = host.MountTmpfs, ""
		if v.Tmpfs != nil {
			m.SizeBytes, m.Mode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
		}
		if m.SizeBytes < 0 || m.Mode > 0o7777 {
			c.invalid(at, "tmpfs size or mode out of range")
		}
	default:
		c.unsupported(at, "type %s", v.Type)
	}
	return m
}

var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}

func (c *converter) target(at place, target string) string {
	if !path.IsAbs(target) {
		c.invalid(at, "%q: not an absolute path in the container", target)
	} else if path.Clean(target) == "/" {
		c.invalid(at, "/ cannot be mounted over")
	}
	return path.Clean(target)
}

// checkVolumeOptions looks at the options of short volumes, since compose-go
// drops those that it does not know.
func (c *converter) checkVolumeOptions(service string) {
	for _, f := range c.origin.services[service] {
		e, ok := child(f.node, "volumes")
		if !ok {
			continue
		}
		for _, n := range scalars(e.value) {
			parts := strings.Split(c.origin.expand(n.Value), ":")
			if len(parts) < 3 {
				continue
			}
			at := place{position{f.doc.name, n.Line, f.doc.base}, "services." + service + ".volumes"}
			for option := range strings.SplitSeq(parts[len(parts)-1], ",") {
				switch option {
				case "rw", "ro", "z", "Z", "nocopy", "cached", "delegated", "consistent":
				default:
					if !slices.Contains(propagations, option) {
						c.unsupported(at, "option %q", option)
					}
				}
			}
		}
	}
}

// tmpfsFlags are the mount options that tmpfs takes besides those with a
// field of their own.
var tmpfsFlags = strings.Fields(`exec noexec suid nosuid dev nodev atime noatime relatime norelatime
	diratime nodiratime strictatime sync async nr_inodes nr_blocks huge mpol`)

func (c *converter) tmpfs(service, text string) host.MountSpec {
	target, options, _ := strings.Cut(text, ":")
	at := c.item(service, "tmpfs", target)
	m := host.MountSpec{Kind: host.MountTmpfs, Target: c.target(at, target)}
	if options == "" {
		return m
	}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "size":
			m.SizeBytes, err = units.RAMInBytes(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 12)
			m.Mode = uint32(mode)
		case "uid":
			m.UID = value
			_, err = strconv.ParseUint(value, 10, 32)
		case "gid":
			m.GID = value
			_, err = strconv.ParseUint(value, 10, 32)
		case "rw", "ro":
			m.ReadOnly = key == "ro"
		default:
			if !slices.Contains(tmpfsFlags, key) {
				c.unsupported(at, "option %q", option)
			}
			m.Options = append(m.Options, option)
		}
		if err != nil || m.SizeBytes < 0 {
			c.invalid(at, "option %q: not understood", option)
		}
	}
	return m
}

// fileMount converts a service's use of a secret or config. kind is "secrets"
// or "configs".
func (c *converter) fileMount(service, kind string, ref types.FileReferenceConfig, object types.FileObjectConfig) host.MountSpec {
	at := c.item(service, kind, ref.Source)
	m := host.MountSpec{
		Kind: host.MountFile, Source: object.File, Name: ref.Source, FromEnv: object.Environment,
		Target: ref.Target, ReadOnly: true, Mode: 0o444, UID: ref.UID, GID: ref.GID, Secret: kind == "secrets",
	}
	if m.Target == "" {
		m.Target = ref.Source
	}
	if !path.IsAbs(m.Target) {
		dir := "/"
		if m.Secret {
			dir = "/run/secrets"
		}
		m.Target = path.Join(dir, m.Target)
	}
	m.Target = c.target(at, m.Target)
	if ref.Mode != nil {
		m.Mode = uint32(*ref.Mode)
		if *ref.Mode < 0 || *ref.Mode > 0o7777 {
			c.invalid(at, "%o: not a file mode", *ref.Mode)
		}
	}
	for _, id := range []string{ref.UID, ref.GID} {
		if _, err := strconv.ParseUint(id, 10, 32); id != "" && err != nil {
			c.invalid(at, "%q: not a number", id)
		}
	}
	c.fileContent(kind, ref.Source, object, &m)
	return m
}

func (c *converter) fileContent(kind, name string, object types.FileObjectConfig, m *host.MountSpec) {
	switch {
	case bool(object.External):
		c.unsupported(c.key(kind, name, "external"), "")
	case object.Environment != "":
		value, ok := c.project.Environment[object.Environment]
		if !ok {
			c.invalid(c.key(kind, name, "environment"), "variable %s is not set", object.Environment)
		}
		m.Content = content(value)
	case object.File == "":
		m.Content = content(object.Content)
	}
}

// content is nil for an empty text, so that specs compare equal after JSON.
func content(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}
