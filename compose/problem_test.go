package compose

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"torpor/host"
)

// TestServiceProblems has each wrong key at line 4 of compose.yaml, below the
// service web and its image.
func TestServiceProblems(t *testing.T) {
	for _, test := range []struct {
		keys string
		want string // after "compose.yaml:4: services.web"
		kind error
	}{
		{`gpus: all`, `.gpus: not supported`, host.ErrUnsupported},
		{`runtime: nvidia`, `.runtime: not supported`, host.ErrUnsupported},
		{`build: {context: ., ssh: [default]}`, `.build.ssh: not supported`, host.ErrUnsupported},
		{`volumes_from: [web2]`, `.volumes_from: not supported`, host.ErrUnsupported},
		{`post_start: [{command: x}]`, `.post_start: not supported`, host.ErrUnsupported},
		{`deploy: {update_config: {order: start-first}}`, `.deploy.update_config: not supported`, host.ErrUnsupported},
		{`deploy: {mode: replicated-job}`, `.deploy.mode: replicated-job: not supported`, host.ErrUnsupported},
		{`network_mode: service:web2`, `.network_mode: service:web2: not supported`, host.ErrUnsupported},
		{`network_mode: container:x`, `.network_mode: container:x: not supported`, host.ErrUnsupported},
		{`network_mode: custom`, `.network_mode: custom: not supported`, host.ErrUnsupported},
		{`pid: service:web2`, `.pid: service:web2: not supported`, host.ErrUnsupported},
		{`ipc: container:x`, `.ipc: container:x: not supported`, host.ErrUnsupported},
		{`logging: {driver: syslog}`, `.logging.driver: syslog: not supported`, host.ErrUnsupported},
		{`logging: {options: {tag: x}}`, `.logging.options.tag: not supported`, host.ErrUnsupported},
		{`platform: windows/amd64`, `.platform: windows/amd64: not supported`, host.ErrUnsupported},
		{`pull_policy: daily`, `.pull_policy: daily: not supported`, host.ErrUnsupported},
		{`ports: ["80/sctp"]`, `.ports: protocol sctp: not supported`, host.ErrUnsupported},
		{`ports: ["8000-8009:80"]`, `.ports: any free port of 8000-8009: not supported`, host.ErrUnsupported},
		{`volumes: ["/a:/b:ro,noexec"]`, `.volumes: option "noexec": not supported`, host.ErrUnsupported},
		{`volumes: [{type: image, source: x, target: /y}]`, `.volumes: type image: not supported`, host.ErrUnsupported},
		{`volumes: [{type: bind, source: /a, target: /y, bind: {recursive: disabled}}]`, `.volumes[0].bind.recursive: not supported`, host.ErrUnsupported},
		{`tmpfs: ["/t:weird"]`, `.tmpfs: option "weird": not supported`, host.ErrUnsupported},
		{`security_opt: ["credentialspec:file"]`, `.security_opt: credentialspec:file: not supported`, host.ErrUnsupported},
		{`devices: ["vendor.com/gpu=0"]`, `.devices: CDI device vendor.com/gpu=0: not supported`, host.ErrUnsupported},
		{`networks: {default: {interface_name: eth7}}`, `.networks.default.interface_name: not supported`, host.ErrUnsupported},
		{`networks: {default: {use_service_name_alias: false}}`, `.networks.default.use_service_name_alias: false: not supported`, host.ErrUnsupported},

		{`restrat: always`, `.restrat: unknown key, did you mean restart?`, host.ErrInvalid},
		{`foobarbaz: 1`, `.foobarbaz: unknown key`, host.ErrInvalid},
		{`healthcheck: {tset: x}`, `.healthcheck.tset: unknown key, did you mean test?`, host.ErrInvalid},
		{`ports: [{target: 80, publishd: "1"}]`, `.ports[0].publishd: unknown key, did you mean published?`, host.ErrInvalid},
		{`x-torpor: {sleep_afer: 3s}`, `.x-torpor.sleep_afer: unknown key, did you mean sleep_after?`, host.ErrInvalid},
		{`x-torpor: {sleep_after: soon}`, `.x-torpor.sleep_after: "soon": want a duration such as 30s`, host.ErrInvalid},
		{`x-torpor: {sleep_after: never}`, `.x-torpor.sleep_after: never: write sleep: never instead`, host.ErrInvalid},
		{`x-torpor: {sleep: always}`, `.x-torpor.sleep: "always": the one value is never`, host.ErrInvalid},
		{`x-torpor: {verify: maybe}`, `.x-torpor.verify: "maybe": want true or false`, host.ErrInvalid},
		{`x-torpor: {connections: none}`, `.x-torpor.connections: "none": want auto, park or suspend`, host.ErrInvalid},
		{`x-torpor: {spares: 2}`, `.x-torpor.spares: need checkpoint: ready`, host.ErrInvalid},
		{`x-torpor: {checkpoint: ready, spares: many}`, `.x-torpor.spares: "many": want a number below 256`, host.ErrInvalid},
		{`x-torpor: {checkpoint: always}`, `.x-torpor.checkpoint: "always": want ready or never`, host.ErrInvalid},
		{`x-torpor: {after_restore: {signal: HUP}}`, `.x-torpor: has a hook, which needs checkpoint: ready`, host.ErrInvalid},
		{`x-torpor: {checkpoint: ready, after_restore: {signal: HUP, http: 80/x}}`, `.x-torpor.after_restore: want one of http, exec and signal`, host.ErrInvalid},
		{`x-torpor: {checkpoint: ready, after_restore: {http: /x}}`, `.x-torpor.after_restore: http: "/x": want PORT/PATH, such as 8080/before-checkpoint`, host.ErrInvalid},
		{`x-torpor: {checkpoint: ready, after_restore: {exec: []}}`, `.x-torpor.after_restore: exec: want a command`, host.ErrInvalid},
		{`x-torpor: {checkpoint: ready, before_checkpoint: {signal: HUP, timeout: soon}}`, `.x-torpor.before_checkpoint: "soon": want a duration such as 30s`, host.ErrInvalid},
		{`x-torpor: {rootfs: /}`, `.x-torpor.rootfs: takes the place of image and build; remove one of them`, host.ErrInvalid},
		{`x-torpor: 5`, `.x-torpor: want a mapping`, host.ErrInvalid},
		{`healthcheck: {test: curl, x-torpor: {}}`, `.healthcheck.x-torpor: has an effect under a service only`, host.ErrInvalid},
		{`restart: sometimes`, `.restart: "sometimes": want no, always, on-failure, on-failure:N or unless-stopped`, host.ErrInvalid},
		{`cap_add: [NET_ADMN]`, `.cap_add: "NET_ADMN": no such capability`, host.ErrInvalid},
		{`ulimits: {nofiles: 5}`, `.ulimits.nofiles: no such limit`, host.ErrInvalid},
		{`ulimits: {nofile: {soft: 5, hard: 4}}`, `.ulimits.nofile: soft 5, hard 4: want -1 or a number, soft not above hard`, host.ErrInvalid},
		{`stop_signal: SIGFOO`, `.stop_signal: "SIGFOO": no such signal`, host.ErrInvalid},
		{`extra_hosts: ["a:nowhere"]`, `.extra_hosts: "nowhere": not an address`, host.ErrInvalid},
		{`dns: [resolver]`, `.dns: "resolver": not an address`, host.ErrInvalid},
		{`expose: [x]`, `.expose: "x": not a port`, host.ErrInvalid},
		{`memswap_limit: 5m`, `.memswap_limit: 5242880: is memory plus swap, so mem_limit must be given and not be larger`, host.ErrInvalid},
		{`oom_score_adj: 2000`, `.oom_score_adj: value must be between`, host.ErrInvalid},
		{`volumes: ["/a:b"]`, `.volumes: "b": not an absolute path in the container`, host.ErrInvalid},
		{`volumes: ["/a:/"]`, `.volumes: / cannot be mounted over`, host.ErrInvalid},
		{`volumes: [{type: volume, source: data, target: /d, volume: {subpath: ../x}}]`, `.volumes: "../x": subpath leaves the volume`, host.ErrInvalid},
		{`tmpfs: ["/t:size=x"]`, `.tmpfs: option "size=x": not understood`, host.ErrInvalid},
		{`networks: {default: {ipv4_address: 10.0.0.9}}`, `.networks.default.ipv4_address: 10.0.0.9: not in a subnet that networks.default.ipam gives`, host.ErrInvalid},
		{`env_file: missing.env`, `.env_file: DIR/missing.env: no such file`, host.ErrInvalid},
		{`mem_limit: 5q`, `.mem_limit: invalid suffix: 'q'`, host.ErrInvalid},
		{`user: 1000`, `.user: must be a string`, host.ErrInvalid},
		{`ports: 80`, `.ports: must be a list`, host.ErrInvalid},
		{`command: "${NEEDED:?say it}"`, `.command: required variable NEEDED is missing a value: say it`, host.ErrInvalid},
		{`command: "${"`, `.command: a $ that starts no variable is written $$: ${`, host.ErrInvalid},
	} {
		t.Run(test.keys, func(t *testing.T) {
			_, opts, err := loadText(t, "services:\n  web:\n    image: i\n    "+test.keys+
				"\n  web2: {image: i}\nvolumes: {data: {}}\n")
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.Is(err, test.kind) {
				t.Errorf("error %v is not of kind %v", err, test.kind)
			}
			text := strings.ReplaceAll(err.Error(), filepath.Dir(opts.Files[0]), "DIR")
			if want := "compose.yaml:4: services.web" + test.want; text != want {
				if !(strings.HasSuffix(test.want, "between") && strings.HasPrefix(text, "compose.yaml:4: services.web.oom_score_adj")) {
					t.Errorf("error\n\t%s, want\n\t%s", text, want)
				}
			}
		})
	}
}

func TestFileProblems(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"all at once", `
services:
  a:
    image: i
    gpus: all
    ports: ["1:1/sctp"]
  b:
    runtime: x
networks:
  default:
    driver: macvlan
    driver_opts: {a: b}
`, `compose.yaml:5: services.a.gpus: not supported
compose.yaml:6: services.a.ports: protocol sctp: not supported
compose.yaml:7: services.b: has no image, build or x-torpor.rootfs
compose.yaml:8: services.b.runtime: not supported
compose.yaml:11: networks.default.driver: macvlan: not supported
compose.yaml:12: networks.default.driver_opts: not supported`},
		{"typos and the unsupported together", `
services:
  a: {imgae: i, gpus: all}
volums: {}
`, `compose.yaml:3: services.a.gpus: not supported
compose.yaml:3: services.a.imgae: unknown key, did you mean image?
compose.yaml:4: volums: unknown key, did you mean volumes?`},
		{"in an anchor", `
x-base: &base
  restart: always
  gpus: all
services:
  a:
    <<: *base
    image: i
`, `compose.yaml:4: services.a.gpus: not supported`},
		{"no image", "services:\n  a:\n    command: x\n", `compose.yaml:2: services.a: has no image, build or x-torpor.rootfs`},
		{"external secret", "services: {a: {image: i, secrets: [s]}}\nsecrets:\n  s:\n    external: true\n",
			`compose.yaml:4: secrets.s.external: not supported`},
		{"secret of a variable that is not set", "services: {a: {image: i, secrets: [s]}}\nsecrets:\n  s: {environment: NOT_SET}\n",
			`compose.yaml:3: secrets.s.environment: variable NOT_SET is not set`},
		{"volume driver", "services: {a: {image: i, volumes: ['vv:/v']}}\nvolumes:\n  vv:\n    driver: rclone\n",
			`compose.yaml:4: volumes.vv.driver: rclone: not supported`},
		{"volume option", torporVolume("{size: 10G, sise: 1}"), `compose.yaml:5: volumes.vv.driver_opts.sise: no such option; want size, layout, disks or fs`},
		{"volume size", torporVolume("{size: big}"), `compose.yaml:5: volumes.vv.driver_opts.size: "big": want a size such as 10G`},
		{"volume layout", torporVolume("{layout: 4-2}"), `compose.yaml:5: volumes.vv.driver_opts.layout: layout "4-2": want DATA+PARITY, such as 4+2, of 32 disks at most`},
		{"volume file system", torporVolume("{fs: ntfs}"), `compose.yaml:5: volumes.vv.driver_opts.fs: file system "ntfs": want ext4, xfs or btrfs`},
		{"volume without disks", torporVolume("{layout: 2+1}"),
			`compose.yaml:5: volumes.vv.driver_opts: layout 2+1 needs 3 disks, 0 are given; list directories, files or block devices under disks`},
		{"volume with a disk twice", torporVolume("{layout: 1+1, disks: /a /b/../a}"), `compose.yaml:5: volumes.vv.driver_opts.disks: /a is given twice`},
		{"option of another driver", "services: {a: {image: i, volumes: ['vv:/v']}}\nvolumes:\n  vv:\n    driver_opts: {size: 10G}\n",
			`compose.yaml:4: volumes.vv.driver_opts.size: not supported`},
		{"volume name", "services: {a: {image: i, volumes: ['vv:/v']}}\nvolumes:\n  vv:\n    name: ../../etc\n",
			`compose.yaml:4: volumes.vv.name: "../../etc": letters, digits, _, . and - are allowed`},
		{"gateway", "services: {a: {image: i}}\nnetworks:\n  default:\n    ipam:\n      config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.9}]\n",
			`compose.yaml:5: networks.default.ipam.config: gateway 10.0.0.9, other than the subnet's first address: not supported`},
		{"container name twice", "services:\n  a: {image: i, container_name: cc}\n  b: {image: i, container_name: cc}\n",
			`compose.yaml:3: services.b.container_name: cc is the name of service a already`},
		{"x-torpor elsewhere", "services: {a: {image: i}}\nx-torpor: {sleep: never}\n", `compose.yaml:2: x-torpor: has an effect under a service only`},
		{"models", "services: {a: {image: i}}\nmodels: {m: {model: x}}\n", `compose.yaml:2: models: not supported`},
		{"undefined dependency", "services:\n  a:\n    image: i\n    depends_on: [b]\n", `compose.yaml:2: services.a: depends on undefined service "b"`},
		{"cycle", "services:\n  a: {image: i, depends_on: [b]}\n  b: {image: i, depends_on: [a]}\n", `dependency cycle detected`},
		{"syntax", "services:\n  a:\n    image: i\n   ports: 80\n", `compose.yaml:4: yaml: did not find expected key`},
		{"syntax found by the scanner", "services:\n  a: b: c\n", `compose.yaml:2: yaml: mapping values are not allowed in this context`},
		{"key twice", "services:\n  a:\n    image: i\n    image: j\n", `compose.yaml:4: yaml: mapping key "image" already defined at line 3`},
		{"control character", "services:\n  a: {image: i}\n# \x01\n", `compose.yaml:3: yaml: control characters are not allowed`},
		{"port", "services:\n  a:\n    image: i\n    ports: ['abc:80']\n", `compose.yaml:4: invalid hostPort: abc`},
		{"include of nothing", "include: [none.yaml]\nservices: {a: {image: i}}\n", `compose.yaml:1: open DIR/none.yaml: no such file or directory`},
		{"alias bomb", aliasBomb(), `compose.yaml:1: yaml: document contains excessive aliasing`},
		{"alias of itself", "services:\n  a: &a {image: i, x-a: *a}\n", ""},
		{"many ports", "services:\n  a:\n    image: i\n    expose: ['1-65535']\n", `compose.yaml:4: services.a.expose: 65535 ports, more than 4096: not supported`},
		{"empty", "", `compose.yaml: empty compose file`},
		{"list", "[a]", `compose.yaml: top-level object must be a mapping`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, opts, err := loadText(t, test.text)
			if err == nil {
				t.Fatal("accepted")
			}
			text := strings.ReplaceAll(err.Error(), filepath.Dir(opts.Files[0]), "DIR")
			if test.want != "" && text != test.want && !(test.name == "cycle" && strings.Contains(text, test.want)) {
				t.Errorf("error\n%s\nwant\n%s", text, test.want)
			}
		})
	}
}

// torporVolume is a file with a volume that has these options, in line 5.
func torporVolume(options string) string {
	return "services: {a: {image: i, volumes: ['vv:/v']}}\nvolumes:\n  vv:\n    driver: torpor\n    driver_opts: " + options + "\n"
}

// TestInactive: what is not started may ask for anything.
func TestInactive(t *testing.T) {
	const text = `
services:
  web: {image: i, depends_on: [db]}
  db: {image: i}
  gpu: {image: i, gpus: all, profiles: [gpu], volumes: ["models:/m"], env_file: none.env}
  other: {image: i, runtime: x}
volumes: {models: {driver: rclone}}
`
	opts := LoadOptions{Files: []string{filepath.Join(t.TempDir(), "demo", "compose.yaml")}, Services: []string{"web"}}
	writeFile(t, opts.Files[0], text)
	spec, err := Load(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Services) != 2 || spec.Services[0].Name != "db" || spec.Services[1].Name != "web" {
		t.Errorf("services %v, want db and web", spec.Services)
	}
	opts.Services, opts.Profiles = nil, []string{"gpu"}
	_, err = Load(context.Background(), opts)
	for _, want := range []string{"services.gpu.gpus", "services.gpu.env_file", "services.other.runtime", "volumes.models.driver"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	if !errors.Is(err, host.ErrUnsupported) || !errors.Is(err, host.ErrInvalid) {
		t.Errorf("error %v does not have both kinds", err)
	}
	opts.Services, opts.Profiles = []string{"nobody"}, nil
	if _, err = Load(context.Background(), opts); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("unknown service: %v", err)
	}
}

// aliasBomb is a small file that is 9 to the power of 8 items large.
func aliasBomb() string {
	text := "x-a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c <= 'h'; c++ {
		item := "*" + string(c-1)
		text += "x-" + string(c) + ": &" + string(c) + " [" + strings.Repeat(item+", ", 8) + item + "]\n"
	}
	return text + "services: {a: {image: i, environment: *h}}\n"
}
