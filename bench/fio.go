package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// fioFigures are what fio says of one job.
type fioFigures struct {
	rate     float64 // a second
	mibs     float64 // MiB a second
	p50, p99 time.Duration
	ios      int64
	cpu      time.Duration // of fio itself
}

// fioReport is what of fio's JSON is looked at.
type fioReport struct {
	Jobs []struct {
		Read  fioDirection `json:"read"`
		Write fioDirection `json:"write"`
		Sync  struct {
			Latency fioLatency `json:"lat_ns"`
		} `json:"sync"`
	} `json:"jobs"`
}

type fioDirection struct {
	TotalIOs int64      `json:"total_ios"`
	Rate     float64    `json:"iops"`
	Bytes    float64    `json:"bw_bytes"`
	Latency  fioLatency `json:"clat_ns"`
}

type fioLatency struct {
	Percentile map[string]int64 `json:"percentile"`
}

// runFio runs one job, and ends it when ctx does. For jobs that sync after each
// write the latency is that of both.
func runFio(ctx context.Context, args []string) (*fioFigures, error) {
	cmd := exec.CommandContext(ctx, "fio", append([]string{"--name=bench", "--output-format=json", "--group_reporting"}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, problems.String())
	}
	text := out.Bytes()
	if i := bytes.IndexByte(text, '{'); i > 0 { // warnings come before
		text = text[i:]
	}
	var report fioReport
	if err := json.Unmarshal(text, &report); err != nil || len(report.Jobs) != 1 {
		return nil, fmt.Errorf("read report of fio: %d jobs: %w", len(report.Jobs), err)
	}
	job := report.Jobs[0]
	d := job.Read
	if job.Write.TotalIOs > 0 {
		d = job.Write
	}
	at := func(percentile string) time.Duration {
		return time.Duration(d.Latency.Percentile[percentile] + job.Sync.Latency.Percentile[percentile])
	}
	return &fioFigures{
		rate: d.Rate, mibs: d.Bytes / (1 << 20), p50: at("50.000000"), p99: at("99.000000"), ios: d.TotalIOs,
		cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
	}, nil
}
