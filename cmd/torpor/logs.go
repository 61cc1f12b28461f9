package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newLogsCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var o daemon.LogOptions
	var since string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "logs [SERVICE...]",
		Short: "Show what services have written",
		Example: `  torpor logs -f web
  torpor logs --tail 20 --since 10m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Since, err = parseSince(since); err != nil {
				return err
			}
			client := daemon.NewClient(at.socket)
			services, err := project.find(cmd.Context(), env, client, args)
			if err != nil {
				return err
			}
			var ids []host.ContainerID
			for _, s := range services {
				ids = append(ids, s.ID)
			}
			return client.Logs(cmd.Context(), ids, o, linePrinter(env, asJSON))
		},
	}
	at.register(cmd)
	project.registerLong(cmd)
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with new lines")
	cmd.Flags().IntVarP(&o.Tail, "tail", "n", -1, "only the last lines; -1 shows all")
	cmd.Flags().StringVar(&since, "since", "", "only lines since a time (2006-01-02T15:04:05Z) or for a duration (10m)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("parse --since %q: neither a time nor a duration: %w", s, host.ErrInvalid)
	}
	return t, nil
}

// linePrinter prints a container's lines behind its name.
func linePrinter(env *environment, asJSON bool) func(daemon.NamedLine) {
	if asJSON {
		encoder := json.NewEncoder(env.stdout)
		return func(line daemon.NamedLine) { _ = encoder.Encode(line) }
	}
	return func(line daemon.NamedLine) {
		to := env.stdout
		if line.Stream == "stderr" {
			to = env.stderr
		}
		fmt.Fprintf(to, "%s | %s\n", line.Container, line.Text)
	}
}

func newEventsCommand(env *environment) *cobra.Command {
	var at place
	var asJSON, follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: sleeps, wakes, refusals, with reasons",
		Example: `  torpor events
  torpor events --follow --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			encoder := json.NewEncoder(env.stdout)
			return daemon.NewClient(at.socket).Events(cmd.Context(), follow, func(e host.Event) {
				if asJSON {
					_ = encoder.Encode(e)
					return
				}
				fmt.Fprintf(env.stdout, "%s %s %s", e.Time.Format(time.RFC3339), e.Type, e.Container)
				if e.Reason != "" {
					fmt.Fprintf(env.stdout, " %s", e.Reason)
				}
				for _, key := range []string{"duration_ms", "written_kb", "returned_kb", "exit_code"} {
					if v, ok := e.Attrs[key]; ok {
						fmt.Fprintf(env.stdout, " %s=%s", key, v)
					}
				}
				fmt.Fprintln(env.stdout)
			})
		},
	}
	at.register(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}
