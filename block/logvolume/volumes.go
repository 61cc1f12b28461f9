package logvolume

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"torpor/block/logvolume/format"
)

// Errors of what is done with volumes.
var (
	ErrNoVolume = errors.New("no such volume")
	ErrExists   = errors.New("name is taken")
	ErrBusy     = errors.New("volume is in use")
	ErrName     = errors.New("not a valid name: 1 to 255 letters, digits, '-', '_' and '.'")
)

// VolumeInfo describes a volume or, with Snapshot set, a snapshot of one.
type VolumeInfo struct {
	Volume, Snapshot string
	SizeBytes        int64
	// OwnBytes is what only this one has: it is given back when it is removed and
	// nothing was made from it. Of several in a log that was just opened it is an estimate.
	OwnBytes int64
	// Origin is the snapshot that it was made from, "" for none: "volume@snapshot".
	Origin        string
	CreatedUnixNS int64
}

// addLayer puts a layer in place, and the volume whose top it is. Its parent must
// be there.
func (l *Log) addLayer(y *layer) {
	l.layers[y.id] = y
	l.blocks.AddLayer(layerSpec(y))
	if y.volume != "" {
		if v := l.volumes[y.volume]; v != nil {
			v.layer = y
		} else {
			l.volumes[y.volume] = &Volume{log: l, name: y.volume, layer: y, closed: true}
		}
	}
}

// CreateVolume makes an empty volume. It takes no space. Errors: ErrExists, ErrName.
func (l *Log) CreateVolume(name string, sizeBytes int64) error {
	err := l.changeLayers(func() error {
		if err := l.freeName(name); err != nil {
			return err
		}
		size, err := blocksOf(sizeBytes)
		if err != nil {
			return err
		}
		l.addLayer(l.newLayer(layer{sizeBlocks: size, volume: name}))
		return nil
	})
	if err != nil {
		return fmt.Errorf("create volume %s: %w", name, err)
	}
	return nil
}

func blocksOf(sizeBytes int64) (format.Block, error) {
	size := format.Block((sizeBytes + format.BlockBytes - 1) / format.BlockBytes)
	if sizeBytes <= 0 || size > format.MaxBlock {
		return 0, fmt.Errorf("size of %d bytes is not between 1 and %d", sizeBytes, int64(format.MaxBlock)*format.BlockBytes)
	}
	return size, nil
}

func (l *Log) newLayer(y layer) *layer {
	y.id = l.nextLayer
	y.createdUnixNS = time.Now().UnixNano()
	l.nextLayer++
	return &y
}

// freeName returns an error if a volume can not have a name.
func (l *Log) freeName(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if l.volumes[name] != nil {
		return ErrExists
	}
	for _, y := range l.layers {
		if y.of == name {
			return fmt.Errorf("snapshots of a former volume have it: %w", ErrExists)
		}
	}
	return nil
}

func checkName(name string) error {
	const valid = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	if name == "" || len(name) > format.MaxNameBytes || strings.Trim(name, valid) != "" || name[0] == '.' {
		return ErrName
	}
	return nil
}

// changeLayers changes the layers, and returns when that is durable. No volume
// is changed meanwhile, and nothing is queued when change is called.
func (l *Log) changeLayers(change func() error) error {
	l.layersMu.Lock()
	defer l.layersMu.Unlock()
	// Most of what is to be written is written before anybody waits.
	if err := l.checkpoint(); err != nil {
		return err
	}
	l.mu.Lock()
	l.gate++
	err := l.emptyQueue()
	if err == nil {
		err = change()
	}
	l.mu.Unlock()
	if err == nil {
		err = l.checkpoint()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate--
	l.progress.Broadcast()
	return err
}

// emptyQueue has all changes cut that are queued. Log.mu is held.
func (l *Log) emptyQueue() error {
	l.cutThrough = l.lastSequence
	l.work.Broadcast()
	for len(l.queue.changes) > 0 && l.failed == nil {
		l.progress.Wait()
	}
	return l.failed
}

// Volumes lists volumes and snapshots by name.
func (l *Log) Volumes() []VolumeInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var infos []VolumeInfo
	perLeaf := l.blocksPerUnreadLeaf()
	for _, y := range l.layers {
		if y.volume == "" && y.snapshot == "" {
			continue
		}
		info := VolumeInfo{Volume: y.volume, Snapshot: y.snapshot, SizeBytes: int64(y.sizeBlocks) * format.BlockBytes, CreatedUnixNS: y.createdUnixNS}
		if y.snapshot != "" {
			info.Volume = y.of
		}
		stats := l.blocks.Stats(y.id)
		info.OwnBytes = (stats.MappedBlocks + int64(float64(stats.UncountedLeaves)*perLeaf)) * format.BlockBytes
		info.Origin = l.originOf(y)
		infos = append(infos, info)
	}
	slices.SortFunc(infos, func(a, b VolumeInfo) int {
		return strings.Compare(a.Volume+"\x00"+a.Snapshot, b.Volume+"\x00"+b.Snapshot)
	})
	return infos
}

// blocksPerUnreadLeaf is how many useful blocks leaves have, on average, that were
// not in memory since the log was opened. All volumes together count all blocks.
func (l *Log) blocksPerUnreadLeaf() float64 {
	counted, leaves := int64(0), 0
	for id := range l.layers {
		stats := l.blocks.Stats(id)
		counted += stats.MappedBlocks
		leaves += stats.UncountedLeaves
	}
	if leaves == 0 {
		return 0
	}
	return float64(int64(l.live)-counted) / float64(leaves)
}

func (l *Log) originOf(y *layer) string {
	for id := y.parent; id != 0; id = l.layers[id].parent {
		if p := l.layers[id]; p.snapshot != "" {
			return p.of + "@" + p.snapshot
		}
	}
	return ""
}

// OpenVolume returns a volume. It may be opened once at a time. Errors:
// ErrNoVolume, ErrBusy.
func (l *Log) OpenVolume(name string) (*Volume, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.volumes[name]
	switch {
	case v == nil:
		return nil, fmt.Errorf("open volume %s: %w", name, ErrNoVolume)
	case !v.closed:
		return nil, fmt.Errorf("open volume %s: %w", name, ErrBusy)
	}
	opened := &Volume{log: l, name: name, layer: v.layer}
	l.volumes[name] = opened
	return opened, nil
}

// Snapshot keeps what a volume holds at this moment, under a name of its own. The
// volume may be in use: changes wait for some milliseconds. Errors: ErrNoVolume,
// ErrExists, ErrName.
func (l *Log) Snapshot(volume, snapshot string) error {
	err := l.changeLayers(func() error {
		v := l.volumes[volume]
		if v == nil {
			return ErrNoVolume
		}
		if err := checkName(snapshot); err != nil {
			return err
		}
		if l.snapshotOf(volume, snapshot) != nil {
			return ErrExists
		}
		below := v.layer
		below.volume, below.snapshot, below.of, below.createdUnixNS = "", snapshot, volume, time.Now().UnixNano()
		l.addLayer(l.newLayer(layer{parent: below.id, sizeBlocks: below.sizeBlocks, volume: volume}))
		return nil
	})
	if err != nil {
		return fmt.Errorf("snapshot %s@%s: %w", volume, snapshot, err)
	}
	return nil
}

func (l *Log) snapshotOf(volume, snapshot string) *layer {
	for _, y := range l.layers {
		if y.of == volume && y.snapshot == snapshot && snapshot != "" {
			return y
		}
	}
	return nil
}

// Clone makes a volume that begins as a snapshot. Errors: ErrNoVolume, ErrExists, ErrName.
func (l *Log) Clone(volume, snapshot, name string) error {
	err := l.changeLayers(func() error {
		y := l.snapshotOf(volume, snapshot)
		if y == nil {
			return ErrNoVolume
		}
		if err := l.freeName(name); err != nil {
			return err
		}
		l.addLayer(l.newLayer(layer{parent: y.id, sizeBlocks: y.sizeBlocks, volume: name}))
		return nil
	})
	if err != nil {
		return fmt.Errorf("clone %s@%s to %s: %w", volume, snapshot, name, err)
	}
	return nil
}

// Remove removes a snapshot, or a volume that is not open and has none if
// snapshot is "". What others were made from it stays. Its space is given back in the
// background. Errors: ErrNoVolume, ErrBusy.
func (l *Log) Remove(volume, snapshot string) error {
	err := l.changeLayers(func() error {
		y, err := l.removable(volume, snapshot)
		if err != nil {
			return err
		}
		y.volume, y.snapshot, y.of, y.removed = "", "", "", true
		if snapshot == "" {
			delete(l.volumes, volume)
		}
		return nil
	})
	l.wakeCleaner()
	if err != nil && snapshot == "" {
		return fmt.Errorf("remove volume %s: %w", volume, err)
	} else if err != nil {
		return fmt.Errorf("remove snapshot %s@%s: %w", volume, snapshot, err)
	}
	return nil
}

func (l *Log) removable(volume, snapshot string) (*layer, error) {
	if snapshot != "" {
		if y := l.snapshotOf(volume, snapshot); y != nil {
			return y, nil
		}
		return nil, ErrNoVolume
	}
	v := l.volumes[volume]
	switch {
	case v == nil:
		return nil, ErrNoVolume
	case !v.closed:
		return nil, ErrBusy
	}
	for _, y := range l.layers {
		if y.of == volume {
			return nil, fmt.Errorf("it has snapshots, %s is one: %w", y.snapshot, ErrBusy)
		}
	}
	return v.layer, nil
}

// Resize makes a volume larger or smaller; what is beyond its end then is gone.
// Errors: ErrNoVolume.
func (l *Log) Resize(volume string, sizeBytes int64) error {
	err := l.changeLayers(func() error {
		v := l.volumes[volume]
		if v == nil {
			return ErrNoVolume
		}
		size, err := blocksOf(sizeBytes)
		if err != nil {
			return err
		}
		l.drops++
		v.layer.sizeBlocks = size
		return l.resizeMap(v.layer)
	})
	if err != nil {
		return fmt.Errorf("resize volume %s: %w", volume, err)
	}
	return nil
}

// resizeMap gives a layer's map its size.
func (l *Log) resizeMap(y *layer) error {
	for {
		done, missing := l.blocks.Resize(y.id, y.sizeBlocks, tidyLeaves, l.useless)
		switch {
		case missing != nil:
			if err := l.load(missing); err != nil {
				return err
			}
		case done:
			return nil
		}
	}
}

// tidyLeaves is how many leaves are taken apart under Log.mu at once.
const tidyLeaves = 64

// tidy takes removed layers apart: one without others above it altogether, one
// with one above is merged into that. It runs in the cleaner.
func (l *Log) tidy() error {
	l.cleanMu.Lock()
	defer l.cleanMu.Unlock()
	changed := false
	for {
		l.mu.Lock()
		y, above := l.nextRemoved()
		if y == nil {
			l.mu.Unlock()
			break
		}
		changed = true
		err := l.takeApart(y, above)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	return l.checkpoint()
}

// nextRemoved returns a removed layer and the only one above it, if there is one.
func (l *Log) nextRemoved() (removed, above *layer) {
	if l.failed != nil || l.ending {
		return nil, nil
	}
	for _, y := range l.layers {
		if !y.removed {
			continue
		}
		switch children := l.blocks.Children(y.id); len(children) {
		case 0:
			return y, nil
		case 1:
			return y, l.layers[children[0]]
		}
	}
	return nil, nil
}

// takeApart is one layer's end. Log.mu is held, and released between steps.
func (l *Log) takeApart(y, above *layer) error {
	for {
		if l.failed != nil || l.ending {
			return nil
		}
		l.drops++
		step := l.blocks.Remove
		if above != nil {
			step = func(id format.LayerID, leaves int, old func(format.Entry)) (bool, *missingLeaf) {
				return l.blocks.Merge(id, above.id, leaves, old)
			}
		}
		done, missing := step(y.id, tidyLeaves, l.useless)
		if missing != nil {
			if err := l.load(missing); err != nil {
				return err
			}
			continue
		}
		if done {
			if above != nil {
				above.parent = y.parent
			}
			delete(l.layers, y.id)
			return nil
		}
		crowded := l.crowded(tidyLeaves)
		l.mu.Unlock()
		var err error
		if crowded {
			err = l.checkpoint()
		}
		l.mu.Lock()
		if err != nil {
			return err
		}
	}
}
