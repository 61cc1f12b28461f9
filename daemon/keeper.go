package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"torpor/host"
	"torpor/keeper"
)

// keeperLink is the connection to the keeper process, which is started when
// none answers.
type keeperLink struct {
	config Config

	mu     sync.Mutex
	client *keeper.Client
}

func (k *keeperLink) socket() string { return filepath.Join(k.config.RunDir, "keeper.sock") }

// keeperSource finds the keeper; tests have a fake.
type keeperSource interface {
	get(ctx context.Context) (keepers, error)
	lost(keepers)
}

// get returns a client of a running keeper.
func (k *keeperLink) get(ctx context.Context) (keepers, error) { return k.dial(ctx) }

// dial is get for those who also hand containers over.
func (k *keeperLink) dial(ctx context.Context) (*keeper.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		return k.client, nil
	}
	client, err := keeper.Dial(ctx, k.socket())
	if err != nil {
		if client, err = k.startLocked(ctx); err != nil {
			return nil, err
		}
	}
	k.client = client
	return client, nil
}

// lost forgets a client whose keeper is gone.
func (k *keeperLink) lost(client keepers) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == client {
		k.client.Close()
		k.client = nil
	}
}

// keeperStart bounds the wait for a new keeper.
const keeperStart = 20 * time.Second

func (k *keeperLink) startLocked(ctx context.Context) (*keeper.Client, error) {
	log, err := os.OpenFile(filepath.Join(k.config.StateDir, "keeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	defer log.Close()
	command := append(append([]string{}, k.config.Keeper...), "--state", k.config.StateDir, "--run", k.config.RunDir)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start keeper: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it, should it end before the daemon
	deadline := time.After(keeperStart)
	for {
		client, err := keeper.Dial(ctx, k.socket())
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			return nil, fmt.Errorf("start keeper: it ended (see %s): %w", log.Name(), err)
		case <-deadline:
			return nil, fmt.Errorf("start keeper: no answer within %s: %w", keeperStart, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// followKeeper hands the keeper's events to the daemon, and starts another
// keeper when it is gone, until the context ends.
func (d *Daemon) followKeeper(ctx context.Context) {
	for ctx.Err() == nil {
		client, err := d.keeper.get(ctx)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				d.log.Error("reach keeper", "error", err)
			}
			sleepContext(ctx, time.Second)
			continue
		}
		// Whatever happened before the watch began is in the status.
		go d.askAfterAll(ctx)
		err = client.Watch(ctx, d.keeperEvent)
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("keeper is gone; starting another", "error", err)
		d.keeper.lost(client)
		d.readopt(ctx)
	}
}

// askAfterAll looks for exits of all containers.
func (d *Daemon) askAfterAll(ctx context.Context) {
	for _, u := range d.all() {
		go u.do(func() { u.noticeExit(ctx) })
	}
}

// readopt hands every running container to a new keeper.
func (d *Daemon) readopt(ctx context.Context) {
	for _, u := range d.all() {
		go u.do(func() {
			if u.init == 0 {
				return
			}
			if u.record.Spare {
				u.complain("drop spare", u.dropSpare(ctx))
				return
			}
			if err := d.containers.Adopt(ctx, u.record, u.init); err != nil {
				u.complain("adopt", err)
				return
			}
			u.missedExit(ctx)
		})
	}
}

// sleepContext waits, or less if the context ends.
func sleepContext(ctx context.Context, t time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(t):
	}
}

// keeperEvent passes an event on and lets the unit look after an exit.
func (d *Daemon) keeperEvent(e host.Event) {
	d.events.send(e)
	if u := d.unit(e.Container); u != nil && e.Type == host.EventExit {
		go u.do(func() { u.noticeExit(context.Background()) }) // it may be busy; the keeper's stream must flow
	}
}

// keeperStatus asks the keeper about all containers; another keeper, if that one
// has ended and the connection to it shows it only now.
func (d *Daemon) keeperStatus(ctx context.Context) ([]keeper.Status, error) {
	client, err := d.keeper.get(ctx)
	if err != nil {
		return nil, err
	}
	all, err := client.Status(ctx)
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.EOF) {
		return all, err
	}
	d.keeper.lost(client)
	if client, err = d.keeper.get(ctx); err != nil {
		return nil, err
	}
	return client.Status(ctx)
}
