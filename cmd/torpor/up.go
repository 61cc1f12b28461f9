package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

// upCommand is torpor up.
type upCommand struct {
	env     *environment
	at      place
	project projectFlags
	request daemon.UpRequest
	scale   scaleFlag
	detach  bool
	asJSON  bool
}

func newUpCommand(env *environment) *cobra.Command {
	c := &upCommand{env: env}
	cmd := &cobra.Command{
		Use:   "up [SERVICE...]",
		Short: "Start the services of a compose file",
		Long: `Create and start what the compose file says, or only the named services and
those that they depend on. Services that run, or sleep, and have not changed stay
as they are; changed ones are made anew.

Without -d their logs are shown until Ctrl-C, which stops them; a second Ctrl-C
kills them.`,
		Example: `  torpor up -d
  torpor up -f shop/compose.yaml -d web db
  torpor up -d --scale web=3`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.at.register(cmd)
	c.project.register(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&c.detach, "detach", "d", false, "return when the services are started")
	flags.BoolVar(&c.request.ForceRecreate, "force-recreate", false, "make every container anew")
	flags.Var(&c.scale, "scale", "number of instances: SERVICE=N, instead of what the file says")
	flags.BoolVar(&c.request.NoStart, "no-start", false, "create the services, do not start them")
	flags.BoolVar(&c.request.RemoveOrphans, "remove-orphans", false, "remove services that are not in the file any more")
	flags.BoolVar(&c.request.Wait, "wait", false, "wait until every service is healthy; implies -d")
	flags.BoolVar(&c.asJSON, "json", false, "print JSON lines")
	return cmd
}

func (c *upCommand) run(ctx context.Context, args []string) error {
	p, err := c.project.load(ctx, c.env, args)
	if err != nil {
		return err
	}
	if err := c.scale.apply(p); err != nil {
		return err
	}
	c.request.Project = *p
	c.request.Known = c.project.everyService(ctx)
	client, tell := daemon.NewClient(c.at.socket), progressPrinter(c.env, c.asJSON)
	if c.detach || c.request.Wait || c.request.NoStart {
		ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return interruptedUp(client.Up(ctx, c.request, tell))
	}
	return c.attached(ctx, client, tell)
}

// interruptedUp says what an interrupt left.
func interruptedUp(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; what is started runs on: torpor up again, or torpor down")
	}
	return err
}

// attached starts the services while it shows their logs, until they have all
// ended or the user interrupts it; then it stops them.
func (c *upCommand) attached(ctx context.Context, client *daemon.Client, tell func(daemon.Progress)) error {
	interrupts, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	begun := time.Now()
	creation := c.request
	creation.NoStart = true
	if err := client.Up(interrupts, creation, tell); err != nil {
		return interruptedUp(err)
	}
	c.request.ForceRecreate = false
	services, err := c.services(ctx, client)
	if err != nil {
		return err
	}
	shown, stopShowing := context.WithCancel(interrupts)
	defer stopShowing()
	var showing sync.WaitGroup
	defer showing.Wait()
	defer stopShowing()
	if ids := c.shown(services); len(ids) > 0 {
		showing.Go(func() {
			_ = client.Logs(shown, ids, daemon.LogOptions{Tail: -1, Since: begun, Follow: true}, linePrinter(c.env, c.asJSON))
		})
	}
	if err := client.Up(interrupts, c.request, tell); err != nil && interrupts.Err() == nil {
		return err
	}
	for interrupts.Err() == nil {
		now, err := c.services(ctx, client)
		if err != nil {
			return err
		}
		if allEnded(now) {
			sleepFor(interrupts, time.Second/4) // for the last lines
			return nil
		}
		sleepFor(interrupts, time.Second)
	}
	stop()
	return c.stopAll(ctx, client, identifiers(services), tell)
}

// stopAll stops the services, and kills them at another interrupt.
func (c *upCommand) stopAll(ctx context.Context, client *daemon.Client, ids []host.ContainerID, tell func(daemon.Progress)) error {
	again, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Fprintln(c.env.stderr, "stopping; Ctrl-C again kills")
	err := client.Stop(again, daemon.BatchRequest{IDs: ids}, tell)
	if again.Err() == nil {
		return err
	}
	stop()
	return client.Stop(ctx, daemon.BatchRequest{IDs: ids, Stop: daemon.StopOptions{Timeout: new(time.Duration)}}, tell)
}

// services are those of the request, as they are now.
func (c *upCommand) services(ctx context.Context, client *daemon.Client) ([]daemon.ServiceStatus, error) {
	all, err := client.Services(ctx, c.request.Project.Name)
	if err != nil {
		return nil, err
	}
	wanted := map[host.ServiceName]bool{}
	for _, s := range c.request.Project.Services {
		wanted[s.Name] = true
	}
	var ours []daemon.ServiceStatus
	for _, s := range all {
		if wanted[s.Service] {
			ours = append(ours, s)
		}
	}
	return ours, nil
}

// shown are those whose logs are shown.
func (*upCommand) shown(services []daemon.ServiceStatus) []host.ContainerID {
	var ids []host.ContainerID
	for _, s := range services {
		if !s.NoAttach {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func allEnded(services []daemon.ServiceStatus) bool {
	for _, s := range services {
		if s.State.Live() || s.Wanted {
			return false
		}
	}
	return true
}

func sleepFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
