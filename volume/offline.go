package volume

import (
	"context"
	"errors"
	"fmt"

	"torpor/host"
)

// CheckOffline checks the log of a volume that no server has open. Its disks are
// only read. Errors: host.ErrNotFound; host.ErrExists while a server has it.
func CheckOffline(ctx context.Context, stateDir, name string, data bool, tell func(Progress)) (Report, error) {
	states, errs := LoadStates(stateDir)
	for _, s := range states {
		if _, ok := s.Volumes[name]; ok && s.Phase == Ready {
			return checkState(ctx, stateDir, s, data, tell)
		}
	}
	return Report{}, errors.Join(append(errs, fmt.Errorf("find volume %s: %w", name, host.ErrNotFound))...)
}

func checkState(ctx context.Context, stateDir string, s *State, data bool, tell func(Progress)) (report Report, err error) {
	lock, err := lockLog(stateDir, s.ID)
	if err != nil {
		return report, err
	}
	defer lock.Close()
	var disks []logDisk
	for _, spec := range s.Disks {
		device, failed := openDisk(spec, true, nil)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		// Recovery writes; here it does so into memory.
		disks = append(disks, logDisk{spec.Path, newOverlay(device)})
	}
	log, failed := openLog(disks, func(string) {})
	if failed != nil {
		return report, errors.Join(failed, err, closeDisks(disks))
	}
	report, err = log.Check(ctx, data, func(done, total int64) { tell(Progress{DoneBytes: done, TotalBytes: total}) })
	return report, errors.Join(err, log.Close())
}
