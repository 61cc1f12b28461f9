package timens

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"torpor/internal/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// TestNew reads the uptime inside a namespace that is a day behind.
func TestNew(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Program("nsenter"))
	now, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	want := Clocks{Monotonic: 24*time.Hour + 250*time.Millisecond, Boottime: -now.Boottime / 2}
	ns, err := New(want)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	out, err := exec.Command("nsenter", "--time="+path, "cat", "/proc/self/timens_offsets", "/proc/uptime").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	got, err := parseOffsets(strings.Join(lines[:2], "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("offsets %+v, want %+v", got, want)
	}
	var uptime float64
	if _, err := fmt.Sscan(lines[2], &uptime); err != nil || uptime > now.Boottime.Seconds() {
		t.Errorf("uptime is %f s (%v) inside, %f outside", uptime, err, now.Boottime.Seconds())
	}
	if mine, err := Offsets(os.Getpid()); err != nil || mine != (Clocks{}) {
		t.Errorf("this process has offsets %+v, %v", mine, err)
	}
}

func FuzzParseOffsets(f *testing.F) {
	f.Add("monotonic           0         0\nboottime            -5         7\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parseOffsets(text) })
}

func TestClocks(t *testing.T) {
	a, b := Clocks{5, 7}, Clocks{1, 2}
	if a.Minus(b).Plus(b) != a || a.Minus(b) != (Clocks{4, 5}) {
		t.Errorf("%v and %v: difference %v", a, b, a.Minus(b))
	}
}
