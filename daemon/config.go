package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"torpor/host"
)

// Config says where a daemon works. The zero value of a field is its default.
type Config struct {
	StateDir string   // /var/lib/torpor
	RunDir   string   // /run/torpor
	Socket   string   // RunDir/torpor.sock
	Runtime  string   // runc
	Keeper   []string // command that runs a keeper; --state and --run are added
	// VolumeServer is the command that runs the server of a log; --state, --run
	// and the log's ID are added.
	VolumeServer []string
}

// Defaults of Config.
const (
	DefaultStateDir = "/var/lib/torpor"
	DefaultRunDir   = "/run/torpor"
)

// withDefaults fills in what is not said and makes paths absolute.
func (c Config) withDefaults() (Config, error) {
	if c.StateDir == "" {
		c.StateDir = DefaultStateDir
	}
	if c.RunDir == "" {
		c.RunDir = DefaultRunDir
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.RunDir, "torpor.sock")
	}
	for _, path := range []*string{&c.StateDir, &c.RunDir, &c.Socket} {
		abs, err := filepath.Abs(*path)
		if err != nil {
			return c, err
		}
		*path = abs
	}
	self, err := os.Executable()
	if err != nil {
		return c, fmt.Errorf("find torpor's own executable: %w", err)
	}
	if len(c.Keeper) == 0 {
		c.Keeper = []string{self, "keeper"}
	}
	if len(c.VolumeServer) == 0 {
		c.VolumeServer = []string{self, "volume", "serve"}
	}
	return c, nil
}

func (c *Config) serviceDir(id host.ContainerID) string {
	return filepath.Join(c.StateDir, "services", string(id))
}

// removingDir holds what is on its way out.
func (c *Config) removingDir() string { return filepath.Join(c.StateDir, "removing") }

// initPath is where containers get their init from.
func (c *Config) initPath() string { return filepath.Join(c.StateDir, "init") }

// stateVersion is the format of the state directory.
const stateVersion = 1

// openState makes the state directory or checks that it is of this version.
func (c *Config) openState() error {
	for _, dir := range []string{c.StateDir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := c.checkVersion(); err != nil {
		return err
	}
	for _, dir := range []string{"services", "volumes", "logs", "removing"} {
		if err := os.MkdirAll(filepath.Join(c.StateDir, dir), 0o711); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	return nil
}

// checkVersion refuses the state directory of another torpor, and what is none.
func (c *Config) checkVersion() error {
	path := filepath.Join(c.StateDir, "version")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(c.StateDir, "services")); err == nil {
			return fmt.Errorf("open state directory %s: it has services but no version file: %w", c.StateDir, host.ErrCorrupt)
		}
		return os.WriteFile(path, []byte(strconv.Itoa(stateVersion)+"\n"), 0o644)
	}
	if err != nil {
		return fmt.Errorf("read version of state directory: %w", err)
	}
	if v := strings.TrimSpace(string(b)); v != strconv.Itoa(stateVersion) {
		return fmt.Errorf("open state directory %s: it has version %s, this torpor uses %d; use the torpor that made it, or another --state-dir: %w",
			c.StateDir, v, stateVersion, host.ErrUnsupported)
	}
	return nil
}
