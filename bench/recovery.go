package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"torpor/block"
	"torpor/block/logvolume"
)

// RecoveryOptions say what is recovered.
type RecoveryOptions struct {
	MappedGB int // written to the volume
	TailMB   int // written at random after the last checkpoint; 0: nearly as much as is written between two
}

// RecoveryResult are the figures.
type RecoveryResult struct {
	MappedGB int           `json:"mapped_gb"`
	Fill     time.Duration `json:"fill_ns"`
	Cases    []Recovered   `json:"cases"`
}

// Recovered is one crash.
type Recovered struct {
	Name    string        `json:"name"`
	TailMB  int           `json:"tail_mb"`
	Took    time.Duration `json:"took_ns"` // Open, until changes are possible
	CPU     time.Duration `json:"cpu_ns"`
	Rows    int           `json:"rows"`
	Records int           `json:"records"`
	Checked int           `json:"checked"` // blocks that were read and right
}

// recovery fills a volume with blocks that say what they are, and crashes it
// several times. What the log writes besides data is on files, past the page cache.
func recovery(ctx context.Context, o *VolumeOptions, dir string) (result *RecoveryResult, err error) {
	blocks := blocksOfGB(o.Recovery.MappedGB)
	p, err := newPatternLog(dir, diskBytesFor(blocks), blocks*block.BlockBytes, logvolume.Spec{DataShards: dataDisks, ParityShards: parityDisks}, logvolume.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	w := &stampWriter{log: p, rand: rand.New(rand.NewPCG(5, 6)), versions: make([]byte, blocks), buffer: block.AlignedBuffer(256 * block.BlockBytes)}
	o.Progress(fmt.Sprintf("recovery: map %d GB", o.Recovery.MappedGB))
	begun := time.Now()
	if err := w.writeAll(ctx); err != nil {
		return nil, err
	}
	result = &RecoveryResult{MappedGB: o.Recovery.MappedGB, Fill: time.Since(begun)}
	tail := int64(o.Recovery.TailMB) << 20
	if tail == 0 { // see logvolume.Options.CheckpointBytes
		tail = min(max(blocks*block.BlockBytes/16, 64<<20), 8<<30) * 9 / 10
	}
	for _, c := range []struct {
		name  string
		bytes int64
		write func(ctx context.Context, n int64) error
	}{
		{"at once after a checkpoint", 0, w.writeRandom},
		{"after sequential writes", tail, w.writeSequential},
		{"after random writes", tail, w.writeRandom},
	} {
		o.Progress(fmt.Sprintf("recovery: crash %s, %d MiB", c.name, c.bytes>>20))
		// Every change of volumes is a checkpoint.
		if err := p.log.CreateVolume("mark", block.BlockBytes); err != nil {
			return result, err
		}
		if err := errors.Join(p.log.Remove("mark", ""), c.write(ctx, c.bytes/block.BlockBytes), p.volume.Flush(), p.crash()); err != nil {
			return result, err
		}
		r := Recovered{Name: c.name, TailMB: int(c.bytes >> 20)}
		if err := o.recover(ctx, p, w, &r); err != nil {
			return result, fmt.Errorf("crash %s: %w", c.name, err)
		}
		o.Progress(fmt.Sprintf("    %.2f s, %d rows", r.Took.Seconds(), r.Rows))
		result.Cases = append(result.Cases, r)
	}
	return result, nil
}

// recover opens the log and looks at what is there.
func (o *VolumeOptions) recover(ctx context.Context, p *patternLog, w *stampWriter, r *Recovered) error {
	begun, used := time.Now(), readCPU()
	err := o.profiled("recovery "+r.Name, p.open)
	if err != nil {
		return err
	}
	r.Took, r.CPU = time.Since(begun), readCPU().since(used).process
	if p.volume, err = p.log.OpenVolume(volumeName); err != nil {
		return err
	}
	stats := p.log.Stats()
	r.Rows, r.Records = stats.Recovery.Rows, stats.Recovery.Records
	r.Checked, err = w.check(ctx)
	return err
}

// stampWriter writes blocks that hold their number and version.
type stampWriter struct {
	log      *patternLog
	rand     *rand.Rand
	versions []byte // by block
	buffer   []byte
	recent   []int64 // blocks that were written at random
}

func stamp(at int64, version byte) uint64 { return uint64(at)<<8 | uint64(version) }

// write writes n neighbouring blocks, up to 256, with the next version.
func (w *stampWriter) write(at, n int64) error {
	for i := range n {
		w.versions[at+i]++
		fillPattern(w.buffer[i*block.BlockBytes:(i+1)*block.BlockBytes], stamp(at+i, w.versions[at+i]))
	}
	return w.log.volume.WriteAt(w.buffer[:n*block.BlockBytes], block.Offset(at*block.BlockBytes), 0)
}

func (w *stampWriter) writeAll(ctx context.Context) error {
	return w.writeSequential(ctx, int64(len(w.versions)))
}

func (w *stampWriter) writeSequential(ctx context.Context, n int64) error {
	for at := int64(0); at < n; at += 256 {
		if err := errors.Join(w.write(at, min(256, n-at)), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

func (w *stampWriter) writeRandom(ctx context.Context, n int64) error {
	for i := range n {
		at := w.rand.Int64N(int64(len(w.versions)))
		if i%1000 == 0 {
			w.recent = append(w.recent, at)
		}
		if err := errors.Join(w.write(at, 1), ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// check reads some blocks everywhere, and some that were written last.
func (w *stampWriter) check(ctx context.Context) (checked int, err error) {
	places := w.recent
	for range 5000 {
		places = append(places, w.rand.Int64N(int64(len(w.versions))))
	}
	b := w.buffer[:block.BlockBytes]
	for _, at := range places {
		if err := errors.Join(w.log.volume.ReadAt(b, block.Offset(at*block.BlockBytes)), ctx.Err()); err != nil {
			return checked, err
		}
		if got, want := binary.LittleEndian.Uint64(b), stamp(at, w.versions[at]); got != want || !repeats(b) {
			return checked, fmt.Errorf("block %d holds %x, not %x", at, got, want)
		}
		checked++
	}
	return checked, nil
}
