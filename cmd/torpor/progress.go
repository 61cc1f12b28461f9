package main

import (
	"encoding/json"
	"fmt"
	"sync"

	"torpor/daemon"
)

// progressPrinter prints steps on standard error, or as JSON on standard
// output. A step that repeats on a terminal replaces its line; elsewhere it is
// printed once.
func progressPrinter(env *environment, asJSON bool) func(daemon.Progress) {
	if asJSON {
		encoder := json.NewEncoder(env.stdout)
		return func(p daemon.Progress) { _ = encoder.Encode(p) }
	}
	var mu sync.Mutex
	terminal, last := isTerminal(env.stderr), ""
	return func(p daemon.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Result != nil { // the command prints it
			return
		}
		line := p.Subject + " " + p.What
		if p.Detail != "" {
			line += " " + p.Detail
		}
		key := p.Subject + " " + p.What
		switch {
		case key == last && !terminal:
			return
		case key == last:
			fmt.Fprint(env.stderr, "\x1b[1A\x1b[2K")
		}
		last = key
		fmt.Fprintln(env.stderr, line)
	}
}
