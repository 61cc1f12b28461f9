package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

// newServiceCommand makes a command that does one thing to each named service.
func newServiceCommand(env *environment, use, short, example string, do func(context.Context, *daemon.Client, host.ContainerID) (any, string, error)) *cobra.Command {
	var at place
	var project projectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: example,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			services, err := project.find(cmd.Context(), env, client, args)
			if err != nil {
				return err
			}
			if len(services) == 0 {
				return fmt.Errorf("find services: none here; torpor ps -a lists what there is: %w", host.ErrNotFound)
			}
			for _, s := range services {
				result, text, err := do(cmd.Context(), client, s.ID)
				if err != nil {
					return fmt.Errorf("%s: %w", s.ID, err)
				}
				if asJSON {
					if err := json.NewEncoder(env.stdout).Encode(map[string]any{"id": s.ID, "result": result}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(env.stdout, "%s %s\n", s.ID, text)
			}
			return nil
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func newSleepCommand(env *environment) *cobra.Command {
	return newServiceCommand(env, "sleep [SERVICE...]", "Put services to sleep now", "  torpor sleep web\n  torpor sleep shop/web",
		func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
			r, err := c.Sleep(ctx, id)
			if err == nil && r.Duration == 0 {
				return r, "was asleep", nil
			}
			return r, fmt.Sprintf("asleep in %s ms, %s returned, %d connections held", ms(r.Duration), units.BytesSize(float64(r.ReturnedBytes)), r.Connections), err
		})
}

func newWakeCommand(env *environment) *cobra.Command {
	return newServiceCommand(env, "wake [SERVICE...]", "Wake services now", "  torpor wake web",
		func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
			r, err := c.Wake(ctx, id)
			if err == nil && r.Already {
				return r, "was awake", nil
			}
			return r, fmt.Sprintf("awake in %s ms", ms(r.Duration)), err
		})
}

func newStartCommand(env *environment) *cobra.Command {
	return newServiceCommand(env, "start [SERVICE...]", "Start services that were stopped", "  torpor start web",
		func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
			return nil, "started", c.Start(ctx, id)
		})
}

func newStopCommand(env *environment) *cobra.Command {
	return newServiceCommand(env, "stop [SERVICE...]", "Stop services, keeping their data", "  torpor stop web",
		func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
			return nil, "stopped", c.Stop(ctx, id)
		})
}

func newRestartCommand(env *environment) *cobra.Command {
	return newServiceCommand(env, "restart [SERVICE...]", "Stop and start services", "  torpor restart web",
		func(ctx context.Context, c *daemon.Client, id host.ContainerID) (any, string, error) {
			return nil, "restarted", c.Restart(ctx, id)
		})
}
