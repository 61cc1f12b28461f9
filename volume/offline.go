package volume

import (
	"context"
	"errors"
	"fmt"

	"torpor/host"
)

// CheckOffline checks the log of a volume that no server has open. Its disks are
// only read. Errors: host.ErrNotFound; host.ErrExists while a server has it.
func CheckOffline(ctx context.Context, stateDir, name string, tell func(Progress)) (Report, error) {
	return checkOffline(ctx, realParts(), stateDir, name, tell)
}

func checkOffline(ctx context.Context, parts parts, stateDir, name string, tell func(Progress)) (Report, error) {
	states, errs := LoadStates(stateDir)
	for _, s := range states {
		if _, ok := s.Volumes[name]; ok && s.Phase == Ready {
			return checkState(ctx, parts, stateDir, s, tell)
		}
	}
	return Report{}, errors.Join(append(errs, fmt.Errorf("find volume %s: %w", name, host.ErrNotFound))...)
}

func checkState(ctx context.Context, parts parts, stateDir string, s *State, tell func(Progress)) (report Report, err error) {
	lock, err := lockLog(stateDir, s.ID)
	if err != nil {
		return report, err
	}
	defer lock.Close()
	var disks []logDisk
	defer func() {
		for _, d := range disks {
			err = errors.Join(err, d.device.Close())
		}
	}()
	for _, spec := range s.Disks {
		device, failed := parts.openDisk(spec, true)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		// Recovery writes; here it does so into memory.
		disks = append(disks, logDisk{spec.Path, newOverlay(device)})
	}
	log, failed := parts.openLog(disks, func(host.Event) {})
	if failed != nil {
		return report, errors.Join(fmt.Errorf("open log: %w", failed), err)
	}
	report, err = log.Check(ctx, func(done, total int64) { tell(Progress{DoneBytes: done, TotalBytes: total}) })
	return report, errors.Join(err, log.Close())
}
