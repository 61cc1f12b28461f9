package unique

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"

	"torpor/kernel/proc"
)

// Bounds of what a program can make Find do. A Go program has a generator for
// each of its threads.
const (
	mostPlaces = 1 << 15
	mostTries  = 1 << 15 // look-alikes that one search examines
	pieceBytes = 1 << 20
	aheadBytes = proc.PageBytes
)

// restoredName is the file that memory is mapped from which came out of a
// checkpoint. What was not changed since is not the process's own.
const (
	restoredName  = "pages.img"
	restoredWords = "what is in memory since an earlier restore"
)

// finder is one Find in progress.
type finder struct {
	space
	pid     int
	vmas    []proc.VMA
	headers proc.Addr // of the executable
	objects []*object
	spec    *Spec
	known   map[proc.Addr]bool // of the places
	total   uint64             // their bytes
}

// search looks for one kind of random state.
type search interface {
	// look examines one piece of memory.
	look(p piece)
	// next is the search to be made when all memory was seen, or nil.
	next() search
}

// piece is private memory of the process. At most n bytes of it are to be
// searched; what follows them in b is there to be looked at.
type piece struct {
	addr uint64
	b    []byte
	n    int
}

// tail is how much of the piece's end can not be the start of something that
// is this long.
func (p piece) limit(need int) int { return min(p.n, len(p.b)-need+1) }

// word is the word at byte i.
func (p piece) word(i int) uint64 { return binary.LittleEndian.Uint64(p.b[i:]) }

// Find looks for the random state of a process whose threads are all stopped
// and wait in system calls, and changes nothing. vmas are its mappings with
// flags (proc.VMAs), memory is borrowed. Errors are those of the kernel; what
// the program has in its memory never makes one.
func Find(pid int, vmas []proc.VMA, memory *proc.Memory) (*Spec, error) {
	f := &finder{space: newSpace(memory.ReadAt), pid: pid, vmas: vmas, spec: new(Spec), known: map[proc.Addr]bool{}}
	if err := f.startValue(); err != nil {
		return nil, err
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, fmt.Errorf("find random state: %w", err)
	}
	defer pagemap.Close()
	if err := f.wiped(pagemap); err != nil {
		return nil, err
	}
	f.objects = findObjects(f.space, vmas)
	f.libraries()
	searches := []search{&libcSearch{finder: f}}
	for _, s := range []search{f.openssl(), f.golang(), f.python(), f.node(), f.java()} {
		if s != nil {
			searches = append(searches, s)
		}
	}
	for len(searches) > 0 {
		if err := f.pass(pagemap, searches); err != nil {
			return nil, err
		}
		searches = following(searches)
	}
	return f.spec, nil
}

func following(searches []search) []search {
	var more []search
	for _, s := range searches {
		if n := s.next(); n != nil {
			more = append(more, n)
		}
	}
	return more
}

// pass shows all memory to the searches in which state can be: what is
// writable and is the process's own, page by page.
func (f *finder) pass(pagemap *os.File, searches []search) error {
	buffer := make([]byte, pieceBytes+aheadBytes)
	for i := range f.vmas {
		v := &f.vmas[i]
		if !renewable(v) || v.Has("dp") || v.Has("io") || v.Has("pf") {
			continue
		}
		if path.Base(v.Name) == restoredName {
			f.share(restoredWords)
		}
		runs, err := proc.PrivatePages(pagemap, v.Start, v.End)
		if err != nil {
			return err
		}
		for _, r := range runs {
			f.passRun(r, buffer, searches)
		}
	}
	return nil
}

func (f *finder) passRun(r proc.PageRange, buffer []byte, searches []search) {
	for at := r.Start; at < r.End; at += pieceBytes {
		b := buffer[:min(len(buffer), int(r.End-at))]
		if !f.read(b, uint64(at)) {
			continue
		}
		p := piece{addr: uint64(at), b: b, n: min(pieceBytes, len(b))}
		for _, s := range searches {
			s.look(p)
		}
	}
}

// renewable reports whether a mapping is memory that the process alone writes.
func renewable(v *proc.VMA) bool { return v.Prot&proc.ProtWrite != 0 && !v.Shared }

// writable reports whether a run of memory can be overwritten without effect
// on anything but this process.
func (f *finder) writable(addr proc.Addr, lenBytes uint64) bool {
	i, _ := slices.BinarySearchFunc(f.vmas, addr, func(v proc.VMA, a proc.Addr) int {
		if v.End <= a {
			return -1
		}
		return 1
	})
	if i == len(f.vmas) {
		return false
	}
	v := &f.vmas[i]
	return renewable(v) && v.Start <= addr && lenBytes <= uint64(v.End-addr)
}

// executable reports whether code is at addr.
func (f *finder) executable(addr uint64) bool {
	return slices.ContainsFunc(f.vmas, func(v proc.VMA) bool {
		return v.Prot&proc.ProtExec != 0 && uint64(v.Start) <= addr && addr < uint64(v.End)
	})
}

// add notes a place, once, if it may be written.
func (f *finder) add(p Place) {
	switch {
	case f.known[p.Addr] || p.size() == 0 || p.Kind == KindBytes && p.LenBytes > mostBytes:
	case len(f.spec.Places) >= mostPlaces || f.total+p.size() > mostTotal:
		f.share("more random state than is kept track of")
	case f.writable(p.Addr, p.size()) && (p.Also == 0 || f.writable(p.Also, p.sizeAlso())):
		f.spec.Places, f.known[p.Addr] = append(f.spec.Places, p), true
		f.total += p.size()
	}
}

// share notes state that can not be renewed, once.
func (f *finder) share(words string) {
	if !slices.Contains(f.spec.Shared, words) {
		f.spec.Shared = append(f.spec.Shared, words)
	}
}

// exports returns the object that exports all names, or nil.
func (f *finder) exports(names ...string) *object {
	for _, o := range f.objects {
		if !slices.ContainsFunc(names, func(name string) bool { return o.symbol(name) == 0 }) {
			return o
		}
	}
	return nil
}

// tries bounds how often a search examines something closely: a program may be
// full of look-alikes.
type tries struct{ made int }

// another reports whether one more may be examined; what is the state's name.
func (t *tries) another(f *finder, what string) bool {
	t.made++
	if t.made > mostTries {
		f.share(what + " (too much in memory looks like it)")
		return false
	}
	return true
}
