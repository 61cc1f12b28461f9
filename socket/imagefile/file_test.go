package imagefile

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"torpor/host"
	"torpor/socket"
)

// TestRandomOperations compares a file with a map, opening it again at random.
func TestRandomOperations(t *testing.T) {
	r := generator(t)
	f, path := newFile(t)
	defer func() { f.Close() }()
	model := map[socket.Key]*socket.Spec{}
	some := func() socket.Key {
		if len(model) == 0 || r.IntN(20) == 0 {
			return numbered(1<<24 + r.IntN(100)).Key
		}
		n := r.IntN(len(model))
		for k := range model {
			if n--; n < 0 {
				return k
			}
		}
		panic("unreachable")
	}
	target := 300
	for step := range 6000 {
		k := some()
		_, there := model[k]
		if f.Has(k) != there {
			t.Fatalf("step %d: Has(%v) is %v", step, k, !there)
		}
		want := error(nil)
		if !there {
			want = host.ErrNotFound
		}
		if step%2000 == 1999 {
			target = r.IntN(600) // up and down, to grow and shrink tables
		}
		choice := r.IntN(100)
		if len(model) < target && choice < 40 || len(model) >= target && choice < 10 {
			choice = 0
		}
		switch {
		case choice < 10:
			s := random(r, r.IntN(2000))
			want := error(nil)
			if model[s.Key] != nil {
				want = host.ErrExists
			}
			if err := f.Add(s); !errors.Is(err, want) {
				t.Fatalf("step %d: add: %v, want %v", step, err, want)
			}
			if want == nil {
				model[s.Key] = s
			}
		case choice < 15:
			addSome(t, r, f, model)
		case choice < 55:
			if err := f.Remove(k); !errors.Is(err, want) {
				t.Fatalf("step %d: remove: %v, want %v", step, err, want)
			}
			delete(model, k)
		case choice < 75:
			w := randomWindow(r)
			if err := f.SetWindow(k, w); !errors.Is(err, want) {
				t.Fatalf("step %d: set window: %v, want %v", step, err, want)
			}
			if there {
				changed := *model[k]
				changed.Window = w
				model[k] = &changed
			}
		case choice < 97:
			if _, err := f.Get(k); !errors.Is(err, want) {
				t.Fatalf("step %d: get: %v, want %v", step, err, want)
			}
		case choice < 98:
			f = reopen(t, f, path)
		case choice < 99:
			found, err := f.Compact()
			check(t, err)
			if len(found.Lost) > 0 {
				t.Fatalf("step %d: lost %v", step, found.Lost)
			}
			if dead := f.Stats().DeadBytes; dead != 0 {
				t.Fatalf("step %d: %d dead bytes after compaction", step, dead)
			}
		default:
			same(t, f, model)
		}
	}
	same(t, f, model)
	stats := f.Stats()
	f = reopen(t, f, path)
	same(t, f, model)
	if now := f.Stats(); now.Bytes != stats.Bytes || now.DeadBytes != stats.DeadBytes || now.Connections != stats.Connections {
		t.Errorf("sizes %+v, %+v after it was opened again", stats, now)
	}
	for k := range model {
		check(t, f.Remove(k))
	}
	if s := f.Stats(); s.Bytes != entriesAt || s.DeadBytes != 0 {
		t.Errorf("empty: %+v", s)
	}
}

// addSome adds a batch that sometimes has to be refused as a whole.
func addSome(t *testing.T, r *rand.Rand, f *File, model map[socket.Key]*socket.Spec) {
	t.Helper()
	var batch []*socket.Spec
	seen := map[socket.Key]*socket.Spec{}
	want := error(nil)
	for range r.IntN(5) {
		s := random(r, r.IntN(2000))
		batch = append(batch, s)
		if model[s.Key] != nil || seen[s.Key] != nil {
			want = host.ErrExists
		}
		seen[s.Key] = s
	}
	if len(batch) > 0 && r.IntN(10) == 0 {
		batch, want = append(batch, batch[0]), host.ErrExists
	}
	if err := f.AddAll(batch); !errors.Is(err, want) {
		t.Fatalf("add %d: %v, want %v", len(batch), err, want)
	}
	if want == nil {
		maps.Copy(model, seen)
	}
}

func TestCreateAndOpen(t *testing.T) {
	f, path := newFile(t)
	if _, err := Create(path); !errors.Is(err, host.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if _, _, err := Open(path); !errors.Is(err, host.ErrRefused) {
		t.Errorf("opened twice: %v", err)
	}
	invalid := numbered(1)
	invalid.SendScale = 15
	if err := f.Add(invalid); !errors.Is(err, host.ErrInvalid) {
		t.Errorf("added an invalid one: %v", err)
	}
	big := numbered(2)
	big.Unread = make([]byte, 3<<20)
	big.Unread[1<<20] = 7
	check(t, f.Add(big))
	check(t, f.Sync())
	check(t, f.DropCache())
	same(t, f, map[socket.Key]*socket.Spec{big.Key: big})
	f = reopen(t, f, path)
	same(t, f, map[socket.Key]*socket.Spec{big.Key: big})
	check(t, f.Close())
	for name, err := range map[string]error{"add": f.Add(big), "remove": f.Remove(big.Key), "sync": f.Sync(), "drop": f.DropCache(), "close": f.Close()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s a closed file: %v", name, err)
		}
	}
	if _, err := f.Get(big.Key); !errors.Is(err, os.ErrClosed) || f.Has(big.Key) {
		t.Errorf("get from a closed file: %v", err)
	}
	if _, _, err := Open(path + "x"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("opened what is not there: %v", err)
	}
	if _, err := Check(path + "x"); !errors.Is(err, host.ErrNotFound) {
		t.Errorf("checked what is not there: %v", err)
	}
}

// TestConcurrentUse reads, writes and compacts at the same time.
func TestConcurrentUse(t *testing.T) {
	f, path := newFile(t)
	const each = 4000
	var all []*socket.Spec
	for n := range each {
		all = append(all, numbered(n)) // these stay
	}
	check(t, f.AddAll(all))
	done := make(chan struct{})
	var readers, writer sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for n := 0; ; n = (n + 7) % each {
				select {
				case <-done:
					return
				default:
				}
				if s, err := f.Get(numbered(n).Key); err != nil || s.Tag != uint64(n) {
					t.Errorf("get %d: %v", n, err)
					return
				}
			}
		})
	}
	model := map[socket.Key]*socket.Spec{}
	for _, s := range all {
		model[s.Key] = s
	}
	writer.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for n := each; n < 5*each; n++ {
			s := random(r, n)
			if err := f.Add(s); err != nil {
				t.Error(err)
				return
			}
			model[s.Key] = s
			if n%3 == 0 {
				w := randomWindow(r)
				changed := *s
				changed.Window = w
				model[s.Key] = &changed
				if err := f.SetWindow(s.Key, w); err != nil {
					t.Error(err)
				}
			}
			if n%2 == 0 {
				if err := f.Remove(s.Key); err != nil {
					t.Error(err)
				}
				delete(model, s.Key)
			}
		}
	})
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := errors.Join(f.Sync(), f.DropCache()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 20 {
		if r, err := f.Compact(); err != nil || len(r.Lost) > 0 {
			t.Fatal(r, err)
		}
		got := map[socket.Key]int{}
		for k := range f.All() {
			got[k]++
		}
		for _, s := range all {
			if got[s.Key] != 1 {
				t.Fatalf("%v is yielded %d times", s.Key, got[s.Key])
			}
		}
	}
	writer.Wait()
	close(done)
	readers.Wait()
	same(t, f, model)
	f = reopen(t, f, path)
	same(t, f, model)
	check(t, f.Close())
	names, err := os.ReadDir(path[:len(path)-len("sockets")])
	check(t, err)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestIndexAgainstMap(t *testing.T) {
	r := generator(t)
	var x index
	model := map[uint32]uint64{} // hash by unit
	mask := uint64(3)<<62 | 0x3f // few tables and tags: collisions
	for step := range 100000 {
		if grow := step/20000%2 == 0; grow == (r.IntN(10) < 7) || len(model) == 0 {
			unit, hash := r.Uint32()|1, r.Uint64()&mask
			if r.IntN(2) == 0 {
				hash = r.Uint64() & (mask | 0xffffffff)
			}
			if _, there := model[unit]; !there {
				x.insert(hash, unit)
				model[unit] = hash
			}
			continue
		}
		for unit, hash := range model {
			places := units(&x, hash)
			i := slices.Index(places, unit)
			if i < 0 {
				t.Fatalf("step %d: unit %d is not found", step, unit)
			}
			place := x.table(hash).first(hash)
			for range i {
				place = x.table(hash).next(place)
			}
			x.remove(hash, place)
			delete(model, unit)
			break
		}
	}
	if x.count != len(model) {
		t.Errorf("%d entries, want %d", x.count, len(model))
	}
	for unit, hash := range model {
		if !slices.Contains(units(&x, hash), unit) {
			t.Errorf("unit %d is not found", unit)
		}
	}
}

// units lists the units of slots with a hash's tag.
func units(x *index, hash uint64) []uint32 {
	var all []uint32
	t := x.table(hash)
	for i := t.first(hash); i >= 0; i = t.next(i) {
		all = append(all, t.slots[i].unit())
	}
	return all
}

func TestHasDoesNotAllocate(t *testing.T) {
	f, _ := newFile(t)
	defer f.Close()
	check(t, f.Add(numbered(1)))
	check(t, f.Add(numbered(2)))
	check(t, f.SetWindow(numbered(2).Key, socket.Window{}))
	for n := range 3 {
		k := numbered(n).Key
		if allocs := testing.AllocsPerRun(100, func() { f.Has(k) }); allocs != 0 {
			t.Errorf("connection %d: %v allocations", n, allocs)
		}
	}
}

// TestMemory holds the index to its promise. GC may not look through it.
func TestMemory(t *testing.T) {
	var x index
	r := rand.New(rand.NewPCG(1, 1))
	var most int64
	for n := range 1000000 {
		x.insert(r.Uint64(), uint32(n+1))
		if n%1000 == 0 && n > 100000 {
			most = max(most, x.bytes()*100/int64(n))
		}
	}
	t.Logf("%.2f bytes a connection, at most %.2f", float64(x.bytes())/1e6, float64(most)/100)
	if most > 1400 {
		t.Errorf("%.2f bytes a connection", float64(most)/100)
	}
}
