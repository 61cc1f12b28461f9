package daemon

import (
	"context"
	"fmt"
	"sync"

	"torpor/host"
)

// startOrder sorts services so that each comes behind what it depends on.
func startOrder(services []host.ServiceSpec) ([]host.ServiceSpec, error) {
	byName := map[host.ServiceName]host.ServiceSpec{}
	for _, s := range services {
		byName[s.Name] = s
	}
	var order []host.ServiceSpec
	state := map[host.ServiceName]int{} // 1: on the way, 2: done
	var visit func(host.ServiceName) error
	visit = func(name host.ServiceName) error {
		switch s, ok := byName[name]; {
		case !ok || state[name] == 2:
			return nil
		case state[name] == 1:
			return fmt.Errorf("order services: %s depends on itself: %w", name, host.ErrInvalid)
		default:
			state[name] = 1
			for _, dependency := range s.DependsOn {
				if err := visit(dependency.Service); err != nil {
					return err
				}
			}
			state[name] = 2
			order = append(order, s)
			return nil
		}
	}
	for _, s := range services {
		if err := visit(s.Name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// step is one node of a plan.
type step struct {
	after []string // names of steps; those that are not in the plan do not count
	do    func(context.Context) error
}

// walk does the steps of a plan, at once where their order allows it. A step
// behind one that failed is not done. The first error is returned when all
// steps that were begun have ended. The plan has no cycle.
func walk(ctx context.Context, plan map[string]step) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := map[string]chan struct{}{}
	for name := range plan {
		done[name] = make(chan struct{})
	}
	var steps sync.WaitGroup
	for name, s := range plan {
		steps.Go(func() {
			for _, before := range s.after {
				c, ok := done[before]
				if !ok {
					continue
				}
				select {
				case <-c:
				case <-ctx.Done():
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
			if err := s.do(ctx); err != nil {
				cancel(err)
				return
			}
			close(done[name])
		})
	}
	steps.Wait()
	return context.Cause(ctx)
}
