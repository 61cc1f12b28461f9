package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"torpor/daemon"
	"torpor/host"
	"torpor/volume"
)

func newVolumeCommand(env *environment) *cobra.Command {
	var at place
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Make, use and look after virtual disks",
		Long: `Make, use and look after volumes: virtual disks that lie in an erasure-coded log on
one or more disks of this machine. Compose files use them by driver: torpor.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	at.register(cmd)
	cmd.AddCommand(
		newVolumeCreateCommand(env, &at), newVolumeListCommand(env, &at), newVolumeInspectCommand(env, &at),
		newVolumeAttachCommand(env, &at), newVolumeDetachCommand(env, &at), newVolumeExportCommand(env, &at),
		newVolumeSnapshotCommand(env, &at), newVolumeCloneCommand(env, &at), newVolumeResizeCommand(env, &at), newVolumeRemoveCommand(env, &at),
		newVolumeDiskCommand(env, &at), newVolumeScrubCommand(env, &at), newVolumeCheckCommand(env, &at), newVolumeServeCommand(env),
	)
	return cmd
}

func newVolumeListCommand(env *environment, at *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List volumes: how large, how well, where attached",
		Long: `List volumes. USED is what a volume takes of its log, with its snapshots and without
parity. STATE is ok; degraded while disks are out or missing, with all content
there; or failed.`,
		Example: "  torpor volume ls\n  torpor volume ls --json | jq '.[] | select(.log.state != \"ok\")'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := daemon.NewClient(at.socket).Volumes(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(all)
			}
			return printVolumes(env.stdout, all)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printVolumes(w io.Writer, all []daemon.VolumeInfo) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tSIZE\tUSED\tLAYOUT\tSTATE\tATTACHED\tUSED BY")
	for _, v := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, size(v.SizeBytes), size(v.UsedBytes), v.Log.Layout, volumeState(v),
			orDefault(strings.Join(places(v), ", "), "-"), orDefault(joined(v.UsedBy), "-"))
	}
	return table.Flush()
}

func size(bytes int64) string { return units.BytesSize(float64(bytes)) }

// volumeState says how a volume is, and why.
func volumeState(v daemon.VolumeInfo) string {
	state, reason := string(v.Log.State), v.Log.Reason
	if v.Problem != "" {
		state, reason = string(volume.Failed), v.Problem
	}
	if v.Log.Job != nil {
		state += fmt.Sprintf(", %s %d%%", v.Log.Job.What, percent(v.Log.Job.DoneBytes, v.Log.Job.TotalBytes))
	}
	if reason != "" {
		state += " (" + reason + ")"
	}
	return state
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 0
	}
	return min(100, int64(float64(done)/float64(total)*100))
}

// places are where a volume can be reached.
func places(v daemon.VolumeInfo) []string {
	var all []string
	if v.Device != "" {
		all = append(all, v.Device)
	}
	for _, e := range v.Exports {
		all = append(all, e.URI)
	}
	return all
}

func joined(ids []host.ContainerID) string {
	var texts []string
	for _, id := range ids {
		texts = append(texts, string(id))
	}
	return strings.Join(texts, ", ")
}

func newVolumeInspectCommand(env *environment, at *place) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "inspect VOLUME",
		Short:   "Show all that is known of a volume: snapshots, exports, disks, jobs",
		Example: "  torpor volume inspect data\n  torpor volume inspect data --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := daemon.NewClient(at.socket).Volume(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(env.stdout).Encode(v)
			}
			return printVolume(env.stdout, v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// printVolume writes one fact a line, leaving out what there is none of.
func printVolume(w io.Writer, v daemon.VolumeInfo) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, text)
		}
	}
	line("volume", v.Name)
	line("state", volumeState(v))
	line("size", size(v.SizeBytes))
	line("used", size(v.UsedBytes))
	line("file system", strings.TrimSpace(string(v.FS)+" "+string(v.Format)))
	line("attached", v.Device)
	for _, e := range v.Exports {
		line("exported", fmt.Sprintf("%s (%d clients)", e.URI, e.Clients))
	}
	line("mounted", v.MountPoint)
	line("used by", joined(v.UsedBy))
	line("clone of", v.Origin)
	for _, s := range v.Snapshots {
		line("snapshot", fmt.Sprintf("%s of %s, %s", s.Name, s.Created.Local().Format("2006-01-02 15:04:05"), size(s.UsedBytes)))
	}
	line("log", string(v.Log.ID))
	line("layout", v.Log.Layout.String())
	line("capacity", fmt.Sprintf("%s, %s used by all volumes of the log", size(v.Log.CapacityBytes), size(v.Log.UsedBytes)))
	if w := v.Log.Written; w.UserBytes > 0 {
		line("written", fmt.Sprintf("%s by users, %s to disks (%.2f times as much)", size(w.UserBytes), size(w.DiskBytes), float64(w.DiskBytes)/float64(w.UserBytes)))
	}
	for _, d := range v.Log.Disks {
		text := fmt.Sprintf("%s %s, %s of %s", d.Path, d.State, size(d.UsedBytes), size(d.SizeBytes))
		if d.Reason != "" {
			text += " (" + d.Reason + ")"
		}
		line("disk", text)
	}
	if j := v.Log.Job; j != nil {
		line("job", fmt.Sprintf("%s: %s of %s", j.What, size(j.DoneBytes), size(j.TotalBytes)))
	}
	return table.Flush()
}
