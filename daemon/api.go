package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"torpor/container"
	"torpor/host"
	"torpor/image"
	"torpor/wire"
)

// ExecRequest asks for a command line that runs a command in a container. The
// caller executes it itself, as root, with its own standard streams.
type ExecRequest struct {
	Args       []string `json:"args"`
	Env        []string `json:"env,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
}

func (d *Daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/up", stream(d.up))
	mux.HandleFunc("POST /v1/down", stream(d.down))
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		all, err := d.status(r.Context(), host.ProjectName(query.Get("project")))
		if err == nil && query.Has("connections") {
			d.addConnections(r.Context(), all)
		}
		wire.Answer(w, all, err)
	})
	mux.HandleFunc("GET /v1/services/{id}/sockets", d.sockets)
	mux.HandleFunc("POST /v1/services/{id}/sleep", d.onKeeper(func(ctx context.Context, k keepers, id host.ContainerID) (any, error) {
		return k.Sleep(ctx, id)
	}))
	mux.HandleFunc("POST /v1/services/{id}/wake", d.onKeeper(func(ctx context.Context, k keepers, id host.ContainerID) (any, error) {
		return k.Wake(ctx, id, "torpor wake")
	}))
	mux.HandleFunc("POST /v1/start", stream(d.startAll))
	mux.HandleFunc("POST /v1/stop", stream(d.stopAll))
	mux.HandleFunc("POST /v1/restart", stream(d.restartAll))
	mux.HandleFunc("POST /v1/remove", stream(d.removeAll))
	mux.HandleFunc("POST /v1/clone", stream(d.clone))
	mux.HandleFunc("POST /v1/services/{id}/exec", d.exec)
	mux.HandleFunc("GET /v1/logs", d.logs)
	mux.HandleFunc("GET /v1/events", d.streamEvents)
	mux.HandleFunc("GET /v1/images", func(w http.ResponseWriter, _ *http.Request) { wire.Answer(w, d.images.List(), nil) })
	mux.HandleFunc("POST /v1/images/pull", stream(d.pullImage))
	mux.HandleFunc("POST /v1/images/import", stream(d.importImages))
	mux.HandleFunc("POST /v1/images/remove", func(w http.ResponseWriter, r *http.Request) {
		var request ImageRequest
		err := json.NewDecoder(r.Body).Decode(&request)
		if err == nil {
			err = d.images.Remove(request.Name, request.Force)
		}
		wire.Answer(w, nil, err)
	})
	mux.HandleFunc("GET /v1/checkpoints", func(w http.ResponseWriter, r *http.Request) {
		all, err := d.checkpoints(r.Context())
		wire.Answer(w, all, err)
	})
	mux.HandleFunc("POST /v1/checkpoints/remove", onCheckpoint(d.removeCheckpoint))
	mux.HandleFunc("POST /v1/checkpoints/check", onCheckpoint(d.checkCheckpoint))
	d.volumeRoutes(mux)
	mux.HandleFunc("GET /v1/ping", func(w http.ResponseWriter, _ *http.Request) { wire.Answer(w, "torpor", nil) })
	return mux
}

// ImageRequest names an image, or the path of an archive.
type ImageRequest struct {
	Name     string `json:"name,omitempty"`
	Path     string `json:"path,omitempty"`
	Platform string `json:"platform,omitempty"`
	Force    bool   `json:"force,omitempty"`
}

func (d *Daemon) pullImage(ctx context.Context, r ImageRequest, tell func(Progress)) error {
	img, err := d.images.Pull(ctx, r.Name, image.PullOptions{Platform: r.Platform, Policy: host.PullAlways, Progress: tellOf(r.Name, tell)})
	if err != nil {
		return err
	}
	tell(Progress{Subject: r.Name, What: "pulled", Detail: string(img.ID)})
	d.events.send(host.Event{Time: time.Now(), Type: host.EventPull, Reason: r.Name})
	return nil
}

func (d *Daemon) importImages(ctx context.Context, r ImageRequest, tell func(Progress)) error {
	images, err := d.images.Import(ctx, r.Path, image.ImportOptions{Name: r.Name, Platform: r.Platform, Progress: tellOf(r.Path, tell)})
	for _, img := range images {
		tell(Progress{Subject: strings.Join(img.Refs, ", "), What: "imported", Detail: string(img.ID)})
	}
	return err
}

// stream answers a request by JSON lines of Progress; the last may be an error.
func stream[R any](f func(context.Context, R, func(Progress)) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request R
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			wire.Answer(w, nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid))
			return
		}
		w.Header().Set("Content-Type", "application/jsonl")
		w.WriteHeader(http.StatusOK)
		var mu sync.Mutex // layers report from several goroutines
		encoder := json.NewEncoder(w)
		tell := func(p Progress) {
			mu.Lock()
			defer mu.Unlock()
			if encoder.Encode(p) == nil {
				_ = http.NewResponseController(w).Flush()
			}
		}
		if err := f(r.Context(), request, tell); err != nil {
			message, kind := wire.Describe(err)
			tell(Progress{Error: message, Kind: kind})
			return
		}
		tell(Progress{Done: true})
	}
}

// onKeeper asks the keeper about the container that the request names, while
// that runs and no healthcheck does.
func (d *Daemon) onKeeper(f func(context.Context, keepers, host.ContainerID) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := host.ContainerID(r.PathValue("id"))
		client, err := d.keeper.get(r.Context())
		if err != nil {
			wire.Answer(w, nil, err)
			return
		}
		u := d.unit(id)
		if u == nil {
			wire.Answer(w, nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound))
			return
		}
		if state, _, _ := u.snapshot(); state != host.Awake {
			wire.Answer(w, nil, &host.Refusal{Reasons: []string{fmt.Sprintf("%s is %s, not running", id, state)}})
			return
		}
		u.probing.Lock()
		defer u.probing.Unlock()
		result, err := f(r.Context(), client, id)
		wire.Answer(w, result, err)
	}
}

// exec wakes the service and returns the runtime's command line. That counts
// as activity; while the command runs, the service does not fall asleep.
func (d *Daemon) exec(w http.ResponseWriter, r *http.Request) {
	var request ExecRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Args) == 0 {
		wire.Answer(w, nil, fmt.Errorf("decode request: %w", errors.Join(err, host.ErrInvalid)))
		return
	}
	d.onKeeper(func(ctx context.Context, k keepers, id host.ContainerID) (any, error) {
		if _, err := k.Wake(ctx, id, "exec"); err != nil {
			return nil, err
		}
		if err := k.Activity(ctx, id); err != nil {
			return nil, err
		}
		if request.User != "" {
			user, err := container.ResolveUser(filepath.Join(d.config.serviceDir(id), "bundle", "rootfs"), request.User, nil)
			if err != nil {
				return nil, err
			}
			request.User = fmt.Sprintf("%d:%d", user.UID, user.GID)
		}
		return d.runtime.ExecArgs(id, container.ExecSpec(request)), nil
	})(w, r)
}

// sockets answers what is known of a container's connections, whatever else is
// done to it.
func (d *Daemon) sockets(w http.ResponseWriter, r *http.Request) {
	id := host.ContainerID(r.PathValue("id"))
	if d.unit(id) == nil {
		wire.Answer(w, nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound))
		return
	}
	client, err := d.keeper.get(r.Context())
	if err != nil {
		wire.Answer(w, nil, err)
		return
	}
	report, err := client.Sockets(r.Context(), id, false)
	wire.Answer(w, report, err)
}

// streamEvents writes what is kept, then what follows, if asked.
func (d *Daemon) streamEvents(w http.ResponseWriter, r *http.Request) {
	recent, fresh := d.events.subscribe()
	defer d.events.unsubscribe(fresh)
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	for _, e := range recent {
		if encoder.Encode(e) != nil {
			return
		}
	}
	_ = controller.Flush()
	for r.URL.Query().Get("follow") != "" {
		select {
		case <-r.Context().Done():
			return
		case e := <-fresh:
			if encoder.Encode(e) != nil {
				return
			}
			_ = controller.Flush()
		}
	}
}
