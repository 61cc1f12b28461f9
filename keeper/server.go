package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"torpor/host"
	"torpor/wire"
)

// targetName is the file, in a checkpoint directory, that holds the Target.
const targetName = "target.json"

// Config says where a keeper works.
type Config struct {
	Socket   string // path of its Unix socket
	StateDir string // services are found in StateDir/services/*/checkpoint
}

// Server is a running keeper.
type Server struct {
	config  Config
	tracers *tracers
	events  *wire.Broadcast
	http    *http.Server

	mu       sync.Mutex
	services map[host.ContainerID]*service
}

// NewServer finds the services that an earlier keeper left and cares for them.
// Those that can not be found again are reported as events to the first
// watcher and otherwise left alone.
func NewServer(config Config) (*Server, error) {
	s := &Server{config: config, tracers: newTracers(), events: wire.NewBroadcast(), services: map[host.ContainerID]*service{}}
	files, err := filepath.Glob(filepath.Join(config.StateDir, "services", "*", "checkpoint", targetName))
	if err != nil {
		return nil, fmt.Errorf("find services: %w", err)
	}
	for _, file := range files {
		if err := s.adoptFile(file); err != nil {
			s.events.Send(host.Event{Time: time.Now(), Type: host.EventError, Reason: fmt.Sprintf("adopt %s: %v", file, err)})
		}
	}
	return s, nil
}

func (s *Server) adoptFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var target Target
	if err := json.Unmarshal(b, &target); err != nil {
		return fmt.Errorf("load target: %w: %w", err, host.ErrCorrupt)
	}
	return s.adopt(context.Background(), target)
}

// Serve answers on the socket until the context ends. Services are left as
// they are.
func (s *Server) Serve(ctx context.Context) error {
	// The daemon starts a keeper only when none answers.
	listener, err := wire.Listen(s.config.Socket)
	if err != nil {
		return err
	}
	s.http = &http.Server{Handler: s.routes(), BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	err = s.http.Serve(listener)
	s.close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, service := range s.services {
		service.stop()
	}
	s.tracers.close()
	s.events.Close()
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/adopt", func(w http.ResponseWriter, r *http.Request) {
		var target Target
		if err := json.NewDecoder(r.Body).Decode(&target); err != nil {
			wire.Answer(w, nil, fmt.Errorf("decode target: %w: %w", err, host.ErrInvalid))
			return
		}
		wire.Answer(w, nil, s.adopt(r.Context(), target))
	})
	mux.HandleFunc("POST /v1/{id}/forget", func(w http.ResponseWriter, r *http.Request) {
		wire.Answer(w, nil, s.forget(r.Context(), host.ContainerID(r.PathValue("id"))))
	})
	mux.HandleFunc("POST /v1/{id}/sleep", s.on(func(svc *service, _ *http.Request) (any, error) { return svc.sleep() }))
	mux.HandleFunc("POST /v1/{id}/wake", s.on(func(svc *service, r *http.Request) (any, error) { return svc.wake(r.URL.Query().Get("reason")) }))
	mux.HandleFunc("POST /v1/{id}/ready", s.on(decoded((*service).makeReady)))
	mux.HandleFunc("POST /v1/{id}/arm", s.on(decoded((*service).armReady)))
	mux.HandleFunc("POST /v1/{id}/restore", s.on(decoded((*service).restoreReady)))
	mux.HandleFunc("POST /v1/{id}/activity", s.on(func(svc *service, _ *http.Request) (any, error) {
		svc.idle.active(time.Now(), "used by a command")
		return nil, nil
	}))
	mux.HandleFunc("POST /v1/{id}/probe", s.on(func(svc *service, r *http.Request) (any, error) { return svc.beginProbe(r.URL.Query().Get("limit")) }))
	mux.HandleFunc("POST /v1/{id}/probed", s.on(func(svc *service, _ *http.Request) (any, error) { return nil, svc.endProbe() }))
	mux.HandleFunc("GET /v1/{id}/sockets", s.on(func(svc *service, r *http.Request) (any, error) { return svc.sockets(r.URL.Query().Has("brief")) }))
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { wire.Answer(w, s.Status(), nil) })
	mux.Handle("GET /v1/events", s.events)
	return mux
}

// on runs f on the goroutine of the service that the request names.
func (s *Server) on(f func(*service, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		svc := s.find(host.ContainerID(r.PathValue("id")))
		if svc == nil {
			wire.Answer(w, nil, fmt.Errorf("reach %s: %w", r.PathValue("id"), host.ErrNotFound))
			return
		}
		var result any
		var failed error
		if err := svc.do(r.Context(), func() { result, failed = f(svc, r) }); err != nil {
			failed = err
		}
		wire.Answer(w, result, failed)
	}
}

func (s *Server) find(id host.ContainerID) *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[id]
}

// adopt begins to care for a container. One that is cared for already, with
// the same init, is only told its new settings.
func (s *Server) adopt(ctx context.Context, target Target) error {
	if err := target.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	old := s.services[target.ID]
	s.mu.Unlock()
	if old != nil {
		if old.target.InitPID == target.InitPID {
			return old.do(ctx, func() { old.retarget(target) })
		}
		if err := s.forget(ctx, target.ID); err != nil {
			return err
		}
	}
	if err := errors.Join(target.dropOther(), target.save()); err != nil {
		return err
	}
	svc, err := startService(target, s.tracers, s.events.Send)
	if err != nil {
		return fmt.Errorf("adopt %s: %w", target.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[target.ID] = svc
	return nil
}

func (t *Target) validate() error {
	if t.ID == "" || strings.ContainsRune(string(t.ID), '/') || t.InitPID <= 1 || t.RunDir == "" || t.CheckpointDir == "" || t.LogPath == "" {
		return fmt.Errorf("adopt %q: target is incomplete: %w", t.ID, host.ErrInvalid)
	}
	return nil
}

// dropOther drops the checkpoint of an earlier container of the same name, which
// ended while no keeper cared for it: what it needs is gone.
func (t *Target) dropOther() error {
	b, err := os.ReadFile(filepath.Join(t.CheckpointDir, targetName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop old checkpoint: %w", err)
	}
	var saved Target
	if err := json.Unmarshal(b, &saved); err != nil || saved.InitPID == t.InitPID {
		return nil
	}
	return (&service{target: *t}).dropCheckpoint()
}

func (t *Target) save() error {
	if err := os.MkdirAll(t.CheckpointDir, 0o700); err != nil {
		return fmt.Errorf("save target: %w", err)
	}
	b, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("save target: %w", err)
	}
	path := filepath.Join(t.CheckpointDir, targetName)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("save target: %w", err)
	}
	return os.Rename(path+".new", path)
}

// forget ends the care for a container and drops its checkpoint. Forgetting
// one that is not known is not an error.
func (s *Server) forget(ctx context.Context, id host.ContainerID) error {
	s.mu.Lock()
	svc := s.services[id]
	delete(s.services, id)
	s.mu.Unlock()
	if svc == nil {
		return nil
	}
	var failed error
	err := svc.do(ctx, func() { failed = svc.forget() })
	svc.stop()
	return errors.Join(err, failed)
}

// Status returns what is known of all containers, by id.
func (s *Server) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []Status{}
	for _, svc := range s.services {
		all = append(all, svc.snapshot())
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}
