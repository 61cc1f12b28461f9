package unique

import (
	"errors"
	"testing"

	"torpor/host"
	"torpor/kernel/proc"
)

func TestValidate(t *testing.T) {
	private := []Range{{0x3000, 0x5000}, {0x1000, 0x2000}, {0x5000, 0x9000}, {0x40000000, 0xffff0000000}}
	code := []Range{{0x10000, 0x11000}}
	step := Step{Name: "f", Func: 0x10800, Args: []Arg{ArgResult, ArgRandom}}
	math := Place{Kind: KindV8Math, Addr: 0x1000, Also: 0x4ff8, FractionBits: 52}
	with := func(change func(*Place)) Spec {
		p := math
		change(&p)
		return Spec{Places: []Place{p}}
	}
	place := func(kind Kind, addr proc.Addr, lenBytes uint64) Spec {
		return Spec{Places: []Place{{Kind: kind, Addr: addr, LenBytes: lenBytes}}}
	}
	calls := func(steps ...Step) Spec { return Spec{Calls: []Call{{Steps: steps}}} }
	for _, test := range []struct {
		name string
		spec Spec
		ok   bool
	}{
		{"nothing", Spec{}, true},
		{"bytes over two mappings", place(KindBytes, 0x4ff8, 16), true},
		{"zeros of a mapping", place(KindZero, 0x1000, 0x1000), true},
		{"math", with(func(*Place) {}), true},
		{"call", calls(step, step), true},
		{"no bytes", place(KindBytes, 0x1000, 0), false},
		{"no zeros", place(KindZero, 0x1000, 0), false},
		{"bytes over a gap", place(KindBytes, 0x1ff8, 16), false},
		{"nowhere", place(KindBytes, 0, 16), false},
		{"behind all", place(KindBytes, 1<<63, 16), false},
		{"wraps", place(KindZero, 0x1000, ^uint64(0)-0xfff), false},
		{"negative", place(KindBytes, 0x1000, 1<<63), false},
		{"huge", place(KindBytes, 0x40000000, 1<<30), false},
		{"huge in all", Spec{Places: []Place{{Kind: KindZero, Addr: 0x40000000, LenBytes: 1 << 30}, {Kind: KindZero, Addr: 0x40000000, LenBytes: 1}}}, false},
		{"twister at an end", place(KindMT19937, 0x1800, 0), false},
		{"unknown kind", place("else", 0x1000, 8), false},
		{"many places", Spec{Places: make([]Place, mostPlaces+1)}, false},
		{"state of math", with(func(p *Place) { p.Also = 0x8ff8 }), false},
		{"bits of math", with(func(p *Place) { p.FractionBits = 64 }), false},
		{"many calls", Spec{Calls: make([]Call, mostCalls+1)}, false},
		{"no steps", calls(), false},
		{"many steps", calls(make([]Step, mostSteps+1)...), false},
		{"function in data", calls(Step{Func: 0x1000}), false},
		{"function behind code", calls(Step{Func: 0x11000}), false},
		{"unknown argument", calls(Step{Func: 0x10000, Args: []Arg{"else"}}), false},
		{"many arguments", calls(Step{Func: 0x10000, Args: []Arg{ArgRandom, ArgRandom, ArgRandom, ArgRandom, ArgRandom, ArgRandom, ArgRandom}}), false},
	} {
		if err := test.spec.Validate(private, code); (err == nil) != test.ok || err != nil && !errors.Is(err, host.ErrCorrupt) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
