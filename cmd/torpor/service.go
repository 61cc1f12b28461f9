package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

// serviceCommand is a command that does something to named services.
type serviceCommand struct {
	at      place
	project projectFlags
	asJSON  bool
}

func (c *serviceCommand) register(cmd *cobra.Command) {
	c.at.register(cmd)
	c.project.register(cmd)
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON lines")
}

// find returns the daemon and the services that the arguments name.
func (c *serviceCommand) find(ctx context.Context, env *environment, args []string) (*daemon.Client, []daemon.ServiceStatus, error) {
	client := daemon.NewClient(c.at.socket)
	services, err := c.project.find(ctx, env, client, args)
	if err == nil && len(services) == 0 {
		err = fmt.Errorf("find services: none here; torpor ps -a lists what there is: %w", host.ErrNotFound)
	}
	return client, services, err
}

// newOneByOneCommand makes a command that does one thing to each service.
func newOneByOneCommand(env *environment, cmd *cobra.Command, do func(context.Context, *daemon.Client, host.ContainerID) (any, string, error)) *cobra.Command {
	var c serviceCommand
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, services, err := c.find(cmd.Context(), env, args)
		if err != nil {
			return err
		}
		var failed error
		for _, s := range services {
			result, text, err := do(cmd.Context(), client, s.ID)
			if err != nil {
				if failed != nil { // the last one is shown by whoever called
					fmt.Fprintf(env.stderr, "torpor: %v\n", failed)
				}
				failed = fmt.Errorf("%s: %w", s.ID, err)
				continue
			}
			if c.asJSON {
				if err := json.NewEncoder(env.stdout).Encode(map[string]any{"id": s.ID, "result": result}); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(env.stdout, "%s %s\n", s.ID, text)
		}
		return failed
	}
	c.register(cmd)
	return cmd
}

func newSleepCommand(env *environment) *cobra.Command {
	return newOneByOneCommand(env, &cobra.Command{
		Use:   "sleep [SERVICE...]",
		Short: "Put services to sleep now",
		Long: `Put services to sleep now, without waiting for their quiet time. One that can not
sleep is refused with the reason (exit code 3) and runs on unharmed.` + serviceNames,
		Example: "  torpor sleep web\n  torpor sleep shop/web",
	}, func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
		r, err := c.Sleep(ctx, id)
		if err == nil && r.Duration == 0 {
			return r, "was asleep", nil
		}
		return r, fmt.Sprintf("asleep in %s ms, %s returned, %d connections held", ms(r.Duration), units.BytesSize(float64(r.ReturnedBytes)), r.Connections), err
	})
}

func newWakeCommand(env *environment) *cobra.Command {
	return newOneByOneCommand(env, &cobra.Command{
		Use:     "wake [SERVICE...]",
		Short:   "Wake services now",
		Long:    "Wake services now, without a packet for them." + serviceNames,
		Example: "  torpor wake web",
	}, func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
		r, err := c.Wake(ctx, id)
		if err == nil && r.Already {
			return r, "was awake", nil
		}
		return r, fmt.Sprintf("awake in %s ms", ms(r.Duration)), err
	})
}

// serviceNames explains arguments that name services.
const serviceNames = `

A SERVICE is one of the compose file here, PROJECT/SERVICE, or a container's name
or ID. Without one, all services of the project are meant.`

// newBatchCommand makes a command that hands all its services to the daemon at
// once, which does them in the order of depends_on.
func newBatchCommand(env *environment, cmd *cobra.Command, do func(context.Context, *daemon.Client, []host.ContainerID, func(daemon.Progress)) error) *cobra.Command {
	var c serviceCommand
	cmd.Long += serviceNames
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, services, err := c.find(cmd.Context(), env, args)
		if err != nil {
			return err
		}
		return do(cmd.Context(), client, identifiers(services), progressPrinter(env, c.asJSON))
	}
	c.register(cmd)
	return cmd
}

func identifiers(services []daemon.ServiceStatus) []host.ContainerID {
	var ids []host.ContainerID
	for _, s := range services {
		ids = append(ids, s.ID)
	}
	return ids
}

func newStartCommand(env *environment) *cobra.Command {
	return newBatchCommand(env, &cobra.Command{
		Use:     "start [SERVICE...]",
		Short:   "Start services that were stopped",
		Long:    "Start services that were stopped, each after those that it depends on.",
		Example: "  torpor start web",
	}, func(ctx context.Context, c *daemon.Client, ids []host.ContainerID, tell func(daemon.Progress)) error {
		return c.Start(ctx, daemon.BatchRequest{IDs: ids}, tell)
	})
}

func newStopCommand(env *environment) *cobra.Command {
	var stop stopFlags
	cmd := newBatchCommand(env, &cobra.Command{
		Use:     "stop [SERVICE...]",
		Short:   "Stop services, keeping their data",
		Long:    "Stop services, each after those that depend on it. Their data stay." + stopHelp,
		Example: "  torpor stop web\n  torpor stop -t 60 db",
	}, func(ctx context.Context, c *daemon.Client, ids []host.ContainerID, tell func(daemon.Progress)) error {
		return c.Stop(ctx, daemon.BatchRequest{IDs: ids, Stop: stop.options()}, tell)
	})
	stop.register(cmd)
	return cmd
}

func newRestartCommand(env *environment) *cobra.Command {
	var stop stopFlags
	cmd := newBatchCommand(env, &cobra.Command{
		Use:     "restart [SERVICE...]",
		Short:   "Stop and start services",
		Long:    "Stop services and start them again, with those that follow them by depends_on's restart." + stopHelp,
		Example: "  torpor restart web",
	}, func(ctx context.Context, c *daemon.Client, ids []host.ContainerID, tell func(daemon.Progress)) error {
		return c.Restart(ctx, daemon.BatchRequest{IDs: ids, Stop: stop.options()}, tell)
	})
	stop.register(cmd)
	return cmd
}

func newRemoveCommand(env *environment) *cobra.Command {
	var stop stopFlags
	var force bool
	cmd := newBatchCommand(env, &cobra.Command{
		Use:     "rm [SERVICE...]",
		Short:   "Remove containers, keeping their volumes",
		Long:    "Remove stopped containers; their volumes stay. Those that run are refused unless --force stops them." + stopHelp,
		Example: "  torpor rm web\n  torpor rm --force web",
	}, func(ctx context.Context, c *daemon.Client, ids []host.ContainerID, tell func(daemon.Progress)) error {
		return c.Remove(ctx, daemon.RemoveRequest{BatchRequest: daemon.BatchRequest{IDs: ids, Stop: stop.options()}, Force: force}, tell)
	})
	stop.register(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also those that run, which are stopped")
	return cmd
}

// stopFlags say how services are stopped.
type stopFlags struct{ timeout seconds }

const stopHelp = `

A service gets its stop signal and has its grace period to end; then it is
killed. One that sleeps is woken for that. -t 0 kills at once and wakes nobody.`

func (f *stopFlags) register(cmd *cobra.Command) {
	cmd.Flags().VarP(&f.timeout, "timeout", "t", "time to end before it is killed, instead of each service's own")
}

func (f *stopFlags) options() daemon.StopOptions { return daemon.StopOptions{Timeout: f.timeout.d} }

// seconds is a flag that takes "10", as docker does, or "1m30s".
type seconds struct{ d *time.Duration }

func (s *seconds) String() string {
	if s.d == nil {
		return ""
	}
	return s.d.String()
}

// Type implements pflag.Value.
func (*seconds) Type() string { return "seconds" }

// Set implements pflag.Value.
func (s *seconds) Set(text string) error {
	d, err := time.ParseDuration(text)
	if n, isNumber := strconv.ParseUint(text, 10, 31); isNumber == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return fmt.Errorf("read time %q: neither seconds nor a duration such as 1m30s", text)
	}
	s.d = &d
	return nil
}
