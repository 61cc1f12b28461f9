package checkpoint

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEntryBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		want := entry{nr: r.Uint32(), op: operation(r.IntN(7)), checks: uint8(r.IntN(4)), result: r.Uint64()}
		for i := range want.args {
			want.args[i] = r.Uint64()
		}
		b := want.append(nil)
		if len(b) != entryBytes {
			t.Fatalf("entry has %d bytes, want %d", len(b), entryBytes)
		}
		if got := loadEntry(b); got != want {
			t.Fatalf("entry is %v, want %v", &got, &want)
		}
	}
}

// TestScriptAddresses checks that what is placed is found where it was said to
// be, aligned.
func TestScriptAddresses(t *testing.T) {
	s := newScript(0x20000)
	if s.interpreter() != 0x20000 {
		t.Errorf("interpreter is at %x", s.interpreter())
	}
	word, text := s.words(7, 8), s.string("abc")
	var r routine
	r.expect(5, sysClose, 1, 2, 3)
	r.stop()
	at := s.place(&r)
	if at%entryBytes != 0 || word%16 != 0 || text%16 != 0 {
		t.Errorf("placed at %x, %x, %x", at, word, text)
	}
	if got := string(s.b[text-s.base:][:4]); got != "abc\x00" {
		t.Errorf("string is %q", got)
	}
	if diff := cmp.Diff([]uint64{7, 8}, words(s.b[word-s.base:][:16])); diff != "" {
		t.Errorf("words differ (-want +got):\n%s", diff)
	}
	first, second := loadEntry(s.b[at-s.base:]), loadEntry(s.b[at-s.base+entryBytes:])
	if first.nr != sysClose || first.checks != checkEqual || first.result != 5 || first.args[2] != 3 || second.op != opStop {
		t.Errorf("entries are %v and %v", &first, &second)
	}
}

// TestCompileLength checks what Arm relies on: the length of a program depends
// neither on where it lies nor on the stub, and compiling is deterministic.
func TestCompileLength(t *testing.T) {
	spec := exampleSpec()
	spec.Processes[1].VMAs = spec.Processes[0].VMAs[3:]
	draft, err := compile(spec, Holder{}, areaRange{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	area := areaRange{0x30000, uint64(len(draft.bytes))}
	specials := []special{{"[vdso]", 0x7ffff7fc0000, 0x2000}}
	a, err := compile(spec, Holder{}, area, specials)
	if err != nil {
		t.Fatal(err)
	}
	b, err := compile(spec, Holder{}, area, specials)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.bytes) != len(draft.bytes) || !cmp.Equal(a.bytes, b.bytes) {
		t.Errorf("programs have %d, %d and %d bytes", len(draft.bytes), len(a.bytes), len(b.bytes))
	}
	if a.tasks != 3 {
		t.Errorf("program makes %d tasks, want 3", a.tasks)
	}
	if _, err := compile(spec, Holder{}, area, []special{{"[vdso]", 0x7ffff7fc0000, 0x1000}}); err == nil {
		t.Error("a kernel with another vdso is accepted")
	}
}
