package unique_test

import (
	"fmt"
	"os/exec"
	"testing"
)

const pythonService = `
import gc, hashlib, os, random, ssl, sys, tempfile, threading, queue, uuid
own, seeded = random.Random(), random.Random(42)
class Mine(random.Random): pass
mine = Mine()
asked, answers = queue.Queue(), queue.Queue()
def work():
    ssl.RAND_bytes(8)
    while True:
        asked.get()
        answers.put(ssl.RAND_bytes(8).hex())
thread = threading.Thread(target=work, daemon=True); thread.start()
def show():
    asked.put(1)
    return {"random": random.random(), "own": own.getrandbits(64), "seeded": seeded.random(), "mine": mine.random(),
        "choice": "".join(random.choices("abcdefghij", k=20)), "tempfile": next(tempfile._get_candidate_names()),
        "ssl": ssl.RAND_bytes(8).hex(), "sslthread": answers.get(timeout=60), "freshurandom": os.urandom(8).hex(),
        "freshuuid": uuid.uuid4().hex, "sharedhash": hash("something")}
for _ in range(1000): show()
source = open(sys.argv[1], "r+b", buffering=0)
print("ready", flush=True)
while True:
    source.readline()
    print(" ".join(f"{k}={v}" for k, v in show().items()), flush=True)
    gc.collect()
`

func TestPython(t *testing.T) {
	startService(t, "/usr/bin/python3", "-c", pythonService).checkFutures()
}

// TestPythonVersions tries the other ones that are installed.
func TestPythonVersions(t *testing.T) {
	for minor := 9; minor < 20; minor++ {
		name := fmt.Sprintf("python3.%d", minor)
		if exec.Command(name, "-c", "import ssl").Run() != nil {
			continue
		}
		t.Run(name, func(t *testing.T) { startService(t, name, "-c", pythonService).checkFutures() })
	}
}

// TestOpenSSLUnused calls nothing of a library that the program has loaded and
// whose generators it has not used: each restore makes its own.
func TestOpenSSLUnused(t *testing.T) {
	s := startService(t, "/usr/bin/python3", "-c", `
import ssl, sys
source = open(sys.argv[1], "r+b", buffering=0)
print("ready", flush=True)
while True:
    source.readline()
    print("freshssl=" + ssl.RAND_bytes(8).hex(), flush=True)
`)
	s.checkFutures()
	if len(s.specs[0].Calls) != 0 {
		t.Errorf("calls are %+v", s.specs[0].Calls)
	}
}

// TestNumpy tries it where it is installed.
func TestNumpy(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import numpy").Run() != nil {
		t.Log("numpy is not installed")
		return
	}
	startService(t, python, "-c", `
import sys
import numpy as np
from numpy.random import Generator, MT19937, PCG64, PCG64DXSM, Philox, SFC64
own = {c.__name__: Generator(c()) for c in (MT19937, PCG64, PCG64DXSM, Philox, SFC64)}
seeded = np.random.default_rng(42)
def show():
    all = {n: g.integers(2 ** 63) for n, g in own.items()}
    all.update({n + "half": g.integers(2 ** 31, dtype=np.int32) for n, g in own.items()})
    return {**all, "global": np.random.random(), "seeded": seeded.random()}
for _ in range(1001): show()
source = open(sys.argv[1], "r+b", buffering=0)
print("ready", flush=True)
while True:
    source.readline()
    print(" ".join(f"{k}={v}" for k, v in show().items()), flush=True)
`).checkFutures()
}
