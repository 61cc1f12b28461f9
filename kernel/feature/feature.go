package feature

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"torpor/host"
)

// Feature is something of the machine that Torpor uses. The texts are phrases
// without a full stop.
type Feature struct {
	Name     string `json:"name"`
	Required bool   `json:"required"` // services can not run and sleep without it
	Enables  string `json:"enables"`
	Without  string `json:"without"` // what its absence costs
	Next     string `json:"next"`    // what to do about that
}

// Result says whether a feature is there.
type Result struct {
	Feature
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what was found
	Cause  string `json:"cause,omitempty"`  // why it is missing
}

// Options say what is tried beside the kernel.
type Options struct {
	StateDir string // need not exist yet; "" is not tried
	Runtime  string // name or path of the OCI runtime; "" is not tried
}

// probe tries a feature on this machine.
type probe struct {
	Feature
	try func(*machine) (detail string, err error)
}

func (p probe) run(m *machine) Result {
	detail, err := p.try(m)
	r := Result{Feature: p.Feature, OK: err == nil, Detail: detail}
	if err != nil {
		r.Cause = err.Error()
	}
	if os.Geteuid() != 0 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, errNeedsRoot)) {
		r.Next = asRoot // it may well be there
	}
	return r
}

// asRoot is what to do when this process may not even try.
const asRoot = "run it with sudo; in a container give it all capabilities"

var errNeedsRoot = errors.New("only root can try it")

// Kernel returns what the kernel can do, tried once a process.
func Kernel() []Result { return slices.Clone(tryKernel()) }

var tryKernel = sync.OnceValue(func() []Result {
	m := newMachine()
	defer m.close()
	var results []Result
	for _, probes := range [][]probe{processProbes, memoryProbes, spaceProbes, networkProbes, connectionProbes, volumeProbes} {
		for _, p := range probes {
			results = append(results, p.run(m))
		}
	}
	return results
})

// Check returns what the machine can do: Kernel, and what the options name,
// which is tried anew each time.
func Check(o Options) []Result {
	results := Kernel()
	if o.Runtime != "" {
		results = append(results, runtimeProbe(o.Runtime).run(nil))
	}
	if o.StateDir != "" {
		results = append(results, stateProbe(o.StateDir).run(nil))
	}
	return results
}

// Missing returns the required features that are not there.
func Missing(results []Result) []Result {
	return slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.OK || !r.Required })
}

// Has reports whether the kernel has the feature of that name. It panics for a
// name that does not exist.
func Has(name string) bool {
	for _, r := range tryKernel() {
		if r.Name == name {
			return r.OK
		}
	}
	panic("feature: no feature " + name)
}

// Require returns an error that matches host.ErrKernel and says what is missing
// and what to do, unless the kernel has every required feature.
func Require() error {
	missing := Missing(tryKernel())
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, r := range missing {
		lines = append(lines, fmt.Sprintf("%s: %s; next: %s", r.Name, r.Cause, r.Next))
	}
	return fmt.Errorf("%w: %s", host.ErrKernel, strings.Join(lines, "\n"))
}
