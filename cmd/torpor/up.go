package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newUpCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var request daemon.UpRequest
	var detach, asJSON bool
	cmd := &cobra.Command{
		Use:   "up [SERVICE...]",
		Short: "Start the services of a compose file",
		Long: `Create and start what the compose file says. Services that run and have not
changed stay; changed ones are made anew. Without -d their logs are shown until
Ctrl-C, which stops them.`,
		Example: `  torpor up -d
  torpor up -f shop/compose.yaml -d web db`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := project.load(cmd.Context(), env, args)
			if err != nil {
				return err
			}
			request.Project = *p
			client := daemon.NewClient(at.socket)
			if err := client.Up(cmd.Context(), request, progressPrinter(env, asJSON)); err != nil {
				return err
			}
			if detach {
				return nil
			}
			return attach(cmd.Context(), env, client, p.Name, asJSON)
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "return when the services are started")
	cmd.Flags().BoolVar(&request.ForceRecreate, "force-recreate", false, "make every container anew")
	cmd.Flags().BoolVar(&request.RemoveOrphans, "remove-orphans", false, "remove services that are not in the file any more")
	cmd.Flags().BoolVar(&request.Wait, "wait", false, "wait until every service is healthy; implies -d")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	cmd.PreRun = func(*cobra.Command, []string) { detach = detach || request.Wait }
	return cmd
}

// progressPrinter prints steps on standard error, or as JSON on standard
// output. A step that repeats on a terminal replaces its line.
func progressPrinter(env *environment, asJSON bool) func(daemon.Progress) {
	if asJSON {
		encoder := json.NewEncoder(env.stdout)
		return func(p daemon.Progress) { _ = encoder.Encode(p) }
	}
	last := ""
	return func(p daemon.Progress) {
		line := p.Subject + " " + p.What
		if p.Detail != "" {
			line += " " + p.Detail
		}
		if key := p.Subject + p.What; key == last && !env.terminal() {
			return // one line a step where it can not be replaced
		} else if key == last {
			fmt.Fprint(env.stderr, "\x1b[1A\x1b[2K")
		} else {
			last = key
		}
		fmt.Fprintln(env.stderr, line)
	}
}

// attach shows logs until the user interrupts, then stops the services.
func attach(ctx context.Context, env *environment, client *daemon.Client, project host.ProjectName, asJSON bool) error {
	interrupted, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	services, err := client.Services(ctx, project)
	if err != nil {
		return err
	}
	var ids []host.ContainerID
	for _, s := range services {
		ids = append(ids, s.ID)
	}
	err = client.Logs(interrupted, ids, daemon.LogOptions{Tail: 0, Follow: true}, linePrinter(env, asJSON))
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if interrupted.Err() == nil {
		return nil // the daemon went away; the services run on
	}
	stop()
	for _, s := range services {
		fmt.Fprintf(env.stderr, "%s stopping\n", s.ID)
		if err := client.Stop(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

func newDownCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var request daemon.DownRequest
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "down",
		Short:   "Stop and remove the services of a project",
		Example: "  torpor down\n  torpor down -v -p shop",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := project.project(cmd.Context(), env)
			if err != nil {
				return err
			}
			if name == "" {
				return fmt.Errorf("end project: no compose file here; say which with -f or -p: %w", host.ErrInvalid)
			}
			request.Project = name
			return daemon.NewClient(at.socket).Down(cmd.Context(), request, progressPrinter(env, asJSON))
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVarP(&request.Volumes, "volumes", "v", false, "also remove its named volumes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// terminal reports whether progress goes to a terminal.
func (env *environment) terminal() bool {
	f, ok := env.stderr.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
