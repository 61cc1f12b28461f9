package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
)

func newCloneCommand(env *environment) *cobra.Command {
	var at place
	var project projectFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "clone SERVICE N",
		Short: "Make N more instances of a service from its ready checkpoint",
		Long: `Make N more instances of a service from its ready checkpoint. They share its pages,
and have an address, a name and a writable layer of their own; published ports
are balanced over all. They sleep and wake on their own. The next torpor up makes
as many instances as the compose file says.`,
		Example: `  torpor clone web 10
  torpor up -d --scale web=1   # away with them`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 1 {
				return fmt.Errorf("clone %s: %q is no number of instances: %w", args[0], args[1], host.ErrInvalid)
			}
			client := daemon.NewClient(at.socket)
			services, err := project.find(cmd.Context(), env, client, args[:1])
			if err != nil {
				return err
			}
			return client.Clone(cmd.Context(), daemon.CloneRequest{ID: services[0].ID, Add: n}, progressPrinter(env, asJSON))
		},
	}
	at.register(cmd)
	project.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

// scaleFlag is a flag that takes SERVICE=N, several times.
type scaleFlag struct{ numbers map[host.ServiceName]int }

func (f *scaleFlag) String() string { return "" }

// Type implements pflag.Value.
func (*scaleFlag) Type() string { return "SERVICE=N" }

// Set implements pflag.Value.
func (f *scaleFlag) Set(text string) error {
	name, number, ok := strings.Cut(text, "=")
	n, err := strconv.ParseUint(number, 10, 16)
	if !ok || name == "" || err != nil {
		return fmt.Errorf("read scale %q: want SERVICE=N", text)
	}
	if f.numbers == nil {
		f.numbers = map[host.ServiceName]int{}
	}
	f.numbers[host.ServiceName(name)] = int(n)
	return nil
}

// apply overrides what the file says.
func (f *scaleFlag) apply(p *host.ProjectSpec) error {
	for name, n := range f.numbers {
		found := false
		for i := range p.Services {
			if p.Services[i].Name == name {
				p.Services[i].Scale, found = n, true
			}
		}
		if !found {
			return fmt.Errorf("scale %s: no such service is started: %w", name, host.ErrNotFound)
		}
	}
	return nil
}
