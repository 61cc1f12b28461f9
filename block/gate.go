package block

import "sync"

// Gate counts the calls that are under way in a device, so that Close can wait
// for them and refuse later ones. The zero Gate is open. It may be used from
// any number of goroutines; a call that is inside does not enter again.
type Gate struct {
	inside sync.RWMutex // calls hold it for reading
	closed bool
}

// Enter lets a call in, which then has to Leave. Errors: ErrClosed.
func (g *Gate) Enter() error {
	g.inside.RLock()
	if g.closed {
		g.inside.RUnlock()
		return ErrClosed
	}
	return nil
}

// Leave ends a call.
func (g *Gate) Leave() { g.inside.RUnlock() }

// Close waits until all calls have left; none enters any more. Errors:
// ErrClosed if it is closed already.
func (g *Gate) Close() error {
	g.inside.Lock()
	defer g.inside.Unlock()
	if g.closed {
		return ErrClosed
	}
	g.closed = true
	return nil
}
