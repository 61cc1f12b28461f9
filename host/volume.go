package host

import (
	"fmt"
	"strconv"
	"strings"
)

// VolumeDriver is the driver, in compose files, of volumes that are virtual
// disks.
const VolumeDriver = "torpor"

// TorporVolume says what a volume with VolumeDriver is made as.
type TorporVolume struct {
	SizeBytes int64      `json:"size_bytes"`
	Layout    Layout     `json:"layout"`
	Disks     []string   `json:"disks,omitempty"` // absolute: block devices, files or directories; empty: a directory in the state directory
	FS        FileSystem `json:"fs"`
}

// Defaults of a TorporVolume. Space is taken when it is written.
const (
	DefaultVolumeBytes = 10 << 30
	DefaultFileSystem  = Ext4
)

// FileSystem is what a volume is formatted with.
type FileSystem string

// The file systems that Torpor formats, checks and mounts.
const (
	Ext4  FileSystem = "ext4"
	XFS   FileSystem = "xfs"
	Btrfs FileSystem = "btrfs"
)

// ParseFileSystem reads the name of a file system that Torpor formats.
func ParseFileSystem(text string) (FileSystem, error) {
	switch fs := FileSystem(text); fs {
	case Ext4, XFS, Btrfs:
		return fs, nil
	}
	return "", fmt.Errorf("file system %q: want ext4, xfs or btrfs: %w", text, ErrInvalid)
}

// Layout is k+m: how many disks hold the data of a segment, and how many of
// them may be lost.
type Layout struct {
	Data, Parity int
}

// DefaultLayout has one disk and survives the loss of none.
var DefaultLayout = Layout{Data: 1}

// MostShards bounds k+m.
const MostShards = 32

// ParseLayout reads "4+2".
func ParseLayout(text string) (Layout, error) {
	data, parity, _ := strings.Cut(text, "+")
	k, errData := strconv.Atoi(data)
	m, errParity := strconv.Atoi(parity)
	if errData != nil || errParity != nil || k < 1 || m < 0 || k > MostShards || m > MostShards || k+m > MostShards {
		return Layout{}, fmt.Errorf("layout %q: want DATA+PARITY, such as 4+2, of %d disks at most: %w", text, MostShards, ErrInvalid)
	}
	return Layout{k, m}, nil
}

// Disks is how many a segment needs: k+m.
func (l Layout) Disks() int { return l.Data + l.Parity }

func (l Layout) String() string { return fmt.Sprintf("%d+%d", l.Data, l.Parity) }

// MarshalText writes what ParseLayout reads.
func (l Layout) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLayout.
func (l *Layout) UnmarshalText(text []byte) error {
	parsed, err := ParseLayout(string(text))
	if err == nil {
		*l = parsed
	}
	return err
}
