package e2e

import (
	"encoding/json"
	"testing"

	"torpor/bench"
)

// TestBenchWake runs the benchmark as a user does; what it measures is not
// judged, only that it was.
func TestBenchWake(t *testing.T) {
	m := newMachine(t)
	var results []bench.WakeResult
	output := m.must("bench", "wake", "--heap", "10", "--cycles", "2", "--criu", "", "--dir", m.dir, "--json")
	if err := json.Unmarshal([]byte(output), &results); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	if len(results) != 1 || results[0].Running.N != 2 || results[0].Running.P50 <= 0 || results[0].FirstByte.P50 <= results[0].Awake.Min || results[0].CRIU != nil {
		t.Errorf("results %+v", results)
	}
}

// TestBenchSockets runs the other benchmark; every connection must answer.
func TestBenchSockets(t *testing.T) {
	m := newMachine(t)
	var r bench.SocketsResult
	output := m.must("bench", "sockets", "--count", "2500", "--requests", "50", "--dir", m.dir, "--json")
	if err := json.Unmarshal([]byte(output), &r); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	if r.Count != 2500 || r.Sockets != 0 || r.Asked != 50 || r.Correct != 50 || r.Woken.N != 50 || r.Suspends <= 0 || r.Restores <= 0 {
		t.Errorf("result %+v", r)
	}
}
