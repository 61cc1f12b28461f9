package logvolume

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"torpor/block"
	"torpor/block/logvolume/format"
	"torpor/block/memory"
)

var update = flag.Bool("update", false, "write the golden log")

const (
	goldenDir   = "testdata/log-1" // of format version 1
	goldenBytes = format.HeadBytes + 1<<20 + 40*64<<10
)

// TestGoldenLog opens a log that version 1 has left behind, by a crash: with a
// snapshot, a clone, holes, changes in rows and others in the journal only.
func TestGoldenLog(t *testing.T) {
	if *update {
		makeGolden(t)
	}
	disks := goldenDisks(t)
	l := mustOpen(t, disks, Options{})
	for volume, want := range map[string]func(p []byte){"home": goldenNow, "copy": goldenThen} {
		v, err := l.OpenVolume(volume)
		if err != nil {
			t.Fatal(err)
		}
		got, expected := make([]byte, 1<<20), make([]byte, 1<<20)
		want(expected)
		if err := v.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, expected) {
			t.Errorf("volume %s is not what it was", volume)
		}
	}
	if l.recovered.Rows == 0 || l.recovered.Records == 0 {
		t.Errorf("recovered from %+v, want rows and records", l.recovered)
	}
	mustCheck(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// stamp fills a block with what compresses well.
func stamp(p []byte, op, at int) {
	copy(p, bytes.Repeat(fmt.Appendf(nil, "%7d of %d\n", at, op), 4096/8))
}

// goldenThen is what the snapshot and the clone hold, goldenNow what the volume
// has become.
func goldenThen(p []byte) {
	for i := range 128 {
		stamp(p[i*4096:(i+1)*4096], 1, i)
	}
}

func goldenNow(p []byte) {
	goldenThen(p)
	clear(p[64*4096 : 80*4096])
	for i := 100; i < 230; i++ {
		stamp(p[i*4096:(i+1)*4096], 2, i)
	}
	stamp(p[7*4096:8*4096], 3, 7)
}

func goldenDisks(t *testing.T) (disks []Disk) {
	for i := range 3 {
		f, err := os.Open(filepath.Join(goldenDir, fmt.Sprintf("disk%d.gz", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		d, err := memory.New(memory.Spec{SizeBytes: goldenBytes, BlockBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(b, 0, 0); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, Disk{fmt.Sprintf("disk%d", i), d})
	}
	return disks
}

func makeGolden(t *testing.T) {
	var disks []Disk
	for i := range 3 {
		d, err := memory.New(memory.Spec{SizeBytes: goldenBytes, BlockBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, Disk{fmt.Sprintf("disk%d", i), d})
	}
	if err := Create(disks, Spec{DataShards: 2, ParityShards: 1, ShardBytes: 64 << 10, StripeBytes: 128 << 10, JournalBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, disks, Options{})
	v := goldenVolume(t, l)
	now := make([]byte, 1<<20)
	goldenNow(now)
	change := func(from, to int, flags block.Flags) {
		if err := v.WriteAt(now[from*4096:to*4096], block.Offset(from)*4096, flags); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Discard(block.Range{Start: 64 * 4096, LenBytes: 16 * 4096}, 0); err != nil {
		t.Fatal(err)
	}
	change(100, 230, 0)
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	change(7, 8, block.FUA)
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, d := range disks {
		b := make([]byte, goldenBytes)
		if err := d.Device.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(goldenDir, fmt.Sprintf("disk%d.gz", i)), z.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func goldenVolume(t *testing.T, l *Log) *Volume {
	if err := l.CreateVolume("home", 1<<20); err != nil {
		t.Fatal(err)
	}
	v, err := l.OpenVolume("home")
	if err != nil {
		t.Fatal(err)
	}
	then := make([]byte, 1<<20)
	goldenThen(then)
	if err := v.WriteAt(then[:128*4096], 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Snapshot("home", "monday"); err != nil {
		t.Fatal(err)
	}
	if err := l.Clone("home", "monday", "copy"); err != nil {
		t.Fatal(err)
	}
	return v
}
