package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"torpor/host"
	"torpor/volume"
)

// volumeServers starts and finds the servers of logs. Each is a process of its
// own, in its own session, which outlives the daemon.
type volumeServers struct {
	config Config
	event  func(host.Event)
	sum    func() (string, error) // of this binary, for servers to be compared with

	naming     sync.Mutex // of volumes, so that each name is one's
	discarding sync.Mutex // of logs

	mu     sync.Mutex
	links  map[volume.LogID]*serverLink
	mounts map[string]*sync.Mutex // of volumes, by name
	follow func(*serverLink)      // nil: the daemon does not serve yet
}

// serverLink is the connection to the server of one log.
type serverLink struct {
	id     volume.LogID
	mu     sync.Mutex
	client *volume.Client
}

func newVolumeServers(config Config, event func(host.Event)) *volumeServers {
	return &volumeServers{config: config, event: event, links: map[volume.LogID]*serverLink{}, mounts: map[string]*sync.Mutex{},
		sum: sync.OnceValues(func() (string, error) { return volume.BinarySum("/proc/self/exe") })}
}

// link returns the connection to a log's server, which need not be open.
func (v *volumeServers) link(id volume.LogID) *serverLink {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.links[id]
	if l == nil {
		l = &serverLink{id: id}
		v.links[id] = l
		if v.follow != nil {
			v.follow(l)
		}
	}
	return l
}

func (v *volumeServers) forget(id volume.LogID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.links, id)
}

// known says whether the log of a link is one still.
func (v *volumeServers) known(l *serverLink) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.links[l.id] == l
}

// mounting is held by who mounts or unmounts a volume.
func (v *volumeServers) mounting(name string) *sync.Mutex {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mounts[name] == nil {
		v.mounts[name] = &sync.Mutex{}
	}
	return v.mounts[name]
}

// client returns a client of the log's server, which is started when none
// answers.
func (v *volumeServers) client(ctx context.Context, id volume.LogID) (*volume.Client, error) {
	l := v.link(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		return l.client, nil
	}
	client, err := v.find(ctx, id)
	if err == nil {
		err = v.upgrade(ctx, client)
	} else {
		client, err = v.start(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	l.client = client
	return client, nil
}

// find returns a client of a server that there is. One that has the log open and
// does not answer yet is executing another binary, or recovers the log.
func (v *volumeServers) find(ctx context.Context, id volume.LogID) (*volume.Client, error) {
	for deadline := time.Now().Add(serverStart); ; sleepContext(ctx, 10*time.Millisecond) {
		client, err := volume.Dial(ctx, volume.SocketPath(v.config.RunDir, id))
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) || !v.alive(id) {
			return client, err
		}
	}
}

// lost forgets a client whose server is gone.
func (l *serverLink) lost(client *volume.Client) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == client {
		client.Close()
		l.client = nil
	}
}

// serverStart bounds the wait for a new server: it recovers the log first.
const serverStart = 2 * time.Minute

func (v *volumeServers) start(ctx context.Context, id volume.LogID) (*volume.Client, error) {
	dir := volume.LogDir(v.config.StateDir, id)
	if state, err := volume.LoadState(v.config.StateDir, id); err != nil || state.Phase == volume.Removed {
		return nil, fmt.Errorf("start volume server of log %s: it is removed: %w", id, errors.Join(err, host.ErrNotFound))
	}
	log, err := os.OpenFile(filepath.Join(dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start volume server: %w", err)
	}
	defer log.Close()
	command := slices.Concat(v.config.VolumeServer, []string{"--state", v.config.StateDir, "--run", v.config.RunDir, string(id)})
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start volume server: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it, should it end before the daemon
	deadline := time.After(serverStart)
	for {
		client, err := volume.Dial(ctx, volume.SocketPath(v.config.RunDir, id))
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			return nil, fmt.Errorf("start volume server: it ended (see %s): %w", log.Name(), err)
		case <-deadline:
			return nil, fmt.Errorf("start volume server: no answer within %s (see %s): %w", serverStart, log.Name(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// locate returns the log that a volume is in. Errors: host.ErrNotFound.
func (v *volumeServers) locate(name string) (volume.LogID, error) {
	states, errs := volume.LoadStates(v.config.StateDir)
	for _, s := range states {
		if _, ok := s.Volumes[name]; ok && s.Phase == volume.Ready {
			return s.ID, nil
		}
	}
	if len(errs) > 0 {
		return "", fmt.Errorf("find volume %s: %w", name, errors.Join(errs...))
	}
	return "", fmt.Errorf("find volume %s: %w; torpor volume ls lists what there is", name, host.ErrNotFound)
}

// of returns a client of the server that has a volume.
func (v *volumeServers) of(ctx context.Context, name string) (*volume.Client, volume.LogID, error) {
	id, err := v.locate(name)
	if err != nil {
		return nil, "", err
	}
	client, err := v.client(ctx, id)
	if err != nil {
		return nil, "", fmt.Errorf("reach volume %s: %w", name, err)
	}
	return client, id, nil
}

// statusTime bounds the wait for a server that is busy.
const statusTime = 10 * time.Second

// statuses asks all servers. Of one that does not answer, the state on disk says
// what it serves.
func (v *volumeServers) statuses(ctx context.Context) []volume.Status {
	states, _ := volume.LoadStates(v.config.StateDir)
	all := make([]volume.Status, len(states))
	var asked sync.WaitGroup
	for i, s := range states {
		asked.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, statusTime)
			defer cancel()
			client, err := v.client(ctx, s.ID)
			if err == nil {
				all[i], err = client.Status(ctx)
			}
			if err != nil {
				all[i] = volume.ClosedStatus(s, fmt.Errorf("its server does not answer: %w", err))
			}
		})
	}
	asked.Wait()
	return all
}

// run starts the servers of all logs, brings them up to date, and starts those
// that end again, until the context ends.
func (v *volumeServers) run(ctx context.Context, warn func(string, volume.LogID, error)) {
	var followers sync.WaitGroup
	v.mu.Lock()
	v.follow = func(l *serverLink) { followers.Go(func() { v.followServer(ctx, l, warn) }) }
	for _, l := range v.links {
		v.follow(l)
	}
	v.mu.Unlock()
	states, _ := volume.LoadStates(v.config.StateDir)
	for _, s := range states {
		v.link(s.ID)
	}
	<-ctx.Done()
	v.mu.Lock()
	v.follow = nil
	v.mu.Unlock()
	followers.Wait()
}

// followServer hands the events of a server on, and starts another when it is
// gone.
func (v *volumeServers) followServer(ctx context.Context, l *serverLink, warn func(string, volume.LogID, error)) {
	for last := 0; ctx.Err() == nil && v.known(l); {
		client, err := v.client(ctx, l.id)
		if errors.Is(err, host.ErrNotFound) {
			// Who had it removed may have been a daemon that was killed meanwhile.
			if err := v.discard(ctx, l.id); err != nil && ctx.Err() == nil {
				warn("remove log", l.id, err)
			}
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				warn("reach volume server", l.id, err)
			}
			sleepContext(ctx, time.Second)
			continue
		}
		if status, err := client.Status(ctx); err == nil {
			if last != 0 && last != status.PID { // not one that executed another binary
				v.replaced(status, warn)
			}
			last = status.PID
			_ = client.Watch(ctx, v.event) // its end is what is waited for
		}
		l.lost(client)
	}
}

// replaced tells that a server had ended, and this is another one.
func (v *volumeServers) replaced(now volume.Status, warn func(string, volume.LogID, error)) {
	warn("volume server was started again", now.ID, errors.New("the last one ended; see server.log of its log"))
	for _, vol := range now.Volumes {
		v.event(host.Event{Time: time.Now(), Type: host.EventVolume, Volume: vol.Name, Attrs: map[string]string{"log": string(now.ID)},
			Reason: "the server of its log ended, and another runs; what was mounted is lost, what was flushed is not"})
	}
}

// alive says whether a process serves a log.
func (v *volumeServers) alive(id volume.LogID) bool {
	held, err := volume.Held(v.config.StateDir, id)
	return err == nil && held
}

// upgrade lets the server of an earlier binary execute this one in its place,
// before anybody is served. One that will not goes on as it is: it is better than
// none.
func (v *volumeServers) upgrade(ctx context.Context, client *volume.Client) error {
	sum, err := v.sum()
	if err != nil {
		return err
	}
	status, err := client.Status(ctx)
	if err != nil || status.Binary == sum {
		return err
	}
	failed := client.Upgrade(ctx, v.config.VolumeServer[0])
	client.Close()
	for deadline := time.Now().Add(serverStart); ; sleepContext(ctx, 10*time.Millisecond) {
		if status, err = client.Status(ctx); err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("upgrade volume server: %w", err)
		}
	}
	if status.Binary != sum {
		v.event(host.Event{Time: time.Now(), Type: host.EventVolume, Reason: fmt.Sprintf("the server of log %s is not of this torpor: %v", status.ID, failed)})
	}
	return nil
}

// sweep removes logs whose making or removal was not finished.
func (v *volumeServers) sweep(ctx context.Context) error {
	states, errs := volume.LoadStates(v.config.StateDir)
	dirs, err := filepath.Glob(volume.LogDir(v.config.StateDir, "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		left, err := os.ReadDir(dir)
		if err == nil && (len(left) == 0 || len(left) == 1 && left[0].Name() == volume.StateDraft) { // nothing was noted yet
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	for _, s := range states {
		if s.Phase != volume.Ready {
			errs = append(errs, v.discard(ctx, s.ID))
		}
	}
	return errors.Join(errs...)
}

// discard ends the server of a log that is not ready, and removes what was made
// for it.
func (v *volumeServers) discard(ctx context.Context, id volume.LogID) error {
	v.discarding.Lock()
	defer v.discarding.Unlock()
	v.forget(id)
	if _, err := os.Lstat(volume.LogDir(v.config.StateDir, id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var stopped error
	if client, err := volume.Dial(ctx, volume.SocketPath(v.config.RunDir, id)); err == nil {
		stopped = client.Stop(ctx) // or it is ending already, and does not answer
		client.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, serverStart)
	defer cancel()
	s, err := volume.Abandon(ctx, v.config.StateDir, id)
	if errors.Is(err, host.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return nil // somebody else has removed it
	}
	if err != nil {
		return fmt.Errorf("stop volume server of log %s: %w", id, errors.Join(stopped, err))
	}
	if s.Phase == volume.Ready {
		return fmt.Errorf("remove log %s: it holds volumes: %w", id, host.ErrExists)
	}
	if err := volume.RemoveMade(s.Disks); err != nil {
		return fmt.Errorf("remove log %s: %w", id, err)
	}
	_ = os.Remove(volume.SocketPath(v.config.RunDir, id))
	return v.config.discard(volume.LogDir(v.config.StateDir, id))
}
