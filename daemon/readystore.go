package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"torpor/checkpoint"
	"torpor/checkpoint/files"
	"torpor/container"
	"torpor/host"
	"torpor/image"
	"torpor/keeper"
	"torpor/kernel/inet"
)

// Ready checkpoints lie in STATE/ready/PROJECT/SERVICE: one a service, for all
// of its instances. They outlive the containers, as images do.

func (c *Config) readyDir(p host.ProjectName, s host.ServiceName) string {
	return filepath.Join(c.StateDir, "ready", string(p), string(s))
}

// dropReady forgets a service's ready checkpoint. Containers that run from it
// keep its pages.
func (c *Config) dropReady(p host.ProjectName, s host.ServiceName) error {
	if err := os.RemoveAll(c.readyDir(p, s)); err != nil {
		return fmt.Errorf("remove ready checkpoint: %w", err)
	}
	_ = os.Remove(filepath.Dir(c.readyDir(p, s))) // has others
	return nil
}

// keyPath is this machine's key, which seals its checkpoints.
func (c *Config) keyPath() string { return filepath.Join(c.StateDir, "key") }

// readySubject is what a ready checkpoint is one of: any difference makes it
// one of something else.
type readySubject struct {
	Hash   string            `json:"hash"` // of the service's configuration
	Image  image.ID          `json:"image,omitempty"`
	RootFS string            `json:"rootfs,omitempty"`
	Files  map[string]string `json:"files,omitempty"` // digests of secrets and configs, by target
}

// disposable are the directories of a writable layer whose content a program
// that starts must not rely on, by the Filesystem Hierarchy Standard.
var disposable = []string{"tmp", "var/tmp", "run", "var/run", "var/log", "var/cache"}

// ready describes a container for a ready checkpoint.
func (b *builder) ready(ctx context.Context, r *Record) (keeper.ReadyRequest, error) {
	request := keeper.ReadyRequest{Dir: b.config.readyDir(r.Spec.Project, r.Spec.Name), KeyPath: b.config.keyPath(), Addresses: addresses(r)}
	for _, p := range slices.Concat(r.Spec.Ports, r.Spec.Expose) {
		request.Ports = append(request.Ports, inet.Port{Protocol: cmp.Or(p.Protocol, "tcp"), Number: p.Target})
	}
	mounts, err := b.mounts(ctx, r)
	if err != nil {
		return request, err
	}
	subject := readySubject{Hash: r.Hash, Image: r.Image.ID, RootFS: r.Spec.Torpor.RootFS, Files: map[string]string{}}
	request.Beside = append(b.layers(r), b.outside(r, mounts)...)
	for _, m := range mounts {
		if !b.given(m) {
			continue
		}
		if subject.Files[m.Target], err = digestFile(m.Source); err != nil {
			return request, err
		}
	}
	request.Subject, err = json.Marshal(subject)
	return request, err
}

func addresses(r *Record) []netip.Addr {
	var all []netip.Addr
	for _, a := range r.Attachments {
		all = append(all, a.Address)
	}
	return all
}

// layers are the trees that each container has for itself.
func (b *builder) layers(r *Record) []files.Tree {
	all := []files.Tree{{Target: "/", Path: b.upper(r), Layer: true, Disposable: disposable}}
	if r.Spec.IPCMode != "host" {
		all = append(all, files.Tree{Target: "/dev/shm", Layer: true, Memory: true})
	}
	for _, m := range r.Spec.Mounts {
		if m.Kind == host.MountTmpfs {
			all = append(all, files.Tree{Target: filepath.Clean(m.Target), Layer: true, Memory: true})
		}
	}
	return all
}

// outside are the mounts whose files are not the container's own.
func (b *builder) outside(r *Record, mounts []container.BindMount) []files.Tree {
	var all []files.Tree
	for _, m := range mounts {
		if !b.given(m) && !strings.HasPrefix(m.Source, b.etcDir(r)+"/") {
			all = append(all, files.Tree{Target: filepath.Clean(m.Target), Path: m.Source})
		}
	}
	slices.SortFunc(all, func(x, y files.Tree) int { return strings.Compare(x.Target, y.Target) })
	return all
}

// given reports whether a mount is a file that is written anew for each start.
func (b *builder) given(m container.BindMount) bool {
	return strings.HasPrefix(m.Source, b.secrets.dir+"/")
}

func digestFile(path string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("digest file: %w", err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]), nil
}

// unusable says why a ready checkpoint is not restored.
type unusable struct {
	reason  string
	outdone bool // by files that were changed since
}

func (u *unusable) Error() string { return u.reason }

// usable reads the service's ready checkpoint and checks that the container is
// one that it fits. Errors: host.ErrNotFound when there is none; *unusable.
func (b *builder) usable(r *Record, request *keeper.ReadyRequest) (*checkpoint.Spec, error) {
	key, err := checkpoint.OpenKey(request.KeyPath)
	if err != nil {
		return nil, err
	}
	spec, err := checkpoint.ReadReady(request.Dir, key)
	if errors.Is(err, host.ErrNotFound) {
		return nil, err
	}
	if err != nil {
		return nil, &unusable{reason: err.Error()}
	}
	if reason := differs(spec.Ready.Subject, request.Subject); reason != "" {
		return nil, &unusable{reason: reason}
	}
	where, err := files.Compare(spec.Ready.Beside, request.Beside)
	if err != nil {
		return nil, &unusable{reason: err.Error()}
	}
	if where != "" {
		return nil, &unusable{"files were changed in " + where, true}
	}
	return spec, nil
}

// differs says what of a container is not as it was.
func differs(was, is json.RawMessage) string {
	var a, b readySubject
	if err := errors.Join(json.Unmarshal(was, &a), json.Unmarshal(is, &b)); err != nil {
		return "it does not say what it is of"
	}
	switch {
	case a.Image != b.Image || a.RootFS != b.RootFS:
		return "the image is another one"
	case a.Hash != b.Hash:
		return "the configuration was changed"
	}
	for target, digest := range b.Files {
		if a.Files[target] != digest {
			return "the content of " + target + " was changed"
		}
	}
	return ""
}

// MakeFromReady implements containers.
func (b *builder) MakeFromReady(ctx context.Context, r *Record) (int, error) {
	request, err := b.ready(ctx, r)
	if err != nil {
		return 0, err
	}
	spec, err := b.usable(r, &request)
	if err != nil {
		return 0, err
	}
	r.ColdStart, r.Shared = spec.Ready.ColdStart, spec.Ready.Shared()
	if r.prefersCold(r.ColdStart) {
		return 0, errColdIsFaster
	}
	init, err := b.makeEmpty(ctx, r, spec, request.Dir)
	if err != nil {
		return 0, err
	}
	return init, b.restore(ctx, r, &request)
}

// makeEmpty makes a container for a restore: with the checkpoint's writable
// layer, and without processes.
func (b *builder) makeEmpty(ctx context.Context, r *Record, spec *checkpoint.Spec, dir string) (int, error) {
	if err := b.Clear(ctx, r); err != nil {
		return 0, err
	}
	for i := range spec.Ready.Beside {
		if record := &spec.Ready.Beside[i]; record.Layer && !record.Memory {
			if err := record.Give(dir, b.upper(r)); err != nil {
				return 0, err
			}
		}
	}
	return b.make(ctx, r, nil)
}

// restore fills an empty container and then lets clients in.
func (b *builder) restore(ctx context.Context, r *Record, request *keeper.ReadyRequest) error {
	client, err := b.keeper.dial(ctx)
	if err != nil {
		return err
	}
	if _, err := client.Restore(ctx, r.ID, request.Restore()); err != nil {
		return &unusable{reason: err.Error()}
	}
	return b.publish(r)
}

// MakeSpare implements containers.
func (b *builder) MakeSpare(ctx context.Context, r *Record) (int, error) {
	request, err := b.ready(ctx, r)
	if err != nil {
		return 0, err
	}
	spec, err := b.usable(r, &request)
	if err != nil {
		return 0, err
	}
	init, err := b.makeEmpty(ctx, r, spec, request.Dir)
	if err != nil {
		return 0, err
	}
	client, err := b.keeper.dial(ctx)
	if err != nil {
		return 0, err
	}
	return init, client.Arm(ctx, r.ID, request.Restore())
}

// FillSpare implements containers.
func (b *builder) FillSpare(ctx context.Context, r *Record) error {
	if err := b.Reserve(r); err != nil { // now it has all names
		return err
	}
	request, err := b.ready(ctx, r)
	if err != nil {
		return err
	}
	spec, err := b.usable(r, &request)
	if err != nil {
		return err
	}
	r.ColdStart, r.Shared = spec.Ready.ColdStart, spec.Ready.Shared()
	return b.restore(ctx, r, &request)
}

// HasReady implements containers.
func (b *builder) HasReady(r *Record) error {
	request, err := b.ready(context.Background(), r)
	if err == nil {
		_, err = b.usable(r, &request)
	}
	return err
}

// errColdIsFaster says that a service starts cold by choice.
var errColdIsFaster = errors.New("a cold start is faster")

// MakeReady implements containers.
func (b *builder) MakeReady(ctx context.Context, r *Record, o ReadyOptions) (keeper.ReadyReport, error) {
	request, err := b.ready(ctx, r)
	if err != nil {
		return keeper.ReadyReport{}, err
	}
	request.Healthy, request.Look, request.ColdStart = o.Healthy, o.Look, o.ColdStart
	if err := os.MkdirAll(filepath.Dir(request.Dir), 0o700); err != nil {
		return keeper.ReadyReport{}, fmt.Errorf("make directory of ready checkpoints: %w", err)
	}
	client, err := b.keeper.dial(ctx)
	if err != nil {
		return keeper.ReadyReport{}, err
	}
	return client.MakeReady(ctx, r.ID, request)
}

// Open implements containers.
func (b *builder) Open(r *Record) error {
	if r.Spec.NetworkMode == host.NetworkHost {
		return nil
	}
	return b.network.OpenGate(r.ID)
}
