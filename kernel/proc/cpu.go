package proc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// CPUFeatures is a digest of what this machine's CPUs can do, as far as
// programs find out: the flags of /proc/cpuinfo. It is read once: on large
// machines the file takes milliseconds.
var CPUFeatures = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("read CPU features: %w", err)
	}
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		slices.Sort(flags)
		sum := sha256.Sum256([]byte(strings.Join(flags, " ")))
		return hex.EncodeToString(sum[:16]), nil
	}
	return "", fmt.Errorf("read CPU features: /proc/cpuinfo has no flags")
})
