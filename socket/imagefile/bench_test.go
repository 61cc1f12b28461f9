package imagefile

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"torpor/socket"
)

func BenchmarkAdd(b *testing.B) {
	f, _ := newFile(b)
	defer f.Close()
	spec := numbered(0)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		*spec = *numbered(n)
		n++
		if err := f.Add(spec); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, 1)
}

func BenchmarkAddAll(b *testing.B) {
	const batch = 256
	f, _ := newFile(b)
	defer f.Close()
	specs := make([]*socket.Spec, batch)
	for i := range specs {
		specs[i] = numbered(0)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for i := range specs {
			*specs[i] = *numbered(n)
			n++
		}
		if err := f.AddAll(specs); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, batch)
}

func perSecond(b *testing.B, each int) {
	b.ReportMetric(float64(b.N*each)/b.Elapsed().Seconds(), "connections/s")
}

// filled returns a file with a million connections.
func filled(b *testing.B) *File {
	f, _ := newFile(b)
	specs := make([]*socket.Spec, 1000)
	for n := 0; n < 1000000; {
		for i := range specs {
			specs[i] = numbered(n)
			n++
		}
		if err := f.AddAll(specs); err != nil {
			b.Fatal(err)
		}
	}
	return f
}

func BenchmarkOfMillion(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f := filled(b)
	runtime.GC()
	runtime.ReadMemStats(&after)
	heap := float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	stats := f.Stats()
	b.Run("Get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := f.Get(numbered(rand.IntN(1000000)).Key); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(heap, "heap-B/connection")
		b.ReportMetric(float64(stats.IndexBytes)/1e6, "index-B/connection")
		b.ReportMetric(float64(stats.Bytes)/1e6, "file-B/connection")
	})
	b.Run("Has", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !f.Has(numbered(rand.IntN(1000000)).Key) {
				b.Fatal("not there")
			}
		}
	})
	b.Run("HasNot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if f.Has(numbered(1000000 + rand.IntN(1000000)).Key) {
				b.Fatal("there")
			}
		}
	})
	b.Run("SetWindow", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f.SetWindow(numbered(rand.IntN(1000000)).Key, socket.Window{Send: 1}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("All", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for range f.All() {
				n++
			}
			if n < 1000000 {
				b.Fatal(n)
			}
		}
	})
	b.Run("Compact", func(b *testing.B) {
		for b.Loop() {
			if _, err := f.Compact(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AddWhileCompacting", func(b *testing.B) {
		var longest time.Duration
		sum := 0
		n, spec := 3000000, numbered(0)
		for b.Loop() {
			done := make(chan error)
			go func() {
				_, err := f.Compact()
				done <- err
			}()
			for running := true; running; n++ {
				select {
				case err := <-done:
					if running = false; err != nil {
						b.Fatal(err)
					}
				default:
				}
				*spec = *numbered(n)
				start := time.Now()
				if err := f.Add(spec); err != nil {
					b.Fatal(err)
				}
				longest = max(longest, time.Since(start))
				sum++
			}
		}
		b.ReportMetric(float64(longest.Microseconds()), "longest-us")
		b.ReportMetric(float64(sum)/b.Elapsed().Seconds(), "connections/s")
	})
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			if err := f.Close(); err != nil {
				b.Fatal(err)
			}
			var err error
			if f, _, err = Open(f.path); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Remove", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			if err := f.Remove(numbered(n).Key); err != nil {
				b.Fatal(err)
			}
			if n++; n == 1000000 {
				b.Skip("all are gone")
			}
		}
	})
	f.Close()
}
