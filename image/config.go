package image

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"torpor/host"
)

// maxConfigBytes bounds the configs and manifests that are read into memory.
const maxConfigBytes = 8 << 20

// maxExposedPorts bounds what a range in ExposedPorts expands to.
const maxExposedPorts = 4096

// configFile is the part of an OCI image config that Torpor reads. Docker's
// configs have the same keys.
type configFile struct {
	Architecture string        `json:"architecture"`
	Variant      string        `json:"variant"`
	OS           string        `json:"os"`
	Created      *time.Time    `json:"created"`
	Config       processConfig `json:"config"`
	RootFS       struct {
		Type    string    `json:"type"`
		DiffIDs []LayerID `json:"diff_ids"`
	} `json:"rootfs"`
}

type processConfig struct {
	User         string
	ExposedPorts map[string]struct{}
	Env          []string
	Entrypoint   []string
	Cmd          []string
	Volumes      map[string]struct{}
	WorkingDir   string
	Labels       map[string]string
	StopSignal   string
	Healthcheck  *struct {
		Test          []string
		Interval      time.Duration
		Timeout       time.Duration
		StartPeriod   time.Duration
		StartInterval time.Duration
		Retries       int
	}
}

// parseConfig decodes and validates a config. What it says about the platform
// may be missing, as in very old images.
func parseConfig(raw []byte) (*configFile, error) {
	var c configFile
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("decode image config: %w: %w", host.ErrInvalid, err)
	}
	if c.RootFS.Type != "layers" && c.RootFS.Type != "" {
		return nil, fmt.Errorf("decode image config: root file system of type %q: %w", c.RootFS.Type, host.ErrUnsupported)
	}
	for _, id := range c.RootFS.DiffIDs {
		if _, err := parseDigest(string(id)); err != nil {
			return nil, fmt.Errorf("decode image config: %w", err)
		}
	}
	if _, err := c.run(); err != nil {
		return nil, fmt.Errorf("decode image config: %w", err)
	}
	return &c, nil
}

func (c *configFile) platform() Platform {
	return Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

// run returns how the image wants to be run.
func (c *configFile) run() (Config, error) {
	p := c.Config
	ports, err := exposedPorts(p.ExposedPorts)
	if err != nil {
		return Config{}, err
	}
	out := Config{
		Entrypoint:   p.Entrypoint,
		Command:      p.Cmd,
		Env:          p.Env,
		WorkingDir:   p.WorkingDir,
		User:         p.User,
		ExposedPorts: ports,
		Volumes:      slices.Sorted(maps.Keys(p.Volumes)),
		Labels:       p.Labels,
		StopSignal:   p.StopSignal,
	}
	if h := p.Healthcheck; h != nil && len(h.Test) > 0 {
		out.Healthcheck = &host.Healthcheck{
			Disable: h.Test[0] == "NONE", Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return out, nil
}

// exposedPorts reads "80", "80/tcp" and "8000-8010/udp".
func exposedPorts(set map[string]struct{}) ([]host.PortSpec, error) {
	var out []host.PortSpec
	for text := range set {
		numbers, protocol, _ := strings.Cut(text, "/")
		first, last, isRange := strings.Cut(numbers, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || low > high || len(out)+int(high-low) >= maxExposedPorts {
			return nil, fmt.Errorf("parse exposed port %q: %w", text, host.ErrInvalid)
		}
		for n := low; n <= high; n++ {
			out = append(out, host.PortSpec{Protocol: cmp.Or(strings.ToLower(protocol), "tcp"), Target: uint16(n)})
		}
	}
	slices.SortFunc(out, func(a, b host.PortSpec) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.Compact(out), nil
}
