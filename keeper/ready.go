package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"torpor/checkpoint"
	"torpor/checkpoint/files"
	"torpor/host"
	"torpor/kernel/inet"
	"torpor/kernel/tree"
)

// ReadyRequest asks for a ready checkpoint of a service that has just started.
type ReadyRequest struct {
	Dir       string          `json:"dir"`               // of the checkpoint
	KeyPath   string          `json:"key_path"`          // of this machine's key
	Ports     []inet.Port     `json:"ports,omitempty"`   // on which it listens when it is ready; none: any
	Healthy   bool            `json:"healthy,omitempty"` // its healthcheck has passed, so it need not listen
	Look      bool            `json:"look,omitempty"`    // only look whether it is ready
	ColdStart time.Duration   `json:"cold_start_ns,omitempty"`
	Addresses []netip.Addr    `json:"addresses,omitempty"`
	Beside    []files.Tree    `json:"beside,omitempty"` // those in memory are looked up in the container
	Subject   json.RawMessage `json:"subject,omitempty"`
}

// ReadyReport says what became of a ReadyRequest.
type ReadyReport struct {
	Waiting      string                   `json:"waiting,omitempty"` // why there is no checkpoint yet: ask again
	WrittenBytes int64                    `json:"written_bytes"`
	Reset        []string                 `json:"reset,omitempty"`  // peers whose connections a restore loses
	Shared       []string                 `json:"shared,omitempty"` // random state that all restores have in common
	Paused       time.Duration            `json:"paused_ns"`        // how long the service was stopped
	Phases       map[string]time.Duration `json:"phases_ns"`
}

// RestoreRequest asks for the restore of a ready checkpoint in a container
// whose init has started no application.
type RestoreRequest struct {
	Dir       string       `json:"dir"`
	KeyPath   string       `json:"key_path"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
}

// RestoreReport says where the time of a restore went.
type RestoreReport struct {
	Duration time.Duration            `json:"duration_ns"`
	Phases   map[string]time.Duration `json:"phases_ns"`
}

// MakeReady makes a ready checkpoint, if the service is ready and quiet now. A
// *host.Refusal says why there can be none.
func (c *Client) MakeReady(ctx context.Context, id host.ContainerID, r ReadyRequest) (ReadyReport, error) {
	var report ReadyReport
	err := c.wire.Call(ctx, http.MethodPost, path(id, "ready"), r, &report)
	return report, err
}

// Restore is what restores the checkpoint that the request asks for.
func (r *ReadyRequest) Restore() RestoreRequest {
	return RestoreRequest{Dir: r.Dir, KeyPath: r.KeyPath, Addresses: r.Addresses}
}

// Arm does all of a Restore that can be done before: the next Restore of the
// same checkpoint only runs its script.
func (c *Client) Arm(ctx context.Context, id host.ContainerID, r RestoreRequest) error {
	return c.wire.Call(ctx, http.MethodPost, path(id, "arm"), r, nil)
}

// Restore restores a ready checkpoint. On an error the container has no
// processes but its init and is of no use any more.
func (c *Client) Restore(ctx context.Context, id host.ContainerID, r RestoreRequest) (RestoreReport, error) {
	var report RestoreReport
	err := c.wire.Call(ctx, http.MethodPost, path(id, "restore"), r, &report)
	return report, err
}

// decoded runs f with the request's body.
func decoded[R any](f func(*service, R) (any, error)) func(*service, *http.Request) (any, error) {
	return func(s *service, r *http.Request) (any, error) {
		var request R
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			return nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid)
		}
		return f(s, request)
	}
}

// readyTries bounds the wait for a quiet moment in one request.
const readyTries = 20

// makeReady runs on the service's goroutine, so it neither sleeps nor wakes
// meanwhile.
func (s *service) makeReady(r ReadyRequest) (any, error) {
	if s.snapshot().State == host.Asleep { // it is slow, or has done nothing while nobody was let in
		if _, err := s.wake("its ready checkpoint"); err != nil {
			return nil, err
		}
	}
	if st := s.snapshot(); st.State != host.Awake || st.MainPID == 0 {
		return &ReadyReport{Waiting: "it is " + string(st.State)}, nil
	}
	if waiting, err := s.notListening(r); waiting != "" || err != nil || r.Look {
		return &ReadyReport{Waiting: waiting}, err
	}
	key, err := checkpoint.OpenKey(r.KeyPath)
	if err != nil {
		return nil, err
	}
	beside, closeAll, err := s.inContainer(r.Beside)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	o := checkpoint.ReadyOptions{Dir: r.Dir, Key: key, Holder: s.holder, List: s.list(), Own: s.target.CheckpointDir,
		Addresses: r.Addresses, Beside: beside, Subject: r.Subject, ColdStart: r.ColdStart, Verify: s.target.Verify}
	d, err := tryQuiet(o.List, readyTries, func() (*checkpoint.DumpReport, error) { return checkpoint.DumpReady(o) })
	if errors.Is(err, checkpoint.ErrBusy) {
		return &ReadyReport{Waiting: err.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	ready := d.Spec.Ready
	report := &ReadyReport{WrittenBytes: d.WrittenBytes, Phases: d.Phases, Reset: ready.ResetPeers(), Shared: ready.Shared()}
	for _, phase := range []string{"freeze", "quiet", "collect", "slots", "write", "objects", "random", "files"} {
		report.Paused += d.Phases[phase]
	}
	return report, nil
}

// notListening says which port the service does not listen on yet. One that
// has a healthcheck, which passed, need not listen.
func (s *service) notListening(r ReadyRequest) (string, error) {
	ports, err := inet.Listening(s.target.InitPID)
	if err != nil {
		return "", err
	}
	for _, port := range r.Ports {
		if !slices.Contains(ports, port) {
			return fmt.Sprintf("it does not listen on port %d/%s", port.Number, port.Protocol), nil
		}
	}
	if len(ports) == 0 && !r.Healthy {
		return "it does not listen on any port", nil
	}
	return "", nil
}

// inContainer opens the trees that are in the container's memory.
func (s *service) inContainer(trees []files.Tree) ([]files.Tree, func(), error) {
	trees = slices.Clone(trees)
	var opened []*os.File
	closeAll := func() {
		for _, f := range opened {
			f.Close()
		}
	}
	for i := range trees {
		t := &trees[i]
		if !t.Memory {
			continue
		}
		f, err := s.openInRoot(t.Target)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		opened = append(opened, f)
		t.Path = descriptorPath(f)
	}
	return trees, closeAll, nil
}

func (s *service) openInRoot(target string) (*os.File, error) {
	return tree.OpenInRoot(fmt.Sprintf("/proc/%d/root", s.target.InitPID), target)
}

// descriptorPath is a path that leads to an open file of this process.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/.", f.Fd()) }

// restoreReady runs on the service's goroutine.
func (s *service) restoreReady(r RestoreRequest) (any, error) {
	begun := time.Now()
	if st := s.snapshot(); st.State != host.Awake || s.mainPID() != 0 {
		return nil, fmt.Errorf("restore %s: it has processes: %w", s.target.ID, host.ErrExists)
	}
	s.set(func(st *Status) { st.State = host.Waking })
	report, err := s.restoreFrom(r)
	if err != nil {
		return nil, errors.Join(err, s.abandonRestore())
	}
	took := time.Since(begun)
	s.set(func(st *Status) {
		st.State, st.Since, st.MainPID, st.Reason = host.Awake, time.Now(), report.PIDs[0], ""
	})
	s.idle.reset()
	return &RestoreReport{Duration: took, Phases: report.Phases}, nil
}

// armReady runs on the service's goroutine.
func (s *service) armReady(r RestoreRequest) (any, error) {
	if st := s.snapshot(); st.State != host.Awake || s.mainPID() != 0 {
		return nil, fmt.Errorf("arm %s: it has processes: %w", s.target.ID, host.ErrExists)
	}
	spec, err := readReady(r)
	if err != nil {
		return nil, err
	}
	s.stub, err = s.stubFor(r, spec)
	return nil, err
}

func readReady(r RestoreRequest) (*checkpoint.Spec, error) {
	key, err := checkpoint.OpenKey(r.KeyPath)
	if err != nil {
		return nil, err
	}
	return checkpoint.ReadReady(r.Dir, key)
}

// stubFor makes a stub of a ready checkpoint, in a container without any.
func (s *service) stubFor(r RestoreRequest, spec *checkpoint.Spec) (*checkpoint.Stub, error) {
	if _, err := s.livePIDs(); err != nil { // ends stubs of an earlier keeper
		return nil, err
	}
	if err := s.giveMemory(r.Dir, spec.Ready.Beside); err != nil {
		return nil, err
	}
	return checkpoint.ArmReady(r.Dir, spec, s.target.CheckpointDir, r.Addresses,
		checkpoint.ArmOptions{Holder: s.holder, Join: s.target.InitPID, AddToCgroups: s.cgroups.Add})
}

// takeStub returns a stub of the checkpoint: the one that waits, if there is
// one of this checkpoint.
func (s *service) takeStub(r RestoreRequest, spec *checkpoint.Spec) (*checkpoint.Stub, error) {
	stub := s.stub
	s.stub = nil
	if stub != nil && stub.Spec.Created.Equal(spec.Created) {
		return stub, nil
	}
	if stub != nil {
		if err := stub.Kill(); err != nil {
			return nil, err
		}
	}
	return s.stubFor(r, spec)
}

func (s *service) restoreFrom(r RestoreRequest) (*checkpoint.RestoreReport, error) {
	begun := time.Now()
	spec, err := readReady(r)
	if err != nil {
		return nil, err
	}
	read := time.Since(begun)
	stub, err := s.takeStub(r, spec)
	if err != nil {
		return nil, err
	}
	armed := time.Since(begun) - read
	tracer := s.tracers.take()
	defer s.tracers.put(tracer)
	report, err := stub.Restore(tracer, checkpoint.RestoreOptions{})
	if err != nil {
		return nil, err
	}
	report.Phases["read"], report.Phases["arm"] = read, armed
	if err := s.holder.Release(); err != nil {
		s.event(host.EventError, "release parked descriptors: "+err.Error(), nil)
	}
	return report, nil
}

// giveMemory fills the container's file systems in memory.
func (s *service) giveMemory(dir string, records []files.Record) error {
	for i := range records {
		if !records[i].Memory {
			continue
		}
		f, err := s.openInRoot(records[i].Target)
		if err != nil {
			return err
		}
		err = records[i].Give(dir, descriptorPath(f))
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// abandonRestore leaves a container whose restore failed without processes.
func (s *service) abandonRestore() error {
	s.set(func(st *Status) { st.State = host.Exited })
	alive, err := s.livePIDs()
	if err != nil {
		return err
	}
	return killAll(alive)
}

// checkpointFiles are what the keeper has in a service's checkpoint directory.
func (s *service) checkpointFiles() []string {
	dir := s.target.CheckpointDir
	return []string{checkpoint.ImagePath(dir), checkpoint.BasePath(dir), filepath.Join(dir, targetName), filepath.Join(dir, socketImageName)}
}
