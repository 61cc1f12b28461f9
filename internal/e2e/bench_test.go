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
