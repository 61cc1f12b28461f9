package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"torpor/block"
	"torpor/block/logvolume"
)

// CleaningOptions say how the cost of cleaning is measured.
type CleaningOptions struct {
	Segments   int   // of 1 MiB of data
	Full       []int // per cent of the segments' blocks that hold useful data
	Overwrites int   // how many times all of the volume is written, after as many to settle
}

// CleaningResult is the cost of one way of writing. Amplifications are without
// parity, headers and the map.
type CleaningResult struct {
	Full          int     `json:"full_percent"`
	Skew          string  `json:"skew"` // "uniform", or "90/10"
	Amplification float64 `json:"amplification"`
	Map           float64 `json:"map"`       // map blocks for each block that users wrote, besides
	Reference     float64 `json:"reference"` // the bound for uniform writes, else what one stream costs, cleaned greedily
	UserMB        int64   `json:"user_mb"`   // written by users meanwhile
}

const cleaningShardBytes = 256 << 10

// skewed writes a share of the writes to a share of the blocks; both 1 is uniform.
type skew struct {
	name           string
	writes, blocks float64
}

var skews = []skew{{"uniform", 1, 1}, {"90/10", 0.9, 0.1}}

// pick chooses one of n blocks. The hot ones are not neighbours.
func (s skew) pick(r *rand.Rand, n int) int {
	hot := int(float64(n) * s.blocks)
	if hot == n {
		return r.IntN(n)
	}
	at := hot + r.IntN(n-hot)
	if r.Float64() < s.writes {
		at = r.IntN(hot)
	}
	return int(uint64(at) * scatter % uint64(n))
}

// scatter is a prime greater than any count of blocks: multiplying by it is a
// permutation of the blocks.
const scatter = 2_147_483_647

func cleaning(ctx context.Context, o *VolumeOptions) ([]CleaningResult, error) {
	var results []CleaningResult
	for _, full := range o.Cleaning.Full {
		for _, s := range skews {
			name := fmt.Sprintf("cleaning: %d %% full, %s", full, s.name)
			o.Progress(name)
			var r *CleaningResult
			err := o.profiled(name, func() (err error) {
				r, err = cleaningCase(ctx, &o.Cleaning, full, s)
				return err
			})
			if err != nil {
				return results, fmt.Errorf("%d %% full, %s: %w", full, s.name, err)
			}
			o.Progress(fmt.Sprintf("    amplification %.2f, reference %.2f", r.Amplification, r.Reference))
			results = append(results, *r)
		}
	}
	return results, nil
}

func cleaningCase(ctx context.Context, o *CleaningOptions, full int, s skew) (result *CleaningResult, err error) {
	const segmentBlocks = dataDisks * cleaningShardBytes / block.BlockBytes
	blocks := o.Segments * segmentBlocks * full / 100
	// Head and journal of a disk take a little more than 2 MiB.
	diskBytes := int64(o.Segments)*cleaningShardBytes + 2<<20
	p, err := newPatternLog("", diskBytes, int64(blocks)*block.BlockBytes, logvolume.Spec{
		DataShards: dataDisks, ParityShards: parityDisks, ShardBytes: cleaningShardBytes,
		StripeBytes: dataDisks * cleaningShardBytes, JournalBytes: 1 << 20,
	}, logvolume.Options{})
	if err != nil {
		return nil, err
	}
	if n := p.log.Stats().Segments; n != o.Segments {
		return nil, fmt.Errorf("log has %d segments, not %d", n, o.Segments)
	}
	log := p.log // its devices are in memory: nothing is to be closed but it
	defer func() { log.Close() }()
	w := &blockWriter{device: p.volume, rand: rand.New(rand.NewPCG(1, 2)), buffer: block.AlignedBuffer(block.BlockBytes)}
	if err := w.fill(ctx, int64(blocks)); err != nil {
		return nil, err
	}
	pick := func() int64 { return int64(s.pick(w.rand, blocks)) }
	if err := w.overwrite(ctx, int64(blocks*o.Overwrites), pick); err != nil {
		return nil, err
	}
	before := log.Stats()
	if err := w.overwrite(ctx, int64(blocks*o.Overwrites), pick); err != nil {
		return nil, err
	}
	after := log.Stats()
	user := float64(after.UserBytes - before.UserBytes)
	meta := float64(after.MetaBytes - before.MetaBytes)
	written := after.WriteAmplification()*float64(after.UserBytes) - before.WriteAmplification()*float64(before.UserBytes)
	result = &CleaningResult{Full: full, Skew: s.name, Amplification: (written - meta) / user, Map: meta / user, UserMB: int64(user) >> 20}
	if s.writes == 1 {
		result.Reference = uniformBound(float64(full) / 100)
	} else {
		result.Reference = oneStream(o.Segments, segmentBlocks, blocks, o.Overwrites, s)
	}
	return result, nil
}

// uniformBound is 1/(1-u), where (u-1)/ln(u) is the part that is full: see
// docs/cleaning.md.
func uniformBound(full float64) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		if u := (low + high) / 2; (u-1)/math.Log(u) < full {
			low = u
		} else {
			high = u
		}
	}
	return 1 / (1 - low)
}

// blockWriter writes blocks that repeat eight bytes.
type blockWriter struct {
	device block.Device
	rand   *rand.Rand
	buffer []byte
}

// fill writes all blocks in order.
func (w *blockWriter) fill(ctx context.Context, blocks int64) error {
	const chunk = 256
	buffer := block.AlignedBuffer(chunk * block.BlockBytes)
	for at := int64(0); at < blocks; at += chunk {
		n := min(chunk, blocks-at)
		for i := range n {
			fillPattern(buffer[i*block.BlockBytes:(i+1)*block.BlockBytes], w.rand.Uint64())
		}
		if err := w.device.WriteAt(buffer[:n*block.BlockBytes], block.Offset(at*block.BlockBytes), 0); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return w.device.Flush()
}

// overwrite writes n blocks one by one.
func (w *blockWriter) overwrite(ctx context.Context, n int64, pick func() int64) error {
	for i := range n {
		fillPattern(w.buffer, w.rand.Uint64())
		if err := w.device.WriteAt(w.buffer, block.Offset(pick()*block.BlockBytes), 0); err != nil {
			return err
		}
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
