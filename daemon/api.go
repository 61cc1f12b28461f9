package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"torpor/container"
	"torpor/host"
	"torpor/image"
	"torpor/keeper"
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
		all, err := d.status(r.Context(), host.ProjectName(r.URL.Query().Get("project")))
		keeper.Answer(w, all, err)
	})
	mux.HandleFunc("POST /v1/services/{id}/sleep", d.onKeeper(func(ctx context.Context, k *keeper.Client, id host.ContainerID) (any, error) {
		return k.Sleep(ctx, id)
	}))
	mux.HandleFunc("POST /v1/services/{id}/wake", d.onKeeper(func(ctx context.Context, k *keeper.Client, id host.ContainerID) (any, error) {
		return k.Wake(ctx, id, "torpor wake")
	}))
	mux.HandleFunc("POST /v1/services/{id}/start", d.onUnit(func(ctx context.Context, u *unit) error {
		u.record.WantRunning = true
		if err := u.save(); err != nil || u.init != 0 {
			return err
		}
		return u.start(ctx)
	}))
	mux.HandleFunc("POST /v1/services/{id}/stop", d.onUnit(func(ctx context.Context, u *unit) error { return u.stop(ctx) }))
	mux.HandleFunc("POST /v1/services/{id}/restart", d.onUnit(func(ctx context.Context, u *unit) error {
		if err := u.stop(ctx); err != nil {
			return err
		}
		u.record.WantRunning = true
		if err := u.save(); err != nil {
			return err
		}
		return u.start(ctx)
	}))
	mux.HandleFunc("POST /v1/services/{id}/exec", d.exec)
	mux.HandleFunc("GET /v1/logs", d.logs)
	mux.HandleFunc("GET /v1/events", d.streamEvents)
	mux.HandleFunc("GET /v1/images", func(w http.ResponseWriter, _ *http.Request) { keeper.Answer(w, d.images.List(), nil) })
	mux.HandleFunc("POST /v1/images/pull", stream(func(ctx context.Context, r ImageRequest, tell func(Progress)) error {
		_, err := d.pull(ctx, r.Name, r.Platform, tell)
		return err
	}))
	mux.HandleFunc("POST /v1/images/import", stream(d.importImages))
	mux.HandleFunc("POST /v1/images/remove", func(w http.ResponseWriter, r *http.Request) {
		var request ImageRequest
		err := json.NewDecoder(r.Body).Decode(&request)
		if err == nil {
			err = d.images.Remove(request.Name, request.Force)
		}
		keeper.Answer(w, nil, err)
	})
	mux.HandleFunc("GET /v1/ping", func(w http.ResponseWriter, _ *http.Request) { keeper.Answer(w, "torpor", nil) })
	return mux
}

// ImageRequest names an image, or the path of an archive.
type ImageRequest struct {
	Name     string `json:"name,omitempty"`
	Path     string `json:"path,omitempty"`
	Platform string `json:"platform,omitempty"`
	Force    bool   `json:"force,omitempty"`
}

func (d *Daemon) importImages(ctx context.Context, r ImageRequest, tell func(Progress)) error {
	images, err := d.images.Import(ctx, r.Path, image.ImportOptions{Name: r.Name, Platform: r.Platform, Progress: func(p image.Progress) {
		tell(Progress{Subject: p.Ref, What: string(p.Phase), Detail: progressDetail(p)})
	}})
	for _, img := range images {
		tell(Progress{Subject: fmt.Sprint(img.Refs), What: "imported", Detail: string(img.ID)})
	}
	return err
}

// stream answers a request by JSON lines of Progress; the last may be an error.
func stream[R any](f func(context.Context, R, func(Progress)) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var request R
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			keeper.Answer(w, nil, fmt.Errorf("decode request: %w: %w", err, host.ErrInvalid))
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
			message, kind := keeper.Describe(err)
			tell(Progress{Error: message, Kind: kind})
		}
	}
}

// onUnit runs f on the goroutine of the unit that the request names. It is not
// interrupted when the client goes: half a stop helps nobody.
func (d *Daemon) onUnit(f func(context.Context, *unit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := host.ContainerID(r.PathValue("id"))
		u := d.unit(id)
		if u == nil {
			keeper.Answer(w, nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound))
			return
		}
		keeper.Answer(w, nil, u.try(func() error { return f(context.WithoutCancel(r.Context()), u) }))
	}
}

func (d *Daemon) onKeeper(f func(context.Context, *keeper.Client, host.ContainerID) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := host.ContainerID(r.PathValue("id"))
		client, err := d.keeper.get(r.Context())
		if err != nil {
			keeper.Answer(w, nil, err)
			return
		}
		if u := d.unit(id); u == nil {
			keeper.Answer(w, nil, fmt.Errorf("find service %s: %w", id, host.ErrNotFound))
			return
		} else if state, _, _ := u.snapshot(); state != host.Awake {
			keeper.Answer(w, nil, fmt.Errorf("service %s is %s: %w", id, state, host.ErrInvalid))
			return
		}
		result, err := f(r.Context(), client, id)
		keeper.Answer(w, result, err)
	}
}

// exec wakes the service and returns the runtime's command line.
func (d *Daemon) exec(w http.ResponseWriter, r *http.Request) {
	var request ExecRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Args) == 0 {
		keeper.Answer(w, nil, fmt.Errorf("decode request: %w", errors.Join(err, host.ErrInvalid)))
		return
	}
	d.onKeeper(func(ctx context.Context, k *keeper.Client, id host.ContainerID) (any, error) {
		if err := k.Activity(ctx, id); err != nil {
			return nil, err
		}
		if _, err := k.Wake(ctx, id, "exec"); err != nil {
			return nil, err
		}
		return d.runtime.ExecArgs(id, container.ExecSpec(request)), nil
	})(w, r)
}

// logs streams lines of the named containers, or of a project's.
func (d *Daemon) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	o := LogOptions{Tail: -1, Follow: q.Get("follow") != ""}
	if n, err := strconv.Atoi(q.Get("tail")); err == nil {
		o.Tail = n
	}
	if t, err := time.Parse(time.RFC3339Nano, q.Get("since")); err == nil {
		o.Since = t
	}
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	_ = controller.Flush()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	lines := make(chan NamedLine)
	var readers sync.WaitGroup
	for _, id := range q["id"] {
		u := d.unit(host.ContainerID(id))
		if u == nil {
			continue
		}
		readers.Go(func() {
			_ = readLog(ctx, u.logPath(), o, func(line keeper.LogLine) error {
				select {
				case lines <- NamedLine{u.id, line}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}
	go func() {
		readers.Wait()
		close(lines)
	}()
	encoder := json.NewEncoder(w)
	for line := range lines {
		if encoder.Encode(line) != nil {
			cancel()
			continue // until the readers have ended
		}
		if o.Follow {
			_ = controller.Flush()
		}
	}
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
