package signal

import (
	"os"
	"os/signal"
	"syscall"
)

// CatchIgnored has programs that this process starts from now on begin with default
// dispositions. Those that it was told to ignore when it was started, as by nohup,
// would be ignored by them, too. Here they are dropped as before.
func CatchIgnored() {
	// Go's runtime handles all others, and what is handled is default after exec.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
}
