package unique_test

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"torpor/checkpoint/unique"
	"torpor/internal/kerneltest"
	"torpor/kernel/proc"
)

// BenchmarkFind searches interpreters with 200 MB of objects.
func BenchmarkFind(b *testing.B) {
	for _, p := range []struct{ name, program, flag, source string }{
		{"python", "/usr/bin/python3", "-c", `
import random, os, ssl
keep = [os.urandom(1 << 16) for _ in range(1600)] + [{"n": i, "s": str(i)} for i in range(330000)]
print("ready", flush=True)
input()`},
		{"node", "node", "-e", `
const crypto = require("crypto"); Math.random(); crypto.randomUUID(); crypto.randomInt(5);
globalThis.keep = [crypto.randomBytes(100 << 20)];
for (let i = 0; i < 1100000; i++) keep.push({ n: i, s: "item " + i });
process.stdin.on("data", () => 0);
console.log("ready")`},
	} {
		b.Run(p.name, func(b *testing.B) { benchmarkFind(b, p.program, p.flag, p.source) })
	}
}

func benchmarkFind(b *testing.B, args ...string) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.Program(args[0]))
	cmd := exec.Command(args[0], args[1:]...)
	in, out := pipes(b, cmd)
	defer in.Close()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if line, err := out.ReadString('\n'); err != nil || line != "ready\n" {
		b.Fatalf("the program says %q, %v", line, err)
	}
	for b.Loop() {
		vmas, err := proc.VMAs(cmd.Process.Pid)
		if err != nil {
			b.Fatal(err)
		}
		memory := proc.OpenMemory(cmd.Process.Pid)
		if _, err := unique.Find(cmd.Process.Pid, vmas, memory); err != nil {
			b.Fatal(err)
		}
		memory.Close()
		private := int64(0)
		for i := range vmas {
			private += vmas[i].PrivateBytes
		}
		b.ReportMetric(float64(private>>20), "MB")
	}
}

// pipes connects a command's input and output.
func pipes(b *testing.B, cmd *exec.Cmd) (in *os.File, out *bufio.Reader) {
	b.Helper()
	theirs, in, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { theirs.Close() })
	cmd.Stdin = theirs
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	return in, bufio.NewReader(stdout)
}
