package compose

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"torpor/host"
)

// marshalService prints one service, its keys in the order of host.ServiceSpec.
func marshalService(s *host.ServiceSpec) *mapping {
	m := newMapping()
	m.text("container_name", s.ContainerName)
	m.text("image", s.Image)
	if s.Build != nil {
		m.mapping("build", marshalBuild(s.Build))
	}
	m.text("platform", s.Platform)
	m.text("pull_policy", string(s.PullPolicy))
	if s.Entrypoint != nil {
		m.put("entrypoint", sequence(s.Entrypoint))
	}
	if s.Command != nil {
		m.put("command", sequence(s.Command))
	}
	m.texts("environment", s.Environment)
	m.text("working_dir", s.WorkingDir)
	m.text("user", s.User)
	m.list("group_add", s.GroupAdd)
	m.text("hostname", s.Hostname)
	m.text("domainname", s.DomainName)
	m.flag("tty", s.TTY)
	m.flag("stdin_open", s.StdinOpen)
	m.flag("read_only", s.ReadOnly)
	m.flag("init", s.Init)
	marshalPorts(m, s)
	marshalMounts(m, s.Mounts)
	m.number("shm_size", s.ShmSizeBytes)
	marshalNetwork(m, s)
	marshalSecurity(m, s)
	marshalResources(m, s)
	marshalLife(m, s)
	m.texts("labels", s.Labels)
	m.texts("annotations", s.Annotations)
	if s.NoAttach {
		m.put("attach", boolean(false))
	}
	marshalLogging(m, s)
	m.list("profiles", s.Profiles)
	if s.Scale != 1 {
		m.put("scale", number(int64(s.Scale)))
	}
	m.mapping(extensionKey, marshalTorpor(s.Torpor))
	return m
}

func marshalBuild(b *host.BuildSpec) *mapping {
	m := newMapping()
	m.text("context", b.Context)
	m.text("dockerfile", b.Dockerfile)
	m.text("dockerfile_inline", b.DockerfileInline)
	m.texts("args", b.Args)
	m.text("target", b.Target)
	m.list("tags", b.Tags)
	m.texts("labels", b.Labels)
	m.text("network", b.Network)
	m.flag("no_cache", b.NoCache)
	m.flag("pull", b.Pull)
	m.list("cache_from", b.CacheFrom)
	return m
}

func marshalPorts(m *mapping, s *host.ServiceSpec) {
	var ports []*yaml.Node
	for _, p := range s.Ports {
		port := newMapping()
		port.number("target", int64(p.Target))
		if p.Published != 0 {
			port.text("published", strconv.Itoa(int(p.Published)))
		}
		port.text("protocol", p.Protocol)
		port.text("host_ip", p.HostIP)
		ports = append(ports, port.node)
	}
	if len(ports) > 0 {
		m.put("ports", &yaml.Node{Kind: yaml.SequenceNode, Content: ports})
	}
	var expose []string
	for _, p := range s.Expose {
		expose = append(expose, fmt.Sprintf("%d/%s", p.Target, p.Protocol))
	}
	m.list("expose", expose)
}

// marshalMounts prints what is mounted under the key that it belongs to.
func marshalMounts(m *mapping, mounts []host.MountSpec) {
	nodes := map[string][]*yaml.Node{}
	for _, mount := range mounts {
		switch {
		case mount.Kind == host.MountTmpfs:
			nodes["tmpfs"] = append(nodes["tmpfs"], scalar(tmpfsText(mount)))
		case mount.Kind == host.MountFile && mount.Secret:
			nodes["secrets"] = append(nodes["secrets"], marshalFileUse(mount).node)
		case mount.Kind == host.MountFile:
			nodes["configs"] = append(nodes["configs"], marshalFileUse(mount).node)
		default:
			nodes["volumes"] = append(nodes["volumes"], marshalVolumeMount(mount).node)
		}
	}
	for _, key := range []string{"volumes", "tmpfs", "secrets", "configs"} {
		if len(nodes[key]) > 0 {
			m.put(key, &yaml.Node{Kind: yaml.SequenceNode, Content: nodes[key]})
		}
	}
}

func marshalVolumeMount(mount host.MountSpec) *mapping {
	m, options := newMapping(), newMapping()
	m.text("type", string(mount.Kind))
	m.text("source", mount.Source)
	m.text("target", mount.Target)
	m.flag("read_only", mount.ReadOnly)
	if mount.Kind == host.MountBind {
		options.put("create_host_path", boolean(mount.CreateHostPath))
		options.text("propagation", mount.Propagation)
	} else {
		options.flag("nocopy", mount.NoCopy)
		options.text("subpath", mount.Subpath)
	}
	m.mapping(string(mount.Kind), options)
	return m
}

func tmpfsText(mount host.MountSpec) string {
	var options []string
	if mount.SizeBytes != 0 {
		options = append(options, fmt.Sprintf("size=%d", mount.SizeBytes))
	}
	if mount.Mode != 0 {
		options = append(options, fmt.Sprintf("mode=%o", mount.Mode))
	}
	if mount.UID != "" {
		options = append(options, "uid="+mount.UID)
	}
	if mount.GID != "" {
		options = append(options, "gid="+mount.GID)
	}
	if mount.ReadOnly {
		options = append(options, "ro")
	}
	options = append(options, mount.Options...)
	if len(options) == 0 {
		return mount.Target
	}
	return mount.Target + ":" + strings.Join(options, ",")
}

func marshalFileUse(mount host.MountSpec) *mapping {
	m := newMapping()
	m.text("source", fileName(mount))
	m.text("target", mount.Target)
	m.text("uid", mount.UID)
	m.text("gid", mount.GID)
	m.text("mode", fmt.Sprintf("0%o", mount.Mode))
	return m
}

func marshalNetwork(m *mapping, s *host.ServiceSpec) {
	m.text("network_mode", string(s.NetworkMode))
	networks := newMapping()
	sorted := slices.IsSortedFunc(s.Networks, func(a, b host.NetworkAttachment) int {
		return strings.Compare(a.Network, b.Network)
	})
	for i, a := range s.Networks {
		n := newMapping()
		n.list("aliases", a.Aliases)
		n.text("ipv4_address", a.IPv4)
		n.text("ipv6_address", a.IPv6)
		n.text("mac_address", a.MAC)
		if !sorted {
			n.number("priority", int64(len(s.Networks)-i))
		}
		if len(n.node.Content) == 0 {
			networks.put(a.Network, null())
			continue
		}
		networks.put(a.Network, n.node)
	}
	m.mapping("networks", networks)
	m.list("extra_hosts", s.ExtraHosts)
	m.list("dns", s.DNS)
	m.list("dns_search", s.DNSSearch)
	m.list("dns_opt", s.DNSOpt)
}

func marshalSecurity(m *mapping, s *host.ServiceSpec) {
	m.flag("privileged", s.Privileged)
	m.list("cap_add", s.CapAdd)
	m.list("cap_drop", s.CapDrop)
	m.list("security_opt", s.SecurityOpt)
	var devices []*yaml.Node
	for _, d := range s.Devices {
		device := newMapping()
		device.text("source", d.Source)
		device.text("target", d.Target)
		device.text("permissions", d.Permissions)
		devices = append(devices, device.node)
	}
	if len(devices) > 0 {
		m.put("devices", &yaml.Node{Kind: yaml.SequenceNode, Content: devices})
	}
	m.texts("sysctls", s.Sysctls)
	limits := newMapping()
	for _, name := range slices.Sorted(maps.Keys(s.Ulimits)) {
		limit := newMapping()
		limit.put("soft", number(s.Ulimits[name].Soft))
		limit.put("hard", number(s.Ulimits[name].Hard))
		limits.mapping(name, limit)
	}
	m.mapping("ulimits", limits)
	m.text("pid", s.PIDMode)
	m.text("ipc", s.IPCMode)
}

func marshalResources(m *mapping, s *host.ServiceSpec) {
	r := s.Resources
	m.number("mem_limit", r.MemoryBytes)
	m.number("mem_reservation", r.MemoryReservationBytes)
	m.number("memswap_limit", r.MemorySwapBytes)
	if r.CPUs != 0 {
		m.put("cpus", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(r.CPUs, 'f', -1, 64)})
	}
	m.number("cpu_shares", r.CPUShares)
	m.text("cpuset", r.CPUSet)
	m.number("pids_limit", r.PidsMax)
	m.number("oom_score_adj", int64(s.OOMScoreAdj))
}

// marshalLife prints when a service starts, is healthy, restarts and stops.
func marshalLife(m *mapping, s *host.ServiceSpec) {
	deps := newMapping()
	for _, d := range s.DependsOn {
		dep := newMapping()
		dep.text("condition", string(d.Condition))
		dep.flag("restart", d.Restart)
		dep.put("required", boolean(d.Required))
		deps.mapping(string(d.Service), dep)
	}
	m.mapping("depends_on", deps)
	if s.Healthcheck != nil {
		m.put("healthcheck", marshalHealthcheck(s.Healthcheck).node)
	}
	marshalRestart(m, s.Restart)
	m.text("stop_signal", s.StopSignal)
	switch {
	case s.StopGrace == 1:
		m.text("stop_grace_period", "0s")
	case s.StopGrace != 0:
		m.text("stop_grace_period", s.StopGrace.String())
	}
}

func marshalHealthcheck(h *host.Healthcheck) *mapping {
	m := newMapping()
	m.flag("disable", h.Disable)
	m.list("test", h.Test)
	for _, d := range []struct {
		key string
		d   time.Duration
	}{
		{"interval", h.Interval}, {"timeout", h.Timeout},
		{"start_period", h.StartPeriod}, {"start_interval", h.StartInterval},
	} {
		if d.d != 0 {
			m.text(d.key, d.d.String())
		}
	}
	m.number("retries", int64(h.Retries))
	return m
}

// marshalRestart uses restart, or deploy.restart_policy for what restart can
// not say.
func marshalRestart(m *mapping, r host.RestartPolicy) {
	if r.Delay == 0 && (r.MaxRetries == 0 || r.Mode == host.RestartOnFailure) {
		text := string(r.Mode)
		if r.MaxRetries > 0 {
			text += ":" + strconv.Itoa(r.MaxRetries)
		}
		m.text("restart", text)
		return
	}
	condition := map[host.RestartMode]string{
		host.RestartNo: "none", host.RestartOnFailure: "on-failure",
		host.RestartAlways: "any", host.RestartUnlessStopped: "unless-stopped",
	}
	policy, deploy := newMapping(), newMapping()
	policy.text("condition", condition[r.Mode])
	if r.Delay != 0 {
		policy.text("delay", r.Delay.String())
	}
	policy.number("max_attempts", int64(r.MaxRetries))
	deploy.mapping("restart_policy", policy)
	m.mapping("deploy", deploy)
}

func marshalLogging(m *mapping, s *host.ServiceSpec) {
	options := newMapping()
	if s.LogMaxBytes != 0 {
		options.text("max-size", strconv.FormatInt(s.LogMaxBytes, 10))
	}
	if s.LogMaxFiles != 0 {
		options.text("max-file", strconv.Itoa(s.LogMaxFiles))
	}
	if len(options.node.Content) == 0 {
		return
	}
	logging := newMapping()
	logging.text("driver", "json-file")
	logging.mapping("options", options)
	m.mapping("logging", logging)
}

func marshalTorpor(t host.TorporSpec) *mapping {
	m := newMapping()
	if t.SleepAfter != 0 && (!t.NeverSleep || t.SleepAfter != host.DefaultSleepAfter) {
		m.text("sleep_after", t.SleepAfter.String())
	}
	if t.NeverSleep {
		m.text("sleep", "never")
	}
	m.text("rootfs", t.RootFS)
	m.flag("verify", t.Verify)
	m.text("connections", string(t.Connections))
	m.text("checkpoint", string(t.Checkpoint))
	if t.Spares != 0 {
		m.put("spares", number(int64(t.Spares)))
	}
	m.mapping("before_checkpoint", marshalHook(t.BeforeCheckpoint))
	m.mapping("after_restore", marshalHook(t.AfterRestore))
	return m
}

func marshalHook(h *host.Hook) *mapping {
	m := newMapping()
	if h == nil {
		return m
	}
	if h.Port != 0 {
		m.text("http", fmt.Sprintf("%d%s", h.Port, h.Path))
	}
	m.list("exec", h.Exec)
	m.text("signal", h.Signal)
	m.text("timeout", h.Timeout.String())
	return m
}
