package daemon

import (
	"context"
	"sync"

	"torpor/host"
)

// projectLocks lets one request at a time make and remove a project's
// containers.
type projectLocks struct {
	mu    sync.Mutex
	locks map[host.ProjectName]chan struct{}
}

// lock waits until the project is free or the context ends.
func (l *projectLocks) lock(ctx context.Context, name host.ProjectName) (unlock func(), err error) {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = map[host.ProjectName]chan struct{}{}
	}
	c, ok := l.locks[name]
	if !ok {
		c = make(chan struct{}, 1)
		l.locks[name] = c
	}
	l.mu.Unlock()
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
