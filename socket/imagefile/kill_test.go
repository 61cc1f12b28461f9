package imagefile

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torpor/socket"
)

// workerVariable makes the test binary, in TestMain, a process that changes the
// file it names until it is killed.
const workerVariable = "TORPOR_TEST_SOCKET_IMAGE"

// TestKilledAnywhere kills a process that adds, removes and compacts, with
// SIGKILL: all that it reported is there.
func TestKilledAnywhere(t *testing.T) {
	random := generator(t)
	path := filepath.Join(t.TempDir(), "sockets")
	f, err := Create(path)
	check(t, err)
	check(t, f.Close())
	model := map[int]uint32{} // window by number of the connection
	next := 0
	for round := range 15 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), workerVariable+"="+path, fmt.Sprintf("%s_NEXT=%d", workerVariable, next))
		out, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		time.AfterFunc(time.Duration(random.IntN(150))*time.Millisecond, func() { cmd.Process.Kill() })
		under := map[int]bool{} // what the last line began and did not report
		lines := 0
		for scan := bufio.NewScanner(out); scan.Scan(); {
			var n int
			var window uint32
			line := scan.Text()
			switch {
			case matches(line, "begin %d", &n):
				under[n] = true
				next = max(next, n+1)
				continue
			case matches(line, "added %d", &n):
				model[n] = 64256
			case matches(line, "window %d %d", &n, &window):
				model[n] = window
			case matches(line, "removed %d", &n):
				delete(model, n)
			default:
				if strings.HasPrefix(line, "failed") {
					t.Error(line)
				}
				continue
			}
			lines++
			delete(under, n)
		}
		cmd.Wait()
		f, r, err := Open(path)
		check(t, err)
		for n := range under {
			delete(model, n) // whatever became of it
			if s, err := f.Get(numbered(n).Key); err == nil {
				model[n] = s.Window.Send
			}
		}
		if f.Len() != len(model) {
			t.Errorf("round %d: %d connections, want %d; %+v", round, f.Len(), len(model), r)
		}
		for n, window := range model {
			want := numbered(n)
			want.Window.Send = window
			if got, err := f.Get(want.Key); err != nil || !bytes.Equal(got.Append(nil), want.Append(nil)) {
				t.Fatalf("round %d: connection %d: %v", round, n, err)
			}
		}
		t.Logf("round %d: %d reports, %d connections, %d bytes cut, %d repairs", round, lines, f.Len(), r.CutBytes, r.Repairs)
		check(t, f.Close())
		sound(t, path)
	}
}

func matches(line, format string, into ...any) bool {
	n, err := fmt.Sscanf(line, format, into...)
	return err == nil && n == len(into)
}

// work is what the process does that is killed.
func work(path string) {
	f, _, err := Open(path)
	if err != nil {
		fmt.Println("failed:", err)
		return
	}
	go func() {
		for {
			if _, err := f.Compact(); err != nil {
				fmt.Println("failed:", err)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	var n int
	fmt.Sscan(os.Getenv(workerVariable+"_NEXT"), &n)
	begin := func(n int) { fmt.Printf("begin %d\n", n) }
	report := func(verb string, err error, n ...any) {
		if err != nil {
			fmt.Println("failed:", verb, n, err)
			return
		}
		fmt.Println(append([]any{verb}, n...)...)
	}
	for ; ; n++ {
		begin(n)
		report("added", f.Add(numbered(n)), n)
		if n%3 == 0 {
			w := numbered(n).Window
			w.Send = rand.Uint32()
			begin(n)
			report("window", f.SetWindow(numbered(n).Key, w), n, w.Send)
		}
		if old := n - 50; old >= 0 && n%5 != 0 && f.Has(numbered(old).Key) {
			begin(old)
			report("removed", f.Remove(numbered(old).Key), old)
		}
		if n%11 == 0 {
			var batch []*socket.Spec
			for range 100 {
				n++
				begin(n)
				batch = append(batch, numbered(n))
			}
			err := f.AddAll(batch)
			for _, s := range batch {
				report("added", err, int(s.Tag))
			}
		}
	}
}
