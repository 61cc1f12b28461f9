package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"torpor/block"
	"torpor/block/logvolume"
)

// MapOptions say how the memory of the map is measured, and what it costs that
// a volume is large.
type MapOptions struct {
	MappedGB int // written to the volume, in steps from 1 on
	LimitMB  int // of the map, for the bounded measurement
	Seconds  int // each measurement of rates
}

// MapResult are the figures. Data is zeros, which the disks here keep without
// memory or I/O, so what is measured is the log alone.
type MapResult struct {
	Sizes   []MapFigures `json:"sizes"`
	Limit   Bytes        `json:"limit_bytes"`
	Bounded *MapFigures  `json:"bounded"` // the largest size with the limit
}

// MapFigures are those of one size. Reads and writes are 4 KiB at random places,
// by one goroutine each time.
type MapFigures struct {
	MappedGB  int           `json:"mapped_gb"` // 10^9 bytes
	MapBytes  Bytes         `json:"map_bytes"` // the most that was seen
	Resident  Bytes         `json:"resident_bytes"`
	Writes    float64       `json:"writes"` // a second
	WriteCPU  time.Duration `json:"write_cpu_ns"`
	Reads     float64       `json:"reads"`
	ReadCPU   time.Duration `json:"read_cpu_ns"`
	FillRate  float64       `json:"fill_mib"` // MiB a second
	baseBytes int64
}

const gigabyte = 1_000_000_000

func mapMemory(ctx context.Context, o *VolumeOptions, dir string) (result *MapResult, err error) {
	blocks := blocksOfGB(o.Memory.MappedGB)
	p, err := newPatternLog(dir, diskBytesFor(blocks), blocks*block.BlockBytes, logvolume.Spec{DataShards: dataDisks, ParityShards: parityDisks}, logvolume.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	result = &MapResult{Limit: Bytes(o.Memory.LimitMB) << 20}
	base := settledMemory() // with tables of the disks that nothing has touched
	filled := int64(0)
	for gb := 1; ; gb = min(4*gb, o.Memory.MappedGB) {
		o.Progress(fmt.Sprintf("memory: %d GB mapped", gb))
		begun := time.Now()
		if err := fillZeros(ctx, p.volume, filled, blocksOfGB(gb)); err != nil {
			return result, err
		}
		f := MapFigures{MappedGB: gb, FillRate: float64((blocksOfGB(gb)-filled)*block.BlockBytes) / (1 << 20) / time.Since(begun).Seconds(), baseBytes: base}
		filled = blocksOfGB(gb)
		if used := p.log.Stats().UsedBytes; used != filled*block.BlockBytes {
			return result, fmt.Errorf("%d bytes are mapped, not %d", used, filled*block.BlockBytes)
		}
		if err := o.rates(ctx, p, filled, &f); err != nil {
			return result, err
		}
		result.Sizes = append(result.Sizes, f)
		if gb == o.Memory.MappedGB {
			break
		}
	}
	o.Progress(fmt.Sprintf("memory: the same with a map of %d MiB", o.Memory.LimitMB))
	if err := p.reopen(logvolume.Options{MapBytes: int64(result.Limit)}); err != nil {
		return result, err
	}
	f := MapFigures{MappedGB: o.Memory.MappedGB, baseBytes: base}
	if err := o.rates(ctx, p, filled, &f); err != nil {
		return result, err
	}
	result.Bounded = &f
	return result, nil
}

func blocksOfGB(gb int) int64 { return int64(gb) * gigabyte / block.BlockBytes }

// diskBytesFor leaves a third of the room free: what is measured is not cleaning.
func diskBytesFor(blocks int64) int64 {
	return (blocks*block.BlockBytes*3/2/dataDisks + 1<<30) &^ (1<<20 - 1)
}

// settledMemory is what the process has resident after a collection.
func settledMemory() int64 {
	debug.FreeOSMemory()
	return residentBytes()
}

func fillZeros(ctx context.Context, d block.Device, from, to int64) error {
	const chunk = 256
	zeros := block.AlignedBuffer(chunk * block.BlockBytes)
	for at := from; at < to; at += chunk {
		n := min(chunk, to-at)
		if err := d.WriteAt(zeros[:n*block.BlockBytes], block.Offset(at*block.BlockBytes), 0); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return d.Flush()
}

// rates measures random writes and reads, and memory.
func (o *VolumeOptions) rates(ctx context.Context, p *patternLog, blocks int64, f *MapFigures) (err error) {
	b := block.AlignedBuffer(block.BlockBytes)
	r := rand.New(rand.NewPCG(3, 4))
	place := func() block.Offset { return block.Offset(r.Int64N(blocks) * block.BlockBytes) }
	name := fmt.Sprintf("memory %d GB %d MB", f.MappedGB, p.options.MapBytes>>20)
	err = o.profiled(name+" read", func() (err error) {
		f.Reads, f.ReadCPU, err = o.rate(ctx, p, f, func() error { return p.volume.ReadAt(b, place()) })
		return err
	})
	if err != nil {
		return err
	}
	clear(b)
	err = o.profiled(name+" write", func() (err error) {
		f.Writes, f.WriteCPU, err = o.rate(ctx, p, f, func() error { return p.volume.WriteAt(b, place(), 0) })
		return err
	})
	if err != nil {
		return err
	}
	f.Resident = Bytes(settledMemory() - f.baseBytes)
	return p.volume.Flush()
}

// rate repeats do for some seconds. It returns how often a second, and the CPU
// time of this process for each.
func (o *VolumeOptions) rate(ctx context.Context, p *patternLog, f *MapFigures, do func() error) (float64, time.Duration, error) {
	begun, used := time.Now(), readCPU()
	n := 0
	for time.Since(begun) < time.Duration(o.Memory.Seconds)*time.Second {
		for range 256 {
			if err := do(); err != nil {
				return 0, 0, err
			}
		}
		n += 256
		if n%4096 == 0 {
			f.MapBytes = max(f.MapBytes, Bytes(p.log.Stats().MapBytes))
		}
		if ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
	}
	return float64(n) / time.Since(begun).Seconds(), readCPU().since(used).process / time.Duration(n), nil
}
