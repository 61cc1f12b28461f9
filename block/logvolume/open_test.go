package logvolume

import (
	"errors"
	"testing"
)

func TestOpenWithoutDisks(t *testing.T) {
	if l, err := Open(nil, Options{}); l != nil || !errors.Is(err, ErrTooFewDisks) {
		t.Errorf("Open of nothing returns %v, %v", l, err)
	}
}

// TestOwnBytesAfterReopening wants all useful blocks to be someone's, though no
// leaf was read yet.
func TestOwnBytesAfterReopening(t *testing.T) {
	disks := unclosable(memoryDisks(1, 40))
	l, v := newTestLog(t, disks, testSpec(1, 0), 4<<20)
	must(t, v.WriteAt(make([]byte, 1<<20), 0, 0))
	must(t, l.Snapshot("v", "s"))
	must(t, v.WriteAt(make([]byte, 1<<20), 2<<20, 0))
	must(t, l.Close())
	l = mustOpen(t, disks, Options{})
	own := int64(0)
	for _, info := range l.Volumes() {
		own += info.OwnBytes
	}
	if own != 2<<20 {
		t.Errorf("volumes have %d bytes, want %d", own, 2<<20)
	}
	must(t, l.Close())
}
