package container

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"torpor/host"
)

// profile is a seccomp profile as docker reads it from a file: that of the OCI
// spec, plus conditions.
type profile struct {
	specs.LinuxSeccomp
	ArchMap []struct {
		Architecture     specs.Arch   `json:"architecture"`
		SubArchitectures []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []profileRule `json:"syscalls"`
}

type profileRule struct {
	Name string `json:"name"` // of old profiles, in place of names
	specs.LinuxSyscall
	Includes profileCondition `json:"includes"`
	Excludes profileCondition `json:"excludes"`
}

// profileCondition of an including rule must hold in all that it says; of an
// excluding rule, in anything.
type profileCondition struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// readProfile reads a seccomp profile of docker's or the OCI spec's form and
// decides its conditions.
func readProfile(path string, set capabilitySet) (*specs.LinuxSeccomp, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	out, err := parseProfile(content, set)
	if err != nil {
		return nil, fmt.Errorf("read seccomp profile %s: %w: %w", path, host.ErrInvalid, err)
	}
	return out, nil
}

func parseProfile(content []byte, set capabilitySet) (*specs.LinuxSeccomp, error) {
	p := new(profile)
	if err := json.Unmarshal(content, p); err != nil {
		return nil, err
	}
	if p.DefaultAction == "" {
		return nil, fmt.Errorf("it has no defaultAction")
	}
	out := &p.LinuxSeccomp
	if len(out.Architectures) == 0 {
		native := architectures()[0]
		for _, m := range p.ArchMap {
			if m.Architecture == native {
				out.Architectures = append([]specs.Arch{native}, m.SubArchitectures...)
			}
		}
	}
	for _, rule := range p.Syscalls {
		if rule.Name != "" {
			rule.Names = append(rule.Names, rule.Name)
		}
		if len(rule.Names) == 0 || rule.Action == "" {
			return nil, fmt.Errorf("a rule has no names or no action")
		}
		if rule.applies(set) {
			out.Syscalls = append(out.Syscalls, rule.LinuxSyscall)
		}
	}
	return out, nil
}

func (r *profileRule) applies(set capabilitySet) bool {
	in, not := r.Includes, r.Excludes
	switch {
	case slices.Contains(not.Arches, runtime.GOARCH), set.containsAny(not.Caps), not.MinKernel != "" && kernelIsAtLeast(not.MinKernel):
		return false
	case len(in.Arches) > 0 && !slices.Contains(in.Arches, runtime.GOARCH), in.MinKernel != "" && !kernelIsAtLeast(in.MinKernel):
		return false
	}
	return set.containsEvery(in.Caps)
}

// kernelIsAtLeast compares the running kernel with a version like "4.8".
func kernelIsAtLeast(version string) bool {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return false
	}
	var release strings.Builder
	for _, c := range name.Release {
		if c == 0 {
			break
		}
		release.WriteByte(byte(c))
	}
	have, want := twoNumbers(release.String()), twoNumbers(version)
	return slices.Compare(have[:], want[:]) >= 0
}

func twoNumbers(version string) (numbers [2]int) {
	for i, part := range strings.SplitN(version, ".", 3) {
		if i == len(numbers) {
			break
		}
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if digits >= 0 {
			part = part[:digits]
		}
		numbers[i], _ = strconv.Atoi(part)
	}
	return numbers
}
