package logvolume

import (
	"fmt"

	"torpor/block"
	"torpor/block/logvolume/format"
)

// repairRun compares what was read with its checksums, and reconstructs the
// blocks that are wrong.
func (l *Log) repairRun(r *run, d *disk) error {
	for i := 0; i < len(r.blocks); i++ {
		if r.entries[i].Matches(checksum(r.blocks[i])) {
			continue
		}
		first := i
		for i < len(r.blocks) && !r.entries[i].Matches(checksum(r.blocks[i])) {
			i++
		}
		d.corrupt.Add(int64(i - first))
		l.event(d.name, "disk %s returned wrong data: %d blocks of segment %d", d.name, i-first, r.segment.id)
		wrong := &run{r.segment, r.shard, r.column + first, r.entries[first:i], r.blocks[first:i], source{}}
		if err := l.reconstruct(wrong); err != nil {
			return err
		}
	}
	return nil
}

// reconstruct makes a run from other shards of its columns.
func (l *Log) reconstruct(r *run) error {
	n := len(r.blocks)
	sources, err := l.readOthers(r.segment, r.shard, r.column, n, l.geometry.DataShards)
	if err != nil {
		return fmt.Errorf("read segment %d shard %d: %w", r.segment.id, r.shard, err)
	}
	defer l.putAll(sources)
	wanted := make([]bool, len(sources))
	wanted[r.shard] = true
	if err := l.code.reconstruct(sources, wanted); err != nil {
		return fmt.Errorf("reconstruct segment %d shard %d: %w", r.segment.id, r.shard, err)
	}
	return l.takeFrom(r, sources[r.shard])
}

// readOthers reads columns of as many shards as wanted, but not of one; -1: of all. The
// result has an element for each shard, empty ones for those that were not read.
func (l *Log) readOthers(s *segment, except, column, columns, wanted int) ([][]byte, error) {
	sources := make([][]byte, l.geometry.Shards())
	for patient := false; wanted > 0; {
		read := l.prompt(s, column, func(shard int) bool { return shard != except && sources[shard] == nil })
		switch {
		case len(read) >= wanted:
			wanted -= l.readShards(s, read[:wanted], column, columns, sources, patient)
		case patient:
			l.putAll(sources)
			return nil, fmt.Errorf("too few disks have it: %w", block.ErrCorrupt)
		default:
			// Those that were late have another chance, also those that failed.
			patient = true
			for shard := range sources {
				if len(sources[shard]) == 0 {
					sources[shard] = nil
				}
			}
		}
	}
	for shard := range sources {
		if sources[shard] != nil && len(sources[shard]) == 0 {
			sources[shard] = nil
		}
	}
	return sources, nil
}

// prompt returns the shards that can be read, of those that are wanted, on disks
// that are late last.
func (l *Log) prompt(s *segment, column int, wanted func(shard int) bool) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var shards, late []int
	for shard := range s.shards {
		d := l.sourceLocked(s, shard, column).disk
		switch {
		case d == nil || !wanted(shard):
		case d.lags():
			late = append(late, shard)
		default:
			shards = append(shards, shard)
		}
	}
	return append(shards, late...)
}

// readShards reads columns of some shards at once. Those that fail become empty
// and not nil, also those that are late if it is not patient. It returns how many
// did not.
func (l *Log) readShards(s *segment, shards []int, column, columns int, into [][]byte, patient bool) (done int) {
	results := make(chan bool, len(shards))
	late := (*fetch).fail
	if patient {
		late = nil
	}
	for _, shard := range shards {
		into[shard] = []byte{}
		d, off := l.sourceOf(s, shard, column)
		if d == nil {
			results <- false
			continue
		}
		l.fetch(d, off, columns*format.BlockBytes, late, func(b []byte, err error) {
			if err == nil {
				into[shard] = b
			}
			results <- err == nil
		})
	}
	for range shards {
		if <-results {
			done++
		}
	}
	return done
}

func (l *Log) putAll(buffers [][]byte) {
	for _, b := range buffers {
		l.buffers.put(b)
	}
}

// takeFrom fills a run from what was reconstructed. What is wrong is made from
// every other choice of shards.
func (l *Log) takeFrom(r *run, content []byte) error {
	if r.fill(content) == 0 {
		return nil
	}
	for i, b := range r.blocks {
		if r.entries[i].Matches(checksum(b)) {
			continue
		}
		if err := l.search(r, i); err != nil {
			return err
		}
	}
	return nil
}

// search makes one block from every choice of shards until one has the right
// checksum: one of the sources was wrong.
func (l *Log) search(r *run, i int) error {
	all := make([][]byte, l.geometry.Shards())
	have := l.prompt(r.segment, r.column+i, func(shard int) bool { return shard != r.shard })
	l.readShards(r.segment, have, r.column+i, 1, all, true)
	defer l.putAll(all)
	wanted := make([]bool, len(all))
	wanted[r.shard] = true
	for chosen := range choices(have, l.geometry.DataShards) {
		sources := make([][]byte, len(all))
		for _, shard := range chosen {
			sources[shard] = all[shard]
		}
		if l.code.reconstruct(sources, wanted) == nil && r.entries[i].Matches(checksum(sources[r.shard])) {
			copy(r.blocks[i], sources[r.shard])
			return nil
		}
	}
	return fmt.Errorf("segment %d shard %d column %d: %w", r.segment.id, r.shard, r.column+i, block.ErrCorrupt)
}

// choices yields every way to take n of items. The slice is used again.
func choices(items []int, n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		chosen := make([]int, 0, n)
		var take func(from int) bool
		take = func(from int) bool {
			if len(chosen) == n {
				return yield(chosen)
			}
			for i := from; i <= len(items)-(n-len(chosen)); i++ {
				chosen = append(chosen, items[i])
				if !take(i + 1) {
					return false
				}
				chosen = chosen[:len(chosen)-1]
			}
			return true
		}
		take(0)
	}
}
