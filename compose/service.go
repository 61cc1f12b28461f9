package compose

import (
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"

	"torpor/host"
)

// service converts one service. Lists keep the file's order where order
// matters and are sorted where compose-go keeps none.
func (c *converter) service(s types.ServiceConfig) host.ServiceSpec {
	spec := host.ServiceSpec{
		Project:       host.ProjectName(c.project.Name),
		Name:          host.ServiceName(s.Name),
		ContainerName: s.ContainerName,
		Build:         c.build(s),
		Platform:      c.platform(s),
		PullPolicy:    c.pullPolicy(s),
		Entrypoint:    s.Entrypoint,
		Command:       s.Command,
		Environment:   nonEmpty(s.Environment.ToMapping()),
		User:          s.User,
		GroupAdd:      list(s.GroupAdd),
		Hostname:      s.Hostname,
		DomainName:    s.DomainName,
		TTY:           s.Tty,
		StdinOpen:     s.StdinOpen,
		ReadOnly:      s.ReadOnly,
		Init:          s.Init != nil && *s.Init,
		Ports:         c.ports(s),
		Expose:        c.expose(s),
		Mounts:        c.mounts(s),
		ShmSizeBytes:  c.bytes(s, "shm_size", s.ShmSize),
		DependsOn:     c.dependsOn(s),
		Healthcheck:   c.healthcheck(s),
		Restart:       c.restart(s),
		StopSignal:    c.stopSignal(s),
		StopGrace:     c.stopGrace(s),
		Labels:        nonEmpty(s.Labels),
		Annotations:   nonEmpty(s.Annotations),
		NoAttach:      s.Attach != nil && !*s.Attach,
		Profiles:      list(s.Profiles),
		Scale:         s.GetScale(),
		Torpor:        c.torpor(s),
	}
	if s.WorkingDir != "" {
		spec.WorkingDir = path.Join("/", s.WorkingDir)
	}
	if s.Image != noImage {
		spec.Image = s.Image
	}
	if spec.Image == "" && spec.Build == nil && spec.Torpor.RootFS == "" {
		c.invalid(c.key("services", s.Name), "has no image, build or x-torpor.rootfs")
	}
	if spec.Torpor.RootFS != "" && (spec.Image != "" || spec.Build != nil) {
		c.invalid(c.key("services", s.Name, extensionKey, "rootfs"), "takes the place of image and build; remove one of them")
	}
	c.network(s, &spec)
	c.security(s, &spec)
	c.resources(s, &spec)
	c.logging(s, &spec)
	c.deploy(s)
	return spec
}

func (c *converter) build(s types.ServiceConfig) *host.BuildSpec {
	b := s.Build
	if b == nil {
		return nil
	}
	spec := &host.BuildSpec{
		Context: b.Context, Dockerfile: b.Dockerfile, DockerfileInline: b.DockerfileInline,
		Args: nonEmpty(b.Args.ToMapping()), Target: b.Target, Tags: list(b.Tags), Labels: nonEmpty(b.Labels),
		Network: b.Network, NoCache: b.NoCache, Pull: b.Pull, CacheFrom: list(b.CacheFrom),
	}
	return spec
}

func (c *converter) platform(s types.ServiceConfig) string {
	if s.Platform == "" {
		return ""
	}
	at := c.key("services", s.Name, "platform")
	parts := strings.Split(s.Platform, "/")
	switch {
	case len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, ""):
		c.invalid(at, "%q: want os/arch or os/arch/variant", s.Platform)
	case parts[0] != "linux":
		c.unsupported(at, "%s", s.Platform)
	}
	return s.Platform
}

func (c *converter) pullPolicy(s types.ServiceConfig) host.PullPolicy {
	switch s.PullPolicy {
	case "":
		return ""
	case types.PullPolicyMissing, types.PullPolicyIfNotPresent:
		return host.PullMissing
	case types.PullPolicyAlways, types.PullPolicyNever, types.PullPolicyBuild:
		return host.PullPolicy(s.PullPolicy)
	}
	c.unsupported(c.key("services", s.Name, "pull_policy"), "%s", s.PullPolicy)
	return ""
}

// deploy looks at what of deploy is not converted elsewhere.
func (c *converter) deploy(s types.ServiceConfig) {
	if s.Deploy == nil {
		return
	}
	switch s.Deploy.Mode {
	case "", "replicated", "global":
	default:
		c.unsupported(c.key("services", s.Name, "deploy", "mode"), "%s", s.Deploy.Mode)
	}
}

func (c *converter) logging(s types.ServiceConfig, spec *host.ServiceSpec) {
	if s.Logging == nil {
		return
	}
	switch s.Logging.Driver {
	case "", "json-file", "local":
	default:
		c.unsupported(c.key("services", s.Name, "logging", "driver"), "%s", s.Logging.Driver)
		return
	}
	for option, value := range s.Logging.Options {
		at := c.key("services", s.Name, "logging", "options", option)
		var err error
		switch option {
		case "max-size":
			if value != "-1" { // not rotated, in docker's words
				spec.LogMaxBytes, err = units.RAMInBytes(value)
			}
		case "max-file":
			spec.LogMaxFiles, err = strconv.Atoi(value)
		default:
			c.unsupported(at, "")
		}
		if err != nil || spec.LogMaxBytes < 0 || spec.LogMaxFiles < 0 {
			c.invalid(at, "%q: want a size such as 10m and a number of files", value)
		}
	}
}

func (c *converter) dependsOn(s types.ServiceConfig) []host.Dependency {
	var deps []host.Dependency
	for _, name := range slices.Sorted(maps.Keys(s.DependsOn)) {
		dep := s.DependsOn[name]
		if _, active := c.project.Services[name]; !active {
			continue // not required, or compose-go had refused it
		}
		condition := host.DependencyCondition(dep.Condition)
		switch condition {
		case "":
			condition = host.DependsStarted
		case host.DependsStarted, host.DependsHealthy, host.DependsCompleted:
		default:
			c.invalid(c.key("services", s.Name, "depends_on", name, "condition"), "%q: unknown condition", dep.Condition)
		}
		deps = append(deps, host.Dependency{
			Service: host.ServiceName(name), Condition: condition, Restart: dep.Restart, Required: dep.Required,
		})
	}
	return deps
}

func (c *converter) healthcheck(s types.ServiceConfig) *host.Healthcheck {
	h := s.HealthCheck
	if h == nil {
		return nil
	}
	if h.Disable || len(h.Test) > 0 && h.Test[0] == "NONE" {
		return &host.Healthcheck{Disable: true}
	}
	if len(h.Test) == 1 {
		c.invalid(c.key("services", s.Name, "healthcheck", "test"), "%s without a command", h.Test[0])
	}
	duration := func(key string, d *types.Duration) time.Duration {
		if d == nil {
			return 0
		}
		if *d < 0 {
			c.invalid(c.key("services", s.Name, "healthcheck", key), "%s: negative", d)
		}
		return time.Duration(*d)
	}
	spec := &host.Healthcheck{
		Test:          list(h.Test),
		Interval:      duration("interval", h.Interval),
		Timeout:       duration("timeout", h.Timeout),
		StartPeriod:   duration("start_period", h.StartPeriod),
		StartInterval: duration("start_interval", h.StartInterval),
	}
	if h.Retries != nil {
		if *h.Retries > 1<<20 {
			c.invalid(c.key("services", s.Name, "healthcheck", "retries"), "%d: too many", *h.Retries)
		} else {
			spec.Retries = int(*h.Retries)
		}
	}
	return spec
}

// restart is deploy.restart_policy where there is one, else restart.
func (c *converter) restart(s types.ServiceConfig) host.RestartPolicy {
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		return c.restartPolicy(s.Name, s.Deploy.RestartPolicy)
	}
	mode, retries, counted := strings.Cut(s.Restart, ":")
	policy := host.RestartPolicy{Mode: host.RestartMode(mode)}
	at := c.key("services", s.Name, "restart")
	switch policy.Mode {
	case "":
		policy.Mode = host.RestartNo
	case host.RestartNo, host.RestartAlways, host.RestartUnlessStopped, host.RestartOnFailure:
	default:
		c.invalid(at, "%q: want no, always, on-failure, on-failure:N or unless-stopped", s.Restart)
	}
	if counted {
		n, err := strconv.Atoi(retries)
		if err != nil || n < 0 || policy.Mode != host.RestartOnFailure {
			c.invalid(at, "%q: want a number after on-failure", s.Restart)
		}
		policy.MaxRetries = n
	}
	return policy
}

func (c *converter) restartPolicy(service string, p *types.RestartPolicy) host.RestartPolicy {
	policy := host.RestartPolicy{}
	switch p.Condition {
	case "", "any":
		policy.Mode = host.RestartAlways
	case "on-failure":
		policy.Mode = host.RestartOnFailure
	case "none":
		policy.Mode = host.RestartNo
	case "unless-stopped": // not in the specification, but docker compose takes it
		policy.Mode = host.RestartUnlessStopped
	default:
		c.invalid(c.key("services", service, "deploy", "restart_policy", "condition"),
			"%q: want none, on-failure or any", p.Condition)
	}
	if p.Delay != nil {
		policy.Delay = time.Duration(*p.Delay)
	}
	if p.MaxAttempts != nil {
		policy.MaxRetries = int(min(*p.MaxAttempts, 1<<30))
	}
	return policy
}

// signals are the names that stop_signal takes, without SIG.
var signals = strings.Fields(`HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD
	CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS RTMIN RTMAX`)

func (c *converter) stopSignal(s types.ServiceConfig) string {
	if s.StopSignal == "" {
		return ""
	}
	if n, err := strconv.Atoi(s.StopSignal); err == nil && n > 0 && n <= 64 {
		return s.StopSignal
	}
	name := strings.TrimPrefix(strings.ToUpper(s.StopSignal), "SIG")
	base, offset, realtime := strings.Cut(strings.Replace(name, "RTMAX-", "RTMIN+", 1), "RTMIN+")
	if n, err := strconv.Atoi(offset); realtime && base == "" && err == nil && n >= 0 && n <= 30 {
		return "SIG" + name
	}
	if !slices.Contains(signals, name) {
		c.invalid(c.key("services", s.Name, "stop_signal"), "%q: no such signal", s.StopSignal)
	}
	return "SIG" + name
}

func (c *converter) stopGrace(s types.ServiceConfig) time.Duration {
	if s.StopGracePeriod == nil {
		return 0
	}
	d := time.Duration(*s.StopGracePeriod)
	if d < 0 {
		c.invalid(c.key("services", s.Name, "stop_grace_period"), "%s: negative", d)
	}
	return max(d, 1) // 0 would mean the default
}

func (c *converter) bytes(s types.ServiceConfig, key string, n types.UnitBytes) int64 {
	if n < 0 {
		c.invalid(c.key("services", s.Name, key), "%d: negative", n)
		return 0
	}
	return int64(n)
}
