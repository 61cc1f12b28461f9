package image

import (
	"io"
	"sync"
)

// Phase says what a Progress reports.
type Phase string

// The phases of a pull or import.
const (
	PhaseResolve  Phase = "resolve"  // asking what the name stands for
	PhaseStart    Phase = "start"    // the layers are known
	PhaseExists   Phase = "exists"   // one layer was there already
	PhaseDownload Phase = "download" // some bytes of one layer came and were unpacked
	PhaseLayer    Phase = "layer"    // one layer is complete
	PhaseDone     Phase = "done"     // the image can be used
)

// Progress is one step of a pull or import. Those of one call come one at a
// time, from several goroutines.
type Progress struct {
	Phase       Phase  `json:"phase"`
	Ref         string `json:"ref"`
	Layer       string `json:"layer,omitempty"` // digest of the blob, or its diff ID
	Bytes       int64  `json:"bytes"`           // of the layer so far, compressed
	TotalBytes  int64  `json:"total_bytes"`     // of the layer; 0 if not known
	Layers      int    `json:"layers"`          // complete
	TotalLayers int    `json:"total_layers"`
}

// progressStep is how many bytes come between two reports for one layer.
const progressStep = 512 << 10

// reporter hands the steps of one pull or import to its caller.
type reporter struct {
	ref  string
	call func(Progress) // may be nil

	mu       sync.Mutex
	complete int
	total    int
}

func (r *reporter) report(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Phase == PhaseExists || p.Phase == PhaseLayer {
		r.complete++
	}
	p.Ref, p.Layers, p.TotalLayers = r.ref, r.complete, r.total
	if r.call != nil {
		r.call(p)
	}
}

func (r *reporter) start(layers int) {
	r.mu.Lock()
	r.total = layers
	r.mu.Unlock()
	r.report(Progress{Phase: PhaseStart})
}

// countingReader reports how much of a layer has been read.
type countingReader struct {
	io.Reader
	to       *reporter
	layer    string
	total    int64
	n, shown int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	if c.n-c.shown >= progressStep || err == io.EOF && c.n > c.shown {
		c.shown = c.n
		c.to.report(Progress{Phase: PhaseDownload, Layer: c.layer, Bytes: c.n, TotalBytes: c.total})
	}
	return n, err
}
