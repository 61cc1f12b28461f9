package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newPsCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var asJSON, all, verbose bool
	cmd := &cobra.Command{
		Use:   "ps [SERVICE...]",
		Short: "List services: which sleep, what they hold, why others are awake",
		Example: `  torpor ps
  torpor ps -v web
  torpor ps -a --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			list := client.Services
			if verbose {
				list = client.ServicesWithConnections
			}
			var services []daemon.ServiceStatus
			var err error
			if all {
				services, err = list(cmd.Context(), "")
			} else {
				services, err = project.findBy(cmd.Context(), env, list, args)
			}
			if err != nil {
				return err
			}
			services = slices.DeleteFunc(services, func(s daemon.ServiceStatus) bool { return s.Spare })
			if asJSON {
				if services == nil {
					services = []daemon.ServiceStatus{}
				}
				return json.NewEncoder(env.stdout).Encode(services)
			}
			return printServices(env.stdout, services)
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "services of all projects")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "say what is known of their connections")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printServices writes a table, with what is known of a service's connections
// in lines below its own.
func printServices(w io.Writer, services []daemon.ServiceStatus) error {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tIMAGE\tSTATE\tPORTS\tMEMORY\tLAST WAKE")
	for _, s := range services {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.Image, describe(s), strings.Join(s.Ports, ", "), units.BytesSize(float64(s.MemoryBytes)), lastWake(s))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	rows := slices.Collect(strings.Lines(text.String()))
	for i, s := range services { // the lines below are no rows: columns would be as wide as them
		for _, line := range s.Connections {
			rows[i+1] += "  " + line + "\n"
		}
	}
	_, err := io.WriteString(w, strings.Join(rows, ""))
	return err
}

// describe says in a few words what a service does and why.
func describe(s daemon.ServiceStatus) string {
	text := string(s.State)
	if !s.Since.IsZero() {
		text += " " + units.HumanDuration(time.Since(s.Since))
	}
	if s.Health != "" {
		text += ", " + s.Health
	}
	switch {
	case s.State == host.Asleep && s.ConnectionsHeld > 0:
		text += ", " + held(s)
	case s.NeverSleeps != "" && s.State == host.Awake:
		text += " (never sleeps: " + s.NeverSleeps + ")"
	case s.Reason != "":
		text += " (" + s.Reason + ")"
	}
	if len(s.Shared) > 0 {
		text += "; shares random state with other instances: " + strings.Join(s.Shared, ", ") + " (checkpoint: never is the way out)"
	}
	return text
}

// held says how a sleeping service's connections are kept.
func held(s daemon.ServiceStatus) string {
	text := fmt.Sprintf("%d connections held", s.ConnectionsHeld)
	if s.ConnectionsHeld == 1 {
		text = "1 connection held"
	}
	switch {
	case s.ConnectionsSuspended == s.ConnectionsHeld:
		text += " (suspended)"
	case s.ConnectionsSuspended > 0:
		text += fmt.Sprintf(" (%d suspended)", s.ConnectionsSuspended)
	}
	if s.ConnectionsParkedWhy != "" {
		text += "; parked: " + s.ConnectionsParkedWhy
	}
	return text
}

// starts says how long a cold start took and one from the ready checkpoint.
func starts(s daemon.ServiceStatus) string {
	if s.ColdStart == 0 {
		return "-"
	}
	if s.ReadyStart == 0 {
		return ms(s.ColdStart) + " ms / -"
	}
	return fmt.Sprintf("%s ms / %s ms", ms(s.ColdStart), ms(s.ReadyStart))
}

func lastWake(s daemon.ServiceStatus) string {
	if s.LastWake == 0 {
		return "-"
	}
	return fmt.Sprintf("%s ms", ms(s.LastWake))
}

func newStatsCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "stats [SERVICE...]",
		Short:   "Show memory, sleeps and wakes of services",
		Example: "  torpor stats\n  torpor stats --json web",
		RunE: func(cmd *cobra.Command, args []string) error {
			services, err := project.find(cmd.Context(), env, daemon.NewClient(at.socket), args)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(services)
			}
			table := tabwriter.NewWriter(env.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tSTATE\tMEMORY\tRETURNED\tSLEEPS\tLAST SLEEP\tLAST WAKE\tWOKEN BY\tCOLD START / FROM CHECKPOINT")
			for _, s := range services {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s ms\t%s\t%s\t%s\n", s.ID, s.State, units.BytesSize(float64(s.MemoryBytes)),
					units.BytesSize(float64(s.ReturnedBytes)), s.Cycles, ms(s.LastSleep), lastWake(s), s.LastWakeReason, starts(s))
			}
			return table.Flush()
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
