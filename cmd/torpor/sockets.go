package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
	"torpor/keeper"
)

// serviceSocket is a connection as sockets shows it.
type serviceSocket struct {
	Service host.ContainerID `json:"service"`
	keeper.Connection
}

func newSocketsCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "sockets [SERVICE...]",
		Short: "List the TCP connections of services: how each is kept while they sleep, and why",
		Long: `List the TCP connections of services, one a line.

STATE says how a connection is kept:
  awake      the service runs and has its socket
  parked     the service sleeps; its init holds the socket (4 KB of kernel memory)
  suspended  the service sleeps; there is no socket, a record of about 200 bytes
             and a filter hold the connection until its next packet

WHY is what decided it; of a service that is awake, what is known of the
connection. The setting is x-torpor: {connections: auto|park|suspend}.`,
		Example: `  torpor sockets
  torpor sockets web
  torpor sockets --json web | jq '.[] | select(.state == "parked")'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := daemon.NewClient(at.socket)
			services, err := project.find(cmd.Context(), env, client, args)
			if err != nil {
				return err
			}
			sockets, err := listSockets(cmd.Context(), client, services)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(sockets)
			}
			return printSockets(env.stdout, sockets)
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// listSockets asks for the connections of services; those that do not run have
// none.
func listSockets(ctx context.Context, client *daemon.Client, services []daemon.ServiceStatus) ([]serviceSocket, error) {
	all := []serviceSocket{}
	for _, s := range services {
		report, err := client.Sockets(ctx, s.ID)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, c := range report.Connections {
			all = append(all, serviceSocket{s.ID, c})
		}
	}
	return all, nil
}

func printSockets(w io.Writer, sockets []serviceSocket) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tLOCAL\tREMOTE\tSTATE\tIDLE\tWHY")
	for _, s := range sockets {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Service, s.Local, s.Remote, s.State, units.HumanDuration(s.Idle.Round(time.Second)), s.Why)
	}
	return table.Flush()
}
