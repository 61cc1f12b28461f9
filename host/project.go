package host

import "time"

// ProjectName names a compose project: lower-case letters, digits, '-' and '_'.
type ProjectName string

// ServiceName names a service within its project.
type ServiceName string

// ContainerID identifies one container of a service on this machine. It is
// "<project>-<service>-<n>" and is used for directories, cgroups and the OCI
// runtime's own state, so it never holds a slash.
type ContainerID string

// ProjectSpec is a compose file after interpolation, profiles and extends.
type ProjectSpec struct {
	Name       ProjectName            `json:"name"`
	WorkingDir string                 `json:"working_dir"` // absolute; relative paths of the file are already resolved against it
	Files      []string               `json:"files,omitempty"`
	Services   []ServiceSpec          `json:"services"` // sorted by name
	Networks   map[string]NetworkSpec `json:"networks,omitempty"`
	Volumes    map[string]VolumeSpec  `json:"volumes,omitempty"`
}

// NetworkSpec is one network of a project. The key in ProjectSpec.Networks is
// the name that services use; Name is the name on the host.
type NetworkSpec struct {
	Name     string            `json:"name"`
	External bool              `json:"external,omitempty"`
	Internal bool              `json:"internal,omitempty"` // no way out to other networks
	IPv6     bool              `json:"ipv6,omitempty"`
	Subnets  []string          `json:"subnets,omitempty"` // CIDR; empty: chosen by the host
	Labels   map[string]string `json:"labels,omitempty"`
}

// VolumeSpec is one named volume. The key in ProjectSpec.Volumes is the name
// that services use; Name is the name on the host.
type VolumeSpec struct {
	Name       string            `json:"name"`
	External   bool              `json:"external,omitempty"`
	Driver     string            `json:"driver,omitempty"` // "" and "local": a directory; or VolumeDriver
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	Torpor     *TorporVolume     `json:"torpor,omitempty"` // what DriverOpts of VolumeDriver mean
	Labels     map[string]string `json:"labels,omitempty"`
}

// ServiceSpec is all that is needed to run one service. It is plain data: the
// live container is container.Container.
type ServiceSpec struct {
	Project       ProjectName `json:"project"`
	Name          ServiceName `json:"name"`
	ContainerName string      `json:"container_name,omitempty"` // shown instead of the ContainerID; also resolvable

	Image      string     `json:"image,omitempty"`
	Build      *BuildSpec `json:"build,omitempty"`
	Platform   string     `json:"platform,omitempty"` // os/arch[/variant]
	PullPolicy PullPolicy `json:"pull_policy,omitempty"`

	// Entrypoint and Command: nil means the image's own; empty and not nil
	// means none.
	Entrypoint  []string          `json:"entrypoint"`
	Command     []string          `json:"command"`
	Environment map[string]string `json:"environment,omitempty"` // env_file already merged
	WorkingDir  string            `json:"working_dir,omitempty"`
	User        string            `json:"user,omitempty"` // name or uid, optionally :group
	GroupAdd    []string          `json:"group_add,omitempty"`
	Hostname    string            `json:"hostname,omitempty"`
	DomainName  string            `json:"domainname,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	StdinOpen   bool              `json:"stdin_open,omitempty"`
	ReadOnly    bool              `json:"read_only,omitempty"`
	Init        bool              `json:"init,omitempty"` // always true in effect: Torpor's init is pid 1

	Ports        []PortSpec  `json:"ports,omitempty"`
	Expose       []PortSpec  `json:"expose,omitempty"`
	Mounts       []MountSpec `json:"mounts,omitempty"` // volumes, tmpfs, secrets and configs
	ShmSizeBytes int64       `json:"shm_size_bytes,omitempty"`

	NetworkMode NetworkMode         `json:"network_mode,omitempty"` // "": the networks below
	Networks    []NetworkAttachment `json:"networks,omitempty"`     // by priority, then name
	ExtraHosts  []string            `json:"extra_hosts,omitempty"`  // "name=address"; the address may be "host-gateway"
	DNS         []string            `json:"dns,omitempty"`
	DNSSearch   []string            `json:"dns_search,omitempty"`
	DNSOpt      []string            `json:"dns_opt,omitempty"`

	Privileged  bool              `json:"privileged,omitempty"`
	CapAdd      []string          `json:"cap_add,omitempty"` // without the CAP_ prefix, upper case, or ALL
	CapDrop     []string          `json:"cap_drop,omitempty"`
	SecurityOpt []string          `json:"security_opt,omitempty"` // "no-new-privileges", "systempaths=unconfined", or seccomp=, apparmor= or label= with a value; a seccomp file is absolute
	Devices     []DeviceSpec      `json:"devices,omitempty"`
	Sysctls     map[string]string `json:"sysctls,omitempty"`
	Ulimits     map[string]Ulimit `json:"ulimits,omitempty"` // "nofile", ...
	Resources   Resources         `json:"resources"`
	OOMScoreAdj int               `json:"oom_score_adj,omitempty"`
	PIDMode     string            `json:"pid_mode,omitempty"` // "" or "host"
	IPCMode     string            `json:"ipc_mode,omitempty"` // "", "private", "shareable" or "host"

	DependsOn   []Dependency      `json:"depends_on,omitempty"`
	Healthcheck *Healthcheck      `json:"healthcheck,omitempty"`
	Restart     RestartPolicy     `json:"restart"`
	StopSignal  string            `json:"stop_signal,omitempty"`   // "" means the image's, else SIGTERM
	StopGrace   time.Duration     `json:"stop_grace_ns,omitempty"` // 0 means 10 s; a file's 0s is 1 ns here
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`   // of the OCI spec
	NoAttach    bool              `json:"no_attach,omitempty"`     // up does not show its logs
	LogMaxBytes int64             `json:"log_max_bytes,omitempty"` // of one log file before it is rotated; 0: the host's choice
	LogMaxFiles int               `json:"log_max_files,omitempty"` // log files kept, the current one included; 0: the host's choice
	Profiles    []string          `json:"profiles,omitempty"`
	Scale       int               `json:"scale"` // containers wanted; 1 unless said

	Torpor TorporSpec `json:"x_torpor"`
}

// TorporSpec is what a service says under x-torpor.
type TorporSpec struct {
	SleepAfter time.Duration `json:"sleep_after_ns"` // quiet time before sleep; DefaultSleepAfter unless said
	NeverSleep bool          `json:"never_sleep,omitempty"`
	RootFS     string        `json:"rootfs,omitempty"` // directory used as read-only base instead of an image
	Verify     bool          `json:"verify,omitempty"` // compare every page and register around each sleep

	Connections ConnectionPolicy `json:"connections,omitempty"`

	Checkpoint       CheckpointPolicy `json:"checkpoint,omitempty"`
	Spares           int              `json:"spares,omitempty"`            // containers made ahead for more instances from the checkpoint
	BeforeCheckpoint *Hook            `json:"before_checkpoint,omitempty"` // runs before the ready checkpoint is made
	AfterRestore     *Hook            `json:"after_restore,omitempty"`     // runs before anybody reaches what was restored, and after the checkpoint
}

// ConnectionPolicy says how the open connections of a sleeping service are
// kept: parked, as sockets of the kernel, or suspended, as records without any.
type ConnectionPolicy string

// The policies of connections. The empty one is ConnectionsAuto.
const (
	ConnectionsAuto    ConnectionPolicy = "auto"    // suspended when they are many, or after a long sleep
	ConnectionsPark    ConnectionPolicy = "park"    // always parked
	ConnectionsSuspend ConnectionPolicy = "suspend" // suspended as soon as the service sleeps
)

// CheckpointPolicy says whether a service starts from a ready checkpoint.
type CheckpointPolicy string

// The policies of checkpoints. The empty one is CheckpointNever: a service
// whose start does more than prepare it must say that it may be skipped.
const (
	CheckpointNever CheckpointPolicy = "never"
	CheckpointReady CheckpointPolicy = "ready" // one is made when it is ready, later starts restore it
)

// Hook is how a service is told of its checkpoint: one of a request to its own
// HTTP port, a command in its container, and a signal. The first two are
// answered: by a status below 300, and by exit code 0.
type Hook struct {
	Port    uint16        `json:"port,omitempty"`
	Path    string        `json:"path,omitempty"`
	Exec    []string      `json:"exec,omitempty"`
	Signal  string        `json:"signal,omitempty"`
	Timeout time.Duration `json:"timeout_ns"`
}

// DefaultHookTimeout is how long a hook may take unless it says otherwise.
const DefaultHookTimeout = 10 * time.Second

// DefaultSleepAfter is the quiet time after which a service falls asleep.
const DefaultSleepAfter = 30 * time.Second

// PullPolicy says when an image is pulled.
type PullPolicy string

// The pull policies of the compose specification that Torpor knows.
const (
	PullMissing PullPolicy = "missing" // also "" and "if_not_present"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
	PullBuild   PullPolicy = "build"
)

// BuildSpec is handed to an installed buildah or docker.
type BuildSpec struct {
	Context          string            `json:"context"`
	Dockerfile       string            `json:"dockerfile,omitempty"`
	DockerfileInline string            `json:"dockerfile_inline,omitempty"`
	Args             map[string]string `json:"args,omitempty"`
	Target           string            `json:"target,omitempty"`
	Tags             []string          `json:"tags,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
	Network          string            `json:"network,omitempty"`
	NoCache          bool              `json:"no_cache,omitempty"`
	Pull             bool              `json:"pull,omitempty"`
	CacheFrom        []string          `json:"cache_from,omitempty"`
}

// PortSpec is one published or exposed port. A range in the file has already
// been expanded.
type PortSpec struct {
	Protocol  string `json:"protocol"`            // "tcp" or "udp"
	Target    uint16 `json:"target"`              // in the container
	Published uint16 `json:"published,omitempty"` // on the host; 0: the kernel chooses
	HostIP    string `json:"host_ip,omitempty"`   // "": every address
}

// MountKind says where a mount's content comes from.
type MountKind string

// The kinds of mount.
const (
	MountBind   MountKind = "bind"   // Source is a path on the host
	MountVolume MountKind = "volume" // Source is a key of ProjectSpec.Volumes, or "" for an anonymous volume
	MountTmpfs  MountKind = "tmpfs"
	MountFile   MountKind = "file" // a secret or config: Source is a host path, or Content is set
)

// MountSpec is one mount of a service.
type MountSpec struct {
	Kind           MountKind `json:"kind"`
	Source         string    `json:"source,omitempty"`
	Target         string    `json:"target"` // absolute path in the container
	ReadOnly       bool      `json:"read_only,omitempty"`
	SizeBytes      int64     `json:"size_bytes,omitempty"` // tmpfs
	Mode           uint32    `json:"mode,omitempty"`       // tmpfs, file
	UID            string    `json:"uid,omitempty"`        // file, tmpfs
	GID            string    `json:"gid,omitempty"`        // file, tmpfs
	Content        []byte    `json:"content,omitempty"`    // file given inline or by environment
	Secret         bool      `json:"secret,omitempty"`     // kept off disk
	Name           string    `json:"name,omitempty"`       // file: its key in the file's secrets or configs
	FromEnv        string    `json:"from_env,omitempty"`   // file: the variable that Content came from
	Options        []string  `json:"options,omitempty"`    // tmpfs: further mount options, such as "exec"
	CreateHostPath bool      `json:"create_host_path,omitempty"`
	Propagation    string    `json:"propagation,omitempty"`
	NoCopy         bool      `json:"no_copy,omitempty"` // volume: do not fill from the image
	Subpath        string    `json:"subpath,omitempty"`
}

// NetworkMode is compose's network_mode.
type NetworkMode string

// The network modes. NetworkService and NetworkContainer carry a name after
// the colon.
const (
	NetworkBridge NetworkMode = ""
	NetworkNone   NetworkMode = "none"
	NetworkHost   NetworkMode = "host" // such a service does not sleep
)

// NetworkAttachment joins a service to a network of its project.
type NetworkAttachment struct {
	Network string   `json:"network"` // key of ProjectSpec.Networks
	Aliases []string `json:"aliases,omitempty"`
	IPv4    string   `json:"ipv4,omitempty"`
	IPv6    string   `json:"ipv6,omitempty"`
	MAC     string   `json:"mac,omitempty"`
}

// DeviceSpec passes a device of the host into the container.
type DeviceSpec struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // some of "rwm"
}

// Ulimit is one resource limit; -1 is unlimited.
type Ulimit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// Resources are a service's limits; zero means none.
type Resources struct {
	MemoryBytes            int64   `json:"memory_bytes,omitempty"`
	MemoryReservationBytes int64   `json:"memory_reservation_bytes,omitempty"`
	MemorySwapBytes        int64   `json:"memory_swap_bytes,omitempty"` // memory plus swap; -1 unlimited
	CPUs                   float64 `json:"cpus,omitempty"`
	CPUShares              int64   `json:"cpu_shares,omitempty"`
	CPUSet                 string  `json:"cpuset,omitempty"`
	PidsMax                int64   `json:"pids_max,omitempty"`
}

// DependencyCondition says what a dependency must have reached.
type DependencyCondition string

// The conditions of depends_on.
const (
	DependsStarted   DependencyCondition = "service_started"
	DependsHealthy   DependencyCondition = "service_healthy"
	DependsCompleted DependencyCondition = "service_completed_successfully"
)

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   ServiceName         `json:"service"`
	Condition DependencyCondition `json:"condition"`
	Restart   bool                `json:"restart,omitempty"`
	Required  bool                `json:"required"`
}

// Healthcheck is compose's healthcheck; nil in a ServiceSpec means the image's.
type Healthcheck struct {
	Disable       bool          `json:"disable,omitempty"`
	Test          []string      `json:"test,omitempty"` // ["CMD", ...], ["CMD-SHELL", line]; empty: the image's, with the times here
	Interval      time.Duration `json:"interval_ns,omitempty"`
	Timeout       time.Duration `json:"timeout_ns,omitempty"`
	StartPeriod   time.Duration `json:"start_period_ns,omitempty"`
	StartInterval time.Duration `json:"start_interval_ns,omitempty"`
	Retries       int           `json:"retries,omitempty"`
}

// RestartPolicy is compose's restart, or deploy.restart_policy.
type RestartPolicy struct {
	Mode       RestartMode   `json:"mode"`
	MaxRetries int           `json:"max_retries,omitempty"` // 0: no bound
	Delay      time.Duration `json:"delay_ns,omitempty"`
}

// RestartMode says after which exits a service is started again.
type RestartMode string

// The restart modes.
const (
	RestartNo            RestartMode = "no"
	RestartAlways        RestartMode = "always"
	RestartOnFailure     RestartMode = "on-failure"
	RestartUnlessStopped RestartMode = "unless-stopped"
)
