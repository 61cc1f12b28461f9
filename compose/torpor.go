package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"

	"torpor/host"
)

// torpor reads x-torpor. Its unknown keys were found when the files were checked.
func (c *converter) torpor(s types.ServiceConfig) host.TorporSpec {
	spec := host.TorporSpec{SleepAfter: host.DefaultSleepAfter}
	value, ok := s.Extensions[extensionKey]
	if !ok || value == nil {
		return spec
	}
	settings, ok := value.(map[string]any)
	if !ok {
		c.invalid(c.key("services", s.Name, extensionKey), "want a mapping")
		return spec
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		c.torporSetting(&spec, name, settings[name], c.key("services", s.Name, extensionKey, name))
	}
	if spec.Checkpoint != host.CheckpointReady && spec.Spares > 0 {
		c.invalid(c.key("services", s.Name, extensionKey, "spares"), "need checkpoint: ready")
	}
	if spec.Checkpoint != host.CheckpointReady && (spec.BeforeCheckpoint != nil || spec.AfterRestore != nil) {
		c.invalid(c.key("services", s.Name, extensionKey), "has a hook, which needs checkpoint: ready")
	}
	return spec
}

func (c *converter) torporSetting(spec *host.TorporSpec, name string, value any, at place) {
	text := fmt.Sprint(value)
	switch name {
	case "sleep_after":
		if text == "never" {
			c.invalid(at, "never: write sleep: never instead")
			return
		}
		spec.SleepAfter = c.span(text, at)
	case "sleep":
		if text != "never" {
			c.invalid(at, "%q: the one value is never", text)
		}
		spec.NeverSleep = text == "never"
	case "rootfs":
		spec.RootFS = c.origin.absolute(at.position, text)
		if text == "" || value == nil {
			c.invalid(at, "want a directory")
		}
	case "verify":
		verify, err := strconv.ParseBool(text)
		if err != nil {
			c.invalid(at, "%q: want true or false", text)
		}
		spec.Verify = verify
	case "connections":
		spec.Connections = host.ConnectionPolicy(text)
		if !slices.Contains([]host.ConnectionPolicy{host.ConnectionsAuto, host.ConnectionsPark, host.ConnectionsSuspend}, spec.Connections) {
			c.invalid(at, "%q: want auto, park or suspend", text)
		}
	case "checkpoint":
		if spec.Checkpoint = host.CheckpointPolicy(text); spec.Checkpoint != host.CheckpointReady && spec.Checkpoint != host.CheckpointNever {
			c.invalid(at, "%q: want ready or never", text)
		}
	case "spares":
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			c.invalid(at, "%q: want a number below 256", text)
		}
		spec.Spares = int(n)
	case "before_checkpoint":
		spec.BeforeCheckpoint = c.hook(value, at)
	case "after_restore":
		spec.AfterRestore = c.hook(value, at)
	}
}

// span reads a duration that is not 0.
func (c *converter) span(text string, at place) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		c.invalid(at, "%q: want a duration such as 30s", text)
	}
	return d
}

// hook reads one of http, exec and signal, and timeout.
func (c *converter) hook(value any, at place) *host.Hook {
	settings, ok := value.(map[string]any)
	if !ok {
		c.invalid(at, "want a mapping with http, exec or signal")
		return nil
	}
	hook, kinds := &host.Hook{Timeout: host.DefaultHookTimeout}, 0
	for name, value := range settings {
		switch name {
		case "timeout":
			hook.Timeout = c.span(fmt.Sprint(value), at)
			continue
		case "http":
			c.hookHTTP(hook, fmt.Sprint(value), at)
		case "exec":
			c.hookExec(hook, value, at)
		case "signal":
			hook.Signal = fmt.Sprint(value)
		}
		kinds++
	}
	if kinds != 1 {
		c.invalid(at, "want one of http, exec and signal")
	}
	return hook
}

// hookHTTP reads PORT/PATH.
func (c *converter) hookHTTP(hook *host.Hook, text string, at place) {
	port, path, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		c.invalid(at, "http: %q: want PORT/PATH, such as 8080/before-checkpoint", text)
	}
	hook.Port, hook.Path = uint16(n), "/"+path
}

// hookExec reads a command, or a line for the shell.
func (c *converter) hookExec(hook *host.Hook, value any, at place) {
	switch value := value.(type) {
	case string:
		hook.Exec = []string{"/bin/sh", "-c", value}
	case []any:
		for _, arg := range value {
			hook.Exec = append(hook.Exec, fmt.Sprint(arg))
		}
	}
	if len(hook.Exec) == 0 {
		c.invalid(at, "exec: want a command")
	}
}
