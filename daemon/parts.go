package daemon

import (
	"context"
	"time"

	"torpor/container"
	"torpor/host"
	"torpor/keeper"
)

// containers makes and ends the containers of units. The unit's goroutine
// orders what is done to one container. The daemon's own is the builder.
type containers interface {
	// Make makes a container anew, hands it to the keeper and starts its
	// application. It notes published ports in the record and returns the pid
	// of the container's init. After an error the caller clears.
	Make(ctx context.Context, r *Record) (init int, err error)

	// MakeFromReady is Make from the service's ready checkpoint. Errors:
	// host.ErrNotFound when there is none, *unusable with the reason when it
	// does not fit, errColdIsFaster. After an error the caller clears.
	MakeFromReady(ctx context.Context, r *Record) (init int, err error)

	// MakeSpare makes a container that only waits for FillSpare: it has no
	// processes, and nobody is let in. Errors are those of MakeFromReady.
	MakeSpare(ctx context.Context, r *Record) (init int, err error)

	// FillSpare restores the service's ready checkpoint in a container that
	// MakeSpare has made. Errors are those of MakeFromReady.
	FillSpare(ctx context.Context, r *Record) error

	// HasReady says whether MakeFromReady would find a checkpoint for a container
	// like this one. Its errors are the same.
	HasReady(r *Record) error

	// MakeReady makes the service's ready checkpoint of a container that has
	// just been started, if it is ready and quiet.
	MakeReady(ctx context.Context, r *Record, o ReadyOptions) (keeper.ReadyReport, error)

	// Open opens the gate of a container that was made by Make.
	Open(r *Record) error

	// Find returns the pid of a container's init if its application was
	// started, and 0 if there is no container or only half of one.
	Find(ctx context.Context, r *Record) (init int, err error)

	// Adopt hands a running container to the keeper, again.
	Adopt(ctx context.Context, r *Record, init int) error

	// Clear ends what is left of a container, whatever state it is in. Its
	// writable layer, addresses and log stay.
	Clear(ctx context.Context, r *Record) error

	// Release gives back what the container holds elsewhere: addresses,
	// image, secrets. It has been cleared.
	Release(r *Record) error

	// Run runs a command in the container and returns its error.
	Run(ctx context.Context, id host.ContainerID, e container.ExecSpec) error

	// Request posts to a path of an HTTP port in the container, by its loopback.
	Request(ctx context.Context, r *Record, port uint16, path string) error

	// Signal sends a signal by its name to the application.
	Signal(mainPID int, signal string) error
}

// ReadyOptions say how a ready checkpoint is made.
type ReadyOptions struct {
	Healthy   bool          // it has a healthcheck, which passed
	Look      bool          // only look whether it is ready
	ColdStart time.Duration // how long it took to become ready
}

// supplies are what containers are made with.
type supplies interface {
	// Image finds, pulls or builds the image of a service.
	Image(ctx context.Context, p *host.ProjectSpec, spec *host.ServiceSpec, tell func(Progress)) (imageDefaults, error)

	// Reserve gives the container addresses and holds its image.
	Reserve(r *Record) error

	// TakeSecrets moves what a service's secrets hold out of its spec.
	TakeSecrets(id host.ContainerID, spec *host.ServiceSpec) error

	Networks() []string
	RemoveNetwork(name string) error // if nothing is on it
	RemoveVolume(name string) error
	ReleaseVolume(name string) error // unmounts it; one that is only a directory needs none

	// Sweep gives back what containers hold that are not known.
	Sweep(known func(host.ContainerID) bool) error

	// Restore makes the networks again, after a restart of the machine.
	Restore() error

	// WriteHosts brings the names that a container knows up to date.
	WriteHosts(r *Record) error
}

// keepers is what a unit asks of the keeper; *keeper.Client has it.
type keepers interface {
	Status(ctx context.Context) ([]keeper.Status, error)
	Sleep(ctx context.Context, id host.ContainerID) (keeper.SleepReport, error)
	Wake(ctx context.Context, id host.ContainerID, reason string) (keeper.WakeReport, error)
	Activity(ctx context.Context, id host.ContainerID) error
	Sockets(ctx context.Context, id host.ContainerID, brief bool) (keeper.SocketReport, error)
	BeginProbe(ctx context.Context, id host.ContainerID, limit time.Duration) (bool, error)
	EndProbe(ctx context.Context, id host.ContainerID) error
	Watch(ctx context.Context, f func(host.Event)) error
}
