package unique_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"torpor/internal/kerneltest"
)

const goService = `package main

import (
	"bufio"
	crand "crypto/rand"
	"fmt"
	"hash/maphash"
	"math/rand"
	randv2 "math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
)

var seed = maphash.MakeSeed()

// threads asks the runtime's generators on several threads at the same time.
func threads() string {
	const count = 8
	var ready, done sync.WaitGroup
	var mu sync.Mutex
	var list []string
	ready.Add(count)
	for range count {
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
			mu.Lock()
			defer mu.Unlock()
			for range 40 {
				list = append(list, fmt.Sprint(rand.Uint64()), fmt.Sprint(randv2.Uint64()), fmt.Sprint(rand.New(rand.NewSource(rand.Int63())).Uint64()),
					fmt.Sprint(maphash.String(maphash.MakeSeed(), "x")))
			}
		}()
	}
	done.Wait()
	return strings.Join(list, ",")
}

func show(own *rand.Rand, chacha *randv2.ChaCha8) string {
	fresh := make([]byte, 8)
	crand.Read(fresh)
	return fmt.Sprintf("threads=%s source=%d chacha=%d sharedhash=%x freshcrypto=%x",
		threads(), own.Uint64(), chacha.Uint64(), maphash.String(seed, "x"), fresh)
}

func main() {
	own := rand.New(rand.NewSource(42))
	chacha := randv2.NewChaCha8([32]byte{42})
	for range 200 {
		show(own, chacha)
	}
	in, err := os.OpenFile(os.Args[1], os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fmt.Println(show(own, chacha))
		runtime.GC()
	}
}
`

// buildGo builds a program of one file.
func buildGo(t *testing.T, source string, flags ...string) string {
	t.Helper()
	kerneltest.Require(t, kerneltest.Program("go"))
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": source, "go.mod": "module program\n\ngo 1.22\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", "program"}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

func TestGo(t *testing.T) {
	for name, flags := range map[string][]string{"plain": nil, "stripped": {"-ldflags=-s -w"}, "pie": {"-buildmode=pie", "-ldflags=-s"}} {
		t.Run(name, func(t *testing.T) { startService(t, buildGo(t, goService, flags...)).checkFutures() })
	}
}
