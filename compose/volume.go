package compose

import (
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"torpor/host"
)

// volumes are the named volumes in use.
func (c *converter) volumes() map[string]host.VolumeSpec {
	if len(c.project.Volumes) == 0 {
		return nil
	}
	specs := map[string]host.VolumeSpec{}
	for key, v := range c.project.Volumes {
		if !namePattern.MatchString(v.Name) {
			c.invalid(c.key("volumes", key, "name"), "%q: letters, digits, _, . and - are allowed", v.Name)
		}
		spec := host.VolumeSpec{
			Name: v.Name, External: bool(v.External), Driver: v.Driver,
			DriverOpts: nonEmpty(v.DriverOpts), Labels: nonEmpty(v.Labels),
		}
		switch v.Driver {
		case "", "local":
			c.localOptions(key, v.DriverOpts)
		case host.VolumeDriver:
			spec.Torpor, spec.DriverOpts = c.torporVolume(key, v)
		default:
			c.unsupported(c.key("volumes", key, "driver"), "%s", v.Driver)
		}
		specs[key] = spec
	}
	return specs
}

func (c *converter) localOptions(key string, options map[string]string) {
	for option := range options {
		switch option {
		case "type", "o", "device":
		default:
			c.unsupported(c.key("volumes", key, "driver_opts", option), "")
		}
	}
}

// torporVolume reads the options of a virtual disk. It returns them also as
// texts, with absolute paths.
func (c *converter) torporVolume(key string, v types.VolumeConfig) (*host.TorporVolume, map[string]string) {
	spec := &host.TorporVolume{SizeBytes: host.DefaultVolumeBytes, Layout: host.DefaultLayout, FS: host.DefaultFileSystem}
	texts := map[string]string{}
	for _, option := range slices.Sorted(maps.Keys(v.DriverOpts)) {
		at, text := c.key("volumes", key, "driver_opts", option), v.DriverOpts[option]
		var err error
		switch option {
		case "size":
			spec.SizeBytes, err = units.RAMInBytes(text)
			if err != nil || spec.SizeBytes <= 0 {
				c.invalid(at, "%q: want a size such as 10G", text)
				err = nil
			}
		case "layout":
			spec.Layout, err = host.ParseLayout(text)
		case "disks":
			for _, disk := range strings.Fields(text) {
				spec.Disks = append(spec.Disks, c.origin.absolute(at.position, disk))
			}
			text = strings.Join(spec.Disks, " ")
			c.checkDisks(at, spec.Disks)
		case "fs":
			spec.FS, err = host.ParseFileSystem(text)
		default:
			c.problem(at, host.ErrInvalid, "no such option; want size, layout, disks or fs")
		}
		if err != nil {
			c.invalid(at, "%s", reason(err))
		}
		texts[option] = text
	}
	if n := len(spec.Disks); spec.Layout.Disks() > max(1, n) {
		c.invalid(c.key("volumes", key, "driver_opts"), "layout %s needs %d disks, %d are given; list directories, files or block devices under disks",
			spec.Layout, spec.Layout.Disks(), n)
	}
	return spec, nonEmpty(texts)
}

// checkDisks looks for a disk that is given twice: its loss would be that of two.
func (c *converter) checkDisks(at place, disks []string) {
	seen := map[string]bool{}
	for _, disk := range disks {
		if seen[disk] {
			c.invalid(at, "%s is given twice", disk)
		}
		seen[disk] = true
	}
	if len(disks) == 0 {
		c.invalid(at, "want paths of directories, files or block devices")
	}
}

// reason is an error's text without the kind behind it, which a Problem has itself.
func reason(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+host.ErrInvalid.Error())
}
