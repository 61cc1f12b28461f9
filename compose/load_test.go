package compose

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torpor/host"
)

// testEnv is what the files of these tests may refer to.
var testEnv = map[string]string{"TAG": "1.2", "TOKEN": "hunter2", "EMPTY": ""}

// loadText loads one file called compose.yaml in the directory /…/demo.
func loadText(t *testing.T, text string) (*host.ProjectSpec, LoadOptions, error) {
	t.Helper()
	opts := LoadOptions{Environment: testEnv, Files: []string{filepath.Join(t.TempDir(), "demo", "compose.yaml")}}
	writeFile(t, opts.Files[0], text)
	spec, err := Load(context.Background(), opts)
	return spec, opts, err
}

// indent moves the lines of a service's keys to where they belong.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ") + "\n"
}

// web is the service that a file with nothing but an image gives.
func web(change func(*host.ServiceSpec)) host.ServiceSpec {
	s := host.ServiceSpec{
		Project: "demo", Name: "web", Image: "i", Scale: 1,
		Restart:  host.RestartPolicy{Mode: host.RestartNo},
		Networks: []host.NetworkAttachment{{Network: "default"}},
		Torpor:   host.TorporSpec{SleepAfter: 30 * time.Second},
	}
	if change != nil {
		change(&s)
	}
	return s
}

const testTop = `
volumes: {data: , other: }
networks: {default: , front: {ipam: {config: [{subnet: 10.9.0.0/24}, {subnet: "fd09::/64"}]}}, back: }
secrets: {key: {file: ./key.txt}, token: {environment: TOKEN}}
configs: {inline: {content: "a $$ b\n"}, conf: {file: /etc/conf}}
`

func TestServiceKeys(t *testing.T) {
	type spec = host.ServiceSpec
	mounts := func(m ...host.MountSpec) func(*spec) { return func(s *spec) { s.Mounts = m } }
	ports := func(p ...host.PortSpec) func(*spec) { return func(s *spec) { s.Ports = p } }
	join := func(n ...host.NetworkAttachment) func(*spec) { return func(s *spec) { s.Networks = n } }
	health := func(h host.Healthcheck) func(*spec) { return func(s *spec) { s.Healthcheck = &h } }
	for _, test := range []struct {
		keys string
		want func(*spec)
	}{
		{`image: i`, nil},
		{`image: nginx:${TAG}-${NONE:-x}`, func(s *spec) { s.Image = "nginx:1.2-x" }},
		{`x-note: {a: b}`, nil},
		{`build: ./dir`, func(s *spec) {
			s.Image, s.Build = "", &host.BuildSpec{Context: "DIR/dir", Dockerfile: "Dockerfile"}
		}},
		{"build:\n  context: .\n  dockerfile: D\n  args: [A=1, TAG]\n  target: t\n  tags: [x]\n  labels: {l: m}\n  network: host\n  no_cache: true\n  pull: true\n  cache_from: [c]", func(s *spec) {
			s.Image, s.Build = "", &host.BuildSpec{Context: "DIR", Dockerfile: "D", Args: map[string]string{"A": "1", "TAG": "1.2"},
				Target: "t", Tags: []string{"x"}, Labels: map[string]string{"l": "m"}, Network: "host", NoCache: true, Pull: true, CacheFrom: []string{"c"}}
		}},
		{`build: {dockerfile_inline: "FROM $$x"}`, func(s *spec) {
			s.Image, s.Build = "", &host.BuildSpec{Context: "DIR", DockerfileInline: "FROM $x"}
		}},
		{`entrypoint: sh -c "a b"`, func(s *spec) { s.Entrypoint = []string{"sh", "-c", "a b"} }},
		{`entrypoint: []`, func(s *spec) { s.Entrypoint = []string{} }},
		{`entrypoint: ""`, func(s *spec) { s.Entrypoint = []string{} }},
		{`command: [a, "$$b", "yes"]`, func(s *spec) { s.Command = []string{"a", "$b", "yes"} }},
		{`command:`, nil},
		{`environment: [A=1, TAG, MISSING, "E="]`, func(s *spec) {
			s.Environment = map[string]string{"A": "1", "TAG": "1.2", "E": ""}
		}},
		{`environment: {A: 1, B: true, C: , TAG: , D: "1.50", E: "${TAG}$$x"}`, func(s *spec) {
			s.Environment = map[string]string{"A": "1", "B": "true", "TAG": "1.2", "D": "1.50", "E": "1.2$x"}
		}},
		{`working_dir: /w`, func(s *spec) { s.WorkingDir = "/w" }},
		{`user: 1000:1000`, func(s *spec) { s.User = "1000:1000" }},
		{`group_add: [audio, 105]`, func(s *spec) { s.GroupAdd = []string{"audio", "105"} }},
		{`container_name: cc`, func(s *spec) { s.ContainerName = "cc" }},
		{`hostname: h`, func(s *spec) { s.Hostname = "h" }},
		{`domainname: d.example`, func(s *spec) { s.DomainName = "d.example" }},
		{`tty: true`, func(s *spec) { s.TTY = true }},
		{`stdin_open: true`, func(s *spec) { s.StdinOpen = true }},
		{`read_only: true`, func(s *spec) { s.ReadOnly = true }},
		{`init: true`, func(s *spec) { s.Init = true }},
		{`privileged: true`, func(s *spec) { s.Privileged = true }},
		{`platform: linux/arm64/v8`, func(s *spec) { s.Platform = "linux/arm64/v8" }},
		{`pull_policy: if_not_present`, func(s *spec) { s.PullPolicy = host.PullMissing }},
		{`pull_policy: always`, func(s *spec) { s.PullPolicy = host.PullAlways }},
		{`labels: [a=b, c]`, func(s *spec) { s.Labels = map[string]string{"a": "b", "c": ""} }},
		{`annotations: {a: b}`, func(s *spec) { s.Annotations = map[string]string{"a": "b"} }},
		{`attach: false`, func(s *spec) { s.NoAttach = true }},
		{`develop: {watch: [{action: rebuild, path: x}]}`, nil},
		{`logging: {driver: local, options: {max-size: 10m, max-file: 3}}`, func(s *spec) {
			s.LogMaxBytes, s.LogMaxFiles = 10<<20, 3
		}},
		{`scale: 3`, func(s *spec) { s.Scale = 3 }},
		{`deploy: {mode: global, replicas: 0, labels: {a: b}}`, func(s *spec) { s.Scale = 0 }},
		{`stop_signal: int`, func(s *spec) { s.StopSignal = "SIGINT" }},
		{`stop_signal: SIGRTMIN+3`, func(s *spec) { s.StopSignal = "SIGRTMIN+3" }},
		{`stop_signal: "9"`, func(s *spec) { s.StopSignal = "9" }},
		{`stop_grace_period: 1m30s`, func(s *spec) { s.StopGrace = 90 * time.Second }},
		{`stop_grace_period: 0s`, func(s *spec) { s.StopGrace = 1 }},

		{`ports: ["80", "8080:80", "127.0.0.1:53:53/udp", "[::1]:1:2"]`, ports(
			host.PortSpec{Protocol: "tcp", Target: 80}, host.PortSpec{Protocol: "tcp", Target: 80, Published: 8080},
			host.PortSpec{Protocol: "udp", Target: 53, Published: 53, HostIP: "127.0.0.1"},
			host.PortSpec{Protocol: "tcp", Target: 2, Published: 1, HostIP: "::1"})},
		{`ports: ["3000-3001:4000-4001/udp"]`, ports(
			host.PortSpec{Protocol: "udp", Target: 4000, Published: 3000}, host.PortSpec{Protocol: "udp", Target: 4001, Published: 3001})},
		{`ports: [{target: 80, published: 8080, host_ip: 127.0.0.1, protocol: udp, mode: host, name: n, app_protocol: http}]`, ports(
			host.PortSpec{Protocol: "udp", Target: 80, Published: 8080, HostIP: "127.0.0.1"})},
		{`expose: [80, "53/udp", "3000-3001"]`, func(s *spec) {
			s.Expose = []host.PortSpec{{Protocol: "tcp", Target: 80}, {Protocol: "udp", Target: 53},
				{Protocol: "tcp", Target: 3000}, {Protocol: "tcp", Target: 3001}}
		}},

		{`volumes: ["./d:/d:ro,z", /abs:/a:rslave, data:/v, /anon]`, mounts(
			host.MountSpec{Kind: host.MountBind, Source: "/abs", Target: "/a", CreateHostPath: true, Propagation: "rslave"},
			host.MountSpec{Kind: host.MountVolume, Target: "/anon"},
			host.MountSpec{Kind: host.MountBind, Source: "DIR/d", Target: "/d", ReadOnly: true, CreateHostPath: true},
			host.MountSpec{Kind: host.MountVolume, Source: "data", Target: "/v"})},
		{`volumes: ["other:/o:nocopy"]`, mounts(host.MountSpec{Kind: host.MountVolume, Source: "other", Target: "/o", NoCopy: true})},
		{"volumes:\n- {type: bind, source: ../b, target: /b/, bind: {create_host_path: false, propagation: shared}}\n- {type: bind, source: ./c, target: /c}", mounts(
			host.MountSpec{Kind: host.MountBind, Source: "UP/b", Target: "/b", Propagation: "shared"},
			host.MountSpec{Kind: host.MountBind, Source: "DIR/c", Target: "/c"})},
		{"volumes:\n- {type: volume, source: data, target: /v, read_only: true, consistency: cached, volume: {nocopy: true, subpath: a/b}}\n- {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}", mounts(
			host.MountSpec{Kind: host.MountTmpfs, Target: "/t", SizeBytes: 1 << 20, Mode: 0o700},
			host.MountSpec{Kind: host.MountVolume, Source: "data", Target: "/v", ReadOnly: true, NoCopy: true, Subpath: "a/b"})},
		{`tmpfs: /run`, mounts(host.MountSpec{Kind: host.MountTmpfs, Target: "/run"})},
		{`tmpfs: ["/run:size=64k,mode=1777,uid=5,gid=6,exec,ro"]`, mounts(host.MountSpec{Kind: host.MountTmpfs, Target: "/run",
			SizeBytes: 64 << 10, Mode: 0o1777, UID: "5", GID: "6", ReadOnly: true, Options: []string{"exec"}})},
		{`shm_size: 64mb`, func(s *spec) { s.ShmSizeBytes = 64 << 20 }},
		{`secrets: [key, token]`, mounts(
			host.MountSpec{Kind: host.MountFile, Name: "key", Source: "DIR/key.txt", Target: "/run/secrets/key", ReadOnly: true, Mode: 0o444, Secret: true},
			host.MountSpec{Kind: host.MountFile, Name: "token", FromEnv: "TOKEN", Content: []byte("hunter2"), Target: "/run/secrets/token", ReadOnly: true, Mode: 0o444, Secret: true})},
		{`secrets: [{source: key, target: other, uid: "1", gid: "2", mode: 0400}]`, mounts(
			host.MountSpec{Kind: host.MountFile, Name: "key", Source: "DIR/key.txt", Target: "/run/secrets/other", ReadOnly: true, Mode: 0o400, UID: "1", GID: "2", Secret: true})},
		{`configs: [inline, {source: conf, target: /etc/c, mode: "0640"}]`, mounts(
			host.MountSpec{Kind: host.MountFile, Name: "conf", Source: "/etc/conf", Target: "/etc/c", ReadOnly: true, Mode: 0o640},
			host.MountSpec{Kind: host.MountFile, Name: "inline", Content: []byte("a $ b\n"), Target: "/inline", ReadOnly: true, Mode: 0o444})},

		{`network_mode: none`, func(s *spec) { s.Networks, s.NetworkMode = nil, host.NetworkNone }},
		{`network_mode: host`, func(s *spec) { s.Networks, s.NetworkMode = nil, host.NetworkHost }},
		{`network_mode: bridge`, nil},
		{`networks: [front, back]`, join(host.NetworkAttachment{Network: "back"}, host.NetworkAttachment{Network: "front"})},
		{"networks:\n  back: {aliases: [b, c]}\n  front: {priority: 5, ipv4_address: 10.9.0.7, ipv6_address: 'fd09::7', mac_address: '02:42:ac:11:00:03'}", join(
			host.NetworkAttachment{Network: "front", IPv4: "10.9.0.7", IPv6: "fd09::7", MAC: "02:42:ac:11:00:03"},
			host.NetworkAttachment{Network: "back", Aliases: []string{"b", "c"}})},
		{`mac_address: "02:42:ac:11:00:04"`, join(host.NetworkAttachment{Network: "default", MAC: "02:42:ac:11:00:04"})},
		{`extra_hosts: ["a:1.2.3.4", "b=::1", "host.docker.internal:host-gateway"]`, func(s *spec) {
			s.ExtraHosts = []string{"a=1.2.3.4", "b=::1", "host.docker.internal=host-gateway"}
		}},
		{`extra_hosts: {a: 1.2.3.4}`, func(s *spec) { s.ExtraHosts = []string{"a=1.2.3.4"} }},
		{"dns: 1.1.1.1\ndns_search: [a.example]\ndns_opt: ['ndots:1']", func(s *spec) {
			s.DNS, s.DNSSearch, s.DNSOpt = []string{"1.1.1.1"}, []string{"a.example"}, []string{"ndots:1"}
		}},

		{`cap_add: [net_admin, CAP_SYS_TIME]`, func(s *spec) { s.CapAdd = []string{"NET_ADMIN", "SYS_TIME"} }},
		{`cap_drop: [ALL]`, func(s *spec) { s.CapDrop = []string{"ALL"} }},
		{`security_opt: ["no-new-privileges:true", "seccomp=builtin", "seccomp:unconfined", "seccomp=./p.json", "apparmor:x", "label:disable", "systempaths=unconfined"]`, func(s *spec) {
			s.SecurityOpt = []string{"no-new-privileges", "seccomp=unconfined", "seccomp=DIR/p.json", "apparmor=x", "label=disable", "systempaths=unconfined"}
		}},
		{`devices: ["/dev/fuse", "/dev/a:/dev/b:r", {source: /dev/c, target: /dev/d, permissions: rw}]`, func(s *spec) {
			s.Devices = []host.DeviceSpec{{Source: "/dev/fuse", Target: "/dev/fuse", Permissions: "rwm"},
				{Source: "/dev/a", Target: "/dev/b", Permissions: "r"}, {Source: "/dev/c", Target: "/dev/d", Permissions: "rw"}}
		}},
		{`sysctls: [net.core.somaxconn=1024]`, func(s *spec) { s.Sysctls = map[string]string{"net.core.somaxconn": "1024"} }},
		{`sysctls: {net.ipv4.ip_forward: 1}`, func(s *spec) { s.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} }},
		{`ulimits: {nproc: 5, memlock: -1, nofile: {soft: 10, hard: 20}, core: 0}`, func(s *spec) {
			s.Ulimits = map[string]host.Ulimit{"nproc": {Soft: 5, Hard: 5}, "memlock": {Soft: -1, Hard: -1}, "nofile": {Soft: 10, Hard: 20}, "core": {}}
		}},
		{"pid: host\nipc: shareable", func(s *spec) { s.PIDMode, s.IPCMode = "host", "shareable" }},
		{`oom_score_adj: -500`, func(s *spec) { s.OOMScoreAdj = -500 }},
		{"mem_limit: 1g\nmemswap_limit: -1\nmem_reservation: 512m\ncpus: 0.1\ncpu_shares: 512\ncpuset: 0-1\npids_limit: 99", func(s *spec) {
			s.Resources = host.Resources{MemoryBytes: 1 << 30, MemorySwapBytes: -1, MemoryReservationBytes: 512 << 20,
				CPUs: 0.1, CPUShares: 512, CPUSet: "0-1", PidsMax: 99}
		}},
		{"cpu_quota: 50000\ncpu_period: 200000\npids_limit: -1", func(s *spec) { s.Resources.CPUs = 0.25 }},
		{`deploy: {resources: {limits: {cpus: "1.5", memory: 1G, pids: 7}, reservations: {cpus: "0.25", memory: 20M}}}`, func(s *spec) {
			s.Resources = host.Resources{MemoryBytes: 1 << 30, MemoryReservationBytes: 20 << 20, CPUs: 1.5, CPUShares: 256, PidsMax: 7}
		}},

		{`restart: "no"`, nil},
		{`restart: always`, func(s *spec) { s.Restart.Mode = host.RestartAlways }},
		{`restart: on-failure:3`, func(s *spec) { s.Restart = host.RestartPolicy{Mode: host.RestartOnFailure, MaxRetries: 3} }},
		{`restart: unless-stopped`, func(s *spec) { s.Restart.Mode = host.RestartUnlessStopped }},
		{"restart: always\ndeploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2}}", func(s *spec) {
			s.Restart = host.RestartPolicy{Mode: host.RestartOnFailure, MaxRetries: 2, Delay: 5 * time.Second}
		}},
		{`deploy: {restart_policy: {max_attempts: 4}}`, func(s *spec) {
			s.Restart = host.RestartPolicy{Mode: host.RestartAlways, MaxRetries: 4}
		}},
		{`healthcheck: {test: curl x, interval: 1m30s, timeout: 1s, start_period: 2s, start_interval: 3s, retries: 4}`, health(host.Healthcheck{
			Test: []string{"CMD-SHELL", "curl x"}, Interval: 90 * time.Second, Timeout: time.Second,
			StartPeriod: 2 * time.Second, StartInterval: 3 * time.Second, Retries: 4})},
		{`healthcheck: {test: [CMD, a, "$$b"]}`, health(host.Healthcheck{Test: []string{"CMD", "a", "$b"}})},
		{`healthcheck: {test: [NONE]}`, health(host.Healthcheck{Disable: true})},
		{`healthcheck: {disable: true}`, health(host.Healthcheck{Disable: true})},
		{`healthcheck: {interval: 5s}`, health(host.Healthcheck{Interval: 5 * time.Second})},

		{`x-torpor: {sleep_after: 2m, verify: true}`, func(s *spec) {
			s.Torpor = host.TorporSpec{SleepAfter: 2 * time.Minute, Verify: true}
		}},
		{`x-torpor: {connections: suspend}`, func(s *spec) { s.Torpor.Connections = host.ConnectionsSuspend }},
		{`x-torpor: {checkpoint: ready, spares: 3}`, func(s *spec) { s.Torpor.Checkpoint, s.Torpor.Spares = host.CheckpointReady, 3 }},
		{`x-torpor: {checkpoint: never}`, func(s *spec) { s.Torpor.Checkpoint = host.CheckpointNever }},
		{"x-torpor:\n  checkpoint: ready\n  before_checkpoint: {http: 8080/before, timeout: 2s}\n  after_restore: {exec: [reseed, now]}", func(s *spec) {
			s.Torpor = host.TorporSpec{SleepAfter: host.DefaultSleepAfter, Checkpoint: host.CheckpointReady,
				BeforeCheckpoint: &host.Hook{Port: 8080, Path: "/before", Timeout: 2 * time.Second},
				AfterRestore:     &host.Hook{Exec: []string{"reseed", "now"}, Timeout: host.DefaultHookTimeout}}
		}},
		{`x-torpor: {checkpoint: ready, after_restore: {signal: SIGUSR2}, before_checkpoint: {exec: "a; b"}}`, func(s *spec) {
			s.Torpor.Checkpoint, s.Torpor.AfterRestore = host.CheckpointReady, &host.Hook{Signal: "SIGUSR2", Timeout: host.DefaultHookTimeout}
			s.Torpor.BeforeCheckpoint = &host.Hook{Exec: []string{"/bin/sh", "-c", "a; b"}, Timeout: host.DefaultHookTimeout}
		}},
		{`x-torpor: {sleep: never, verify: "${V:-false}"}`, func(s *spec) { s.Torpor.NeverSleep = true }},
		{"image: ''\nx-torpor: {rootfs: ./root}", func(s *spec) { s.Image, s.Torpor.RootFS = "", "DIR/root" }},
		{"image: ''\nx-torpor: {rootfs: /}", func(s *spec) { s.Image, s.Torpor.RootFS = "", "/" }},
	} {
		t.Run(test.keys, func(t *testing.T) {
			text := indent(test.keys)
			if !strings.Contains(text, "image:") && !strings.Contains(text, "build:") {
				text = "    image: i\n" + text
			}
			got, opts, err := loadText(t, "services:\n  web:\n"+text+testTop)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, got, opts)
			if diff := cmp.Diff(web(test.want), relocate(got.Services[0], got.WorkingDir)); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

// relocate writes DIR for the project directory and UP for its parent.
func relocate(s host.ServiceSpec, dir string) host.ServiceSpec {
	fix := func(path string) string {
		return strings.Replace(strings.Replace(path, dir, "DIR", 1), filepath.Dir(dir), "UP", 1)
	}
	for i := range s.Mounts {
		s.Mounts[i].Source = fix(s.Mounts[i].Source)
	}
	for i := range s.SecurityOpt {
		s.SecurityOpt[i] = fix(s.SecurityOpt[i])
	}
	if s.Build != nil {
		s.Build.Context = fix(s.Build.Context)
	}
	s.Torpor.RootFS = fix(s.Torpor.RootFS)
	return s
}

func TestDependencies(t *testing.T) {
	spec, opts, err := loadText(t, `
services:
  web:
    image: i
    depends_on:
      db: {condition: service_healthy, restart: true}
      init: {condition: service_completed_successfully}
      gone: {condition: service_started, required: false}
    links: ["db:database", cache]
  init: {image: i}
  db: {image: i}
  cache: {image: i}
  gone: {image: i, profiles: [never]}
`)
	if err != nil {
		t.Fatal(err)
	}
	services := map[host.ServiceName]host.ServiceSpec{}
	for _, s := range spec.Services {
		services[s.Name] = s
	}
	want := []host.Dependency{
		{Service: "cache", Condition: host.DependsStarted, Restart: true, Required: true},
		{Service: "db", Condition: host.DependsHealthy, Restart: true, Required: true},
		{Service: "init", Condition: host.DependsCompleted, Required: true},
	}
	if diff := cmp.Diff(want, services["web"].DependsOn); diff != "" {
		t.Errorf("depends_on (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"database"}, services["db"].Networks[0].Aliases); diff != "" {
		t.Errorf("aliases by links (-want +got):\n%s", diff)
	}
	if _, found := services["gone"]; found {
		t.Error("a service of an inactive profile is in the spec")
	}
	roundTrip(t, spec, opts)
}

func TestTopLevelKeys(t *testing.T) {
	spec, opts, err := loadText(t, `
version: "3.8"
name: shop
x-anything: {gpus: all}
services:
  web:
    image: i
    networks: [front, out]
    volumes: [data:/d, bound:/b, ext:/e, thin:/t, wide:/w]
networks:
  front:
    driver: bridge
    internal: true
    attachable: true
    enable_ipv4: true
    enable_ipv6: true
    labels: {a: b}
    ipam: {driver: default, config: [{subnet: 10.8.0.0/24, gateway: 10.8.0.1}, {subnet: "fd08::/64"}]}
  out: {external: true, name: uplink}
  unused: {driver: macvlan}
volumes:
  data: {labels: [l=m]}
  bound: {driver: local, driver_opts: {type: none, o: bind, device: ./b}}
  ext: {external: true}
  thin: {driver: torpor}
  wide: {driver: torpor, driver_opts: {size: 1g, layout: 1+1, disks: ./a /mnt/b, fs: xfs}}
`)
	if err != nil {
		t.Fatal(err)
	}
	networks := map[string]host.NetworkSpec{
		"front": {Name: "shop_front", Internal: true, IPv6: true, Subnets: []string{"10.8.0.0/24", "fd08::/64"}, Labels: map[string]string{"a": "b"}},
		"out":   {Name: "uplink", External: true},
	}
	if diff := cmp.Diff(networks, spec.Networks); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	volumes := map[string]host.VolumeSpec{
		"data":  {Name: "shop_data", Labels: map[string]string{"l": "m"}},
		"bound": {Name: "shop_bound", Driver: "local", DriverOpts: map[string]string{"type": "none", "o": "bind", "device": filepath.Join(spec.WorkingDir, "b")}},
		"ext":   {Name: "ext", External: true},
		"thin": {Name: "shop_thin", Driver: "torpor",
			Torpor: &host.TorporVolume{SizeBytes: 10 << 30, Layout: host.Layout{Data: 1}, FS: host.Ext4}},
		"wide": {Name: "shop_wide", Driver: "torpor",
			DriverOpts: map[string]string{"size": "1g", "layout": "1+1", "fs": "xfs", "disks": filepath.Join(spec.WorkingDir, "a") + " /mnt/b"},
			Torpor:     &host.TorporVolume{SizeBytes: 1 << 30, Layout: host.Layout{Data: 1, Parity: 1}, Disks: []string{filepath.Join(spec.WorkingDir, "a"), "/mnt/b"}, FS: host.XFS}},
	}
	if diff := cmp.Diff(volumes, spec.Volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	roundTrip(t, spec, opts)
}
