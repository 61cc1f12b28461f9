package volume

import (
	"encoding/json"
	"os"
)

// suspension is an export that waits to be resumed: what has to be known, and
// descriptors.
type suspension struct {
	State json.RawMessage `json:"state"`
	FDs   []int           `json:"fds"` // in the process that was executed

	files []*os.File // in the process that suspended it
}

// suspend describes an export in plain data.
func suspend(state any, files []*os.File) (suspension, error) {
	b, err := json.Marshal(state)
	return suspension{State: b, files: files}, err
}

// take returns the state and the descriptors, which are the caller's then.
func (s suspension) take(state any) ([]*os.File, error) {
	files := s.files
	for _, fd := range s.FDs {
		files = append(files, os.NewFile(uintptr(fd), "export"))
	}
	return files, json.Unmarshal(s.State, state)
}
