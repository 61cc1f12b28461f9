package unique_test

import (
	"fmt"
	"os/exec"
	"testing"
)

const pythonService = `
import hashlib, os, random, ssl, sys, tempfile, threading, queue, uuid
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
