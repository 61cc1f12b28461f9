package keeper

import (
	"net/netip"
	"time"

	"torpor/host"
)

// Target is what the daemon says about one container when it hands it to the
// keeper. It is kept on disk beside the checkpoint, so that a restarted keeper
// finds it again.
type Target struct {
	ID            host.ContainerID      `json:"id"`
	Project       host.ProjectName      `json:"project"`
	Service       host.ServiceName      `json:"service"`
	InitPID       int                   `json:"init_pid"` // host pid of the container's init
	RunDir        string                `json:"run_dir"`  // FIFOs stdout, stderr, exit; init.sock
	CheckpointDir string                `json:"checkpoint_dir"`
	LogPath       string                `json:"log_path"`
	SleepAfter    time.Duration         `json:"sleep_after_ns"` // 0: never by itself
	Verify        bool                  `json:"verify,omitempty"`
	Connections   host.ConnectionPolicy `json:"connections,omitempty"`
	Kept          int                   `json:"kept,omitempty"` // descriptors init keeps for good; with TTY the first is the terminal's master
	TTY           bool                  `json:"tty,omitempty"`
	NoSleepReason string                `json:"no_sleep_reason,omitempty"` // why it must not sleep at all
}

// Status is what the keeper knows about one container.
type Status struct {
	ID      host.ContainerID `json:"id"`
	State   host.State       `json:"state"` // Awake, Sleeping, Asleep, Waking or Exited
	MainPID int              `json:"main_pid,omitempty"`
	Reason  string           `json:"reason,omitempty"` // why it is awake and stays so, or why it ended
	Since   time.Time        `json:"since"`            // of State

	Exited   bool `json:"exited,omitempty"`
	ExitCode int  `json:"exit_code,omitempty"` // 128 + signal for a signal; or ColdExitCode

	Cycles          int   `json:"cycles"` // completed sleeps
	ReturnedBytes   int64 `json:"returned_bytes,omitempty"`
	ConnectionsHeld int   `json:"connections_held,omitempty"`
	// ConnectionsSuspended are those of ConnectionsHeld that have no socket;
	// ConnectionsParkedWhy says why the others could not be suspended.
	ConnectionsSuspended int    `json:"connections_suspended,omitempty"`
	ConnectionsParkedWhy string `json:"connections_parked_why,omitempty"`

	LastWake       time.Duration `json:"last_wake_ns,omitempty"`
	LastSleep      time.Duration `json:"last_sleep_ns,omitempty"`
	LastWakeReason string        `json:"last_wake_reason,omitempty"`

	LastWakePhases map[string]time.Duration `json:"last_wake_phases_ns,omitempty"`
}

// SleepReport says what a sleep did and where its time went.
type SleepReport struct {
	Duration      time.Duration            `json:"duration_ns"`
	WrittenBytes  int64                    `json:"written_bytes"`
	ReturnedBytes int64                    `json:"returned_bytes"` // resident memory before the kill
	Processes     int                      `json:"processes"`
	Threads       int                      `json:"threads"`
	Descriptors   int                      `json:"descriptors"` // parked
	Connections   int                      `json:"connections"` // established, of them
	Phases        map[string]time.Duration `json:"phases_ns"`
}

// WakeReport says what a wake did and where its time went.
type WakeReport struct {
	Already  bool                     `json:"already,omitempty"` // it was awake
	Duration time.Duration            `json:"duration_ns"`       // trigger to running
	Reason   string                   `json:"reason"`
	Phases   map[string]time.Duration `json:"phases_ns"`
}

// SocketReport is what is known of a container's connections.
type SocketReport struct {
	Reasons     []string     `json:"reasons,omitempty"` // of the service, in words
	Connections []Connection `json:"connections,omitempty"`
}

// ConnectionState is how a connection is kept.
type ConnectionState string

// The states of connections.
const (
	ConnectionAwake     ConnectionState = "awake"     // the service has its socket
	ConnectionParked    ConnectionState = "parked"    // the service's init has it
	ConnectionSuspended ConnectionState = "suspended" // there is a record and no socket
)

// Connection is one of TCP, with the reason why it is kept so, or, of a service
// that is awake, what is known of it.
type Connection struct {
	Local  netip.AddrPort  `json:"local"`
	Remote netip.AddrPort  `json:"remote"`
	State  ConnectionState `json:"state"`
	Idle   time.Duration   `json:"idle_ns"` // since data was last received or sent
	Why    string          `json:"why,omitempty"`
}

// ColdExitCode is the exit code of a service whose checkpoint can not be
// restored, and which has to start from nothing. No program ends with it.
const ColdExitCode = 256
