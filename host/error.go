package host

import (
	"errors"
	"strings"
)

// Kinds of error that commands tell apart by their exit code. Wrap them with
// %w; the table of exit codes is in cmd/torpor.
var (
	ErrRefused     = errors.New("refused") // nothing was touched
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("already exists")
	ErrInvalid     = errors.New("invalid input")
	ErrUnsupported = errors.New("not supported")        // by Torpor, yet
	ErrKernel      = errors.New("kernel lacks feature") // torpor check says what is missing
	ErrCorrupt     = errors.New("corrupt")
	ErrDaemonDown  = errors.New("daemon is not running")
)

// Refusal says why a service or process tree can not sleep. It matches
// ErrRefused. Reasons are complete sentences without a full stop and name the
// thing: "process 12 (redis) uses io_uring (fd 7)".
type Refusal struct {
	Reasons []string
}

func (r *Refusal) Error() string { return "refused: " + strings.Join(r.Reasons, "; ") }

// Is makes errors.Is(err, ErrRefused) true.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }
