package nbd

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"torpor/block"
	"torpor/block/memory"
	"torpor/internal/kerneltest"
)

// BenchmarkFio measures what a client sees of a device in memory:
//
//	go test -run NONE -bench Fio -benchtime 1x ./block/nbd
func BenchmarkFio(b *testing.B) {
	kerneltest.Require(b, kerneltest.Program("fio"))
	_, socket := serve(b, ServerSpec{}, Export{Name: "disk", Device: benchDevice(b)})
	for _, job := range []string{
		"randread 4k 1", "randwrite 4k 1", "randread 4k 32", "randwrite 4k 32", "read 1m 4", "write 1m 4",
	} {
		b.Run(strings.ReplaceAll(job, " ", "-"), func(b *testing.B) {
			how := strings.Fields(job)
			for b.Loop() {
				out := run(b, "fio", "--name=b", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+socket, "--size=256m",
					"--rw="+how[0], "--bs="+how[1], "--iodepth="+how[2],
					"--runtime=4", "--time_based", "--output-format=terse", "--terse-version=3")
				reportFio(b, out)
			}
		})
	}
}

// reportFio takes figures out of fio's terse output, version 3: reads from field
// 5 on, writes from 46 on, each with bandwidth, rate, and the median as the
// seventh of the percentiles.
func reportFio(b *testing.B, out string) {
	fields := strings.Split(out, ";")
	for _, first := range []int{5, 46} {
		if len(fields) < first+19 || fields[first] == "0" {
			continue
		}
		rate, _ := strconv.ParseFloat(fields[first+2], 64)
		kibs, _ := strconv.ParseFloat(fields[first+1], 64)
		_, median, _ := strings.Cut(fields[first+18], "=")
		p50, _ := strconv.ParseFloat(median, 64)
		b.ReportMetric(rate, "IOPS")
		b.ReportMetric(kibs/1024, "MiB/s")
		b.ReportMetric(p50, "us-p50")
	}
	b.ReportMetric(0, "ns/op")
}

// benchDevice is a device in memory without holes.
func benchDevice(b *testing.B) block.Device {
	const sizeBytes = 256 << 20
	d, err := memory.New(memory.Spec{SizeBytes: sizeBytes})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close() })
	p := bytes.Repeat([]byte{1}, mib)
	for at := block.Offset(0); at < sizeBytes; at += mib {
		if err := d.WriteAt(p, at, 0); err != nil {
			b.Fatal(err)
		}
	}
	return d
}
