package object

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"torpor/host"
	"torpor/kernel/sysv"
	"torpor/kernel/visit"
)

// SegmentSpec is a System V shared memory segment.
type SegmentSpec struct {
	ID        int    `json:"id"`
	Key       int32  `json:"key"`
	SizeBytes int64  `json:"size_bytes"`
	Mode      uint32 `json:"mode"`
	UID       uint32 `json:"uid,omitempty"`
	GID       uint32 `json:"gid,omitempty"`
}

func segmentName(id int) string { return "segment-" + strconv.Itoa(id) }

// DescribeSegments describes all segments of the container's ipc namespace,
// among which those that processes have attached, ids, must be. Contents are
// written into dir, which is the caller's to sync, as segment-ID. The processes
// must be stopped. What can not be described is a *host.Refusal.
func DescribeSegments(c Container, ids []int, dir string) (specs []SegmentSpec, err error) {
	err = visit.Do(c.PID, visit.IPC, func() error {
		all, err := sysv.Segments()
		if err != nil {
			return err
		}
		if err := refuseSegments(all, ids); err != nil {
			return err
		}
		for _, s := range all {
			if err := saveSegment(s, dir); err != nil {
				return fmt.Errorf("save segment %d: %w", s.ID, err)
			}
			specs = append(specs, SegmentSpec{ID: s.ID, Key: s.Key, SizeBytes: s.LenBytes, Mode: s.Mode, UID: s.UID, GID: s.GID})
		}
		return nil
	})
	return specs, err
}

// refuseSegments names what of the namespace can not be made again.
func refuseSegments(all []sysv.Segment, ids []int) error {
	var reasons []string
	semaphores, queues, err := sysv.Others()
	if err != nil {
		return err
	}
	if semaphores > 0 {
		reasons = append(reasons, fmt.Sprintf("%d System V semaphore sets", semaphores))
	}
	if queues > 0 {
		reasons = append(reasons, fmt.Sprintf("%d System V message queues", queues))
	}
	var sum int64
	for _, s := range all {
		if s.Dying {
			reasons = append(reasons, fmt.Sprintf("shared memory segment %d, which is marked to be destroyed", s.ID))
		}
		sum += s.LenBytes
	}
	if sum > contentMost {
		reasons = append(reasons, fmt.Sprintf("%d MB of System V shared memory; a checkpoint takes %d MB", sum>>20, contentMost>>20))
	}
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(s sysv.Segment) bool { return s.ID == id }) {
			reasons = append(reasons, fmt.Sprintf("shared memory segment %d, which is not the container's", id))
		}
	}
	if len(reasons) > 0 {
		return &host.Refusal{Reasons: reasons}
	}
	return nil
}

func saveSegment(s sysv.Segment, dir string) error {
	return sysv.Do(s.ID, false, func(content []byte) error {
		return os.WriteFile(filepath.Join(dir, segmentName(s.ID)), content, 0o600)
	})
}

// MakeSegments makes segments with their ids and content in the container's ipc
// namespace. On an error none is left. Errors: EEXIST where an id or a key is
// taken; host.ErrCorrupt.
func MakeSegments(c Container, dir string, specs []SegmentSpec) error {
	for _, s := range specs {
		if s.ID < 0 || s.SizeBytes <= 0 || s.SizeBytes > contentMost || s.Mode&^0o777 != 0 {
			return fmt.Errorf("make segment %d: %w", s.ID, host.ErrCorrupt)
		}
	}
	return visit.Do(c.PID, visit.IPC, func() error {
		for i, s := range specs {
			err := makeSegment(s, dir)
			if err == nil {
				continue
			}
			for _, made := range specs[:i] {
				err = errors.Join(err, sysv.Remove(made.ID))
			}
			return err
		}
		return nil
	})
}

func makeSegment(s SegmentSpec, dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, segmentName(s.ID)), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("load segment %d: %w", s.ID, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Size() != s.SizeBytes {
		return errors.Join(fmt.Errorf("load segment %d: %w: its file has another size", s.ID, host.ErrCorrupt), err)
	}
	if err := sysv.Make(sysv.Segment{ID: s.ID, Key: s.Key, LenBytes: s.SizeBytes, Mode: s.Mode, UID: s.UID, GID: s.GID}); err != nil {
		return err
	}
	err = sysv.Do(s.ID, true, func(content []byte) error {
		_, err := f.ReadAt(content[:s.SizeBytes], 0)
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("load segment %d: %w", s.ID, err), sysv.Remove(s.ID))
	}
	return nil
}
