package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"torpor/host"
)

// PlanDisks looks at what users gave as disks. In a directory a disk is to be
// made, of a size, that is called by name. Errors: host.ErrNotFound,
// host.ErrInvalid, host.ErrExists. Nothing is touched.
func PlanDisks(paths []string, name string, sizeBytes int64) ([]DiskSpec, error) {
	var specs []DiskSpec
	seen := map[string]string{}
	for _, path := range paths {
		spec, err := planDisk(path, name, sizeBytes)
		if err != nil {
			return nil, err
		}
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return nil, fmt.Errorf("use disk %s: %w", path, err)
		}
		if other, twice := seen[real]; twice {
			return nil, fmt.Errorf("use disk %s: it is the same as %s: %w", path, other, host.ErrInvalid)
		}
		seen[real] = path
		specs = append(specs, spec)
	}
	return specs, nil
}

func planDisk(path, name string, sizeBytes int64) (DiskSpec, error) {
	if !filepath.IsAbs(path) {
		return DiskSpec{}, fmt.Errorf("use disk %q: not an absolute path: %w", path, host.ErrInvalid)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return DiskSpec{}, fmt.Errorf("use disk %s: no such directory, file or block device; make it first: %w", path, host.ErrNotFound)
	}
	if err != nil {
		return DiskSpec{}, fmt.Errorf("use disk %s: %w", path, err)
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		made := filepath.Join(path, name+".volume")
		if _, err := os.Lstat(made); err == nil {
			return DiskSpec{}, fmt.Errorf("use disk %s: %s is there, perhaps of another volume: %w", path, made, host.ErrExists)
		}
		return DiskSpec{Path: path, Kind: Directory, Made: made, SizeBytes: wholeBlocks(sizeBytes)}, nil
	case mode.IsRegular():
		return DiskSpec{Path: path, Kind: File}, nil
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return DiskSpec{Path: path, Kind: BlockDevice}, nil
	}
	return DiskSpec{}, fmt.Errorf("use disk %s: neither a directory, a file nor a block device: %w", path, host.ErrInvalid)
}

// Disks in directories have room for the volume, a fourth more for the log to be
// cleaned well, and some for what a log always has.
const (
	spareShare = 4
	leastSpare = 256 << 20
)

// DiskBytesFor is the size of disks that are enough for a volume. Disks in
// directories take space only for what is written.
func DiskBytesFor(volumeBytes int64, layout host.Layout, disks int) int64 {
	shards := (volumeBytes + volumeBytes/spareShare + int64(layout.Data) - 1) / int64(layout.Data)
	each := (shards*int64(layout.Disks()) + int64(disks) - 1) / int64(disks)
	return wholeBlocks(each + leastSpare)
}
