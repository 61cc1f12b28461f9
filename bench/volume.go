package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
)

// VolumeOptions say what torpor bench volume measures.
type VolumeOptions struct {
	Parts    []string // of VolumeParts
	Dir      string   // where backing files are written, on the file system that is to be measured
	Progress func(line string)
	// ProfileDir gets a CPU profile of this process for each measurement, if it is not "".
	ProfileDir string

	IO       VolumeIOOptions
	Cleaning CleaningOptions
	Memory   MapOptions
	Recovery RecoveryOptions
}

// VolumeParts are what can be measured of volumes.
var VolumeParts = []string{"io", "cleaning", "memory", "recovery"}

// VolumeResult are the figures; parts that were not measured are nil.
type VolumeResult struct {
	Load     []string         `json:"load"` // load average of 1, 5 and 15 minutes, before and after
	IO       *VolumeIOResult  `json:"io,omitempty"`
	Cleaning []CleaningResult `json:"cleaning,omitempty"`
	Memory   *MapResult       `json:"memory,omitempty"`
	Recovery *RecoveryResult  `json:"recovery,omitempty"`
}

// Volume measures log volumes. Files are removed and devices detached when it
// returns, also when ctx ends. The results that there are come with an error.
func Volume(ctx context.Context, o VolumeOptions) (result *VolumeResult, err error) {
	for _, part := range o.Parts {
		if !slices.Contains(VolumeParts, part) {
			return nil, fmt.Errorf("measure %s: it is none of %s", part, strings.Join(VolumeParts, ", "))
		}
	}
	dir, err := os.MkdirTemp(o.Dir, "torpor-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	result = &VolumeResult{Load: []string{loadAverage()}}
	defer func() { result.Load = append(result.Load, loadAverage()) }()
	for _, part := range o.Parts {
		switch part {
		case "io":
			result.IO, err = volumeIO(ctx, &o, dir)
		case "cleaning":
			result.Cleaning, err = cleaning(ctx, &o)
		case "memory":
			result.Memory, err = mapMemory(ctx, &o, dir)
		case "recovery":
			result.Recovery, err = recovery(ctx, &o, dir)
		}
		if err != nil {
			return result, fmt.Errorf("measure %s: %w", part, err)
		}
	}
	return result, nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	fields := strings.Fields(string(b))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// profiled calls f, and writes a profile of it where one is wanted.
func (o *VolumeOptions) profiled(name string, f func() error) error {
	if o.ProfileDir == "" {
		return f()
	}
	file, err := os.Create(filepath.Join(o.ProfileDir, strings.NewReplacer(" ", "-", "/", "-").Replace(name)+".pprof"))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}
