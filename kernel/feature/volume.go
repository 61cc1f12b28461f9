package feature

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"torpor/kernel/aio"
	"torpor/kernel/loop"
)

// volumeProbes are what block volumes need on this host. Exports by NBD need none.
var volumeProbes = []probe{
	{Feature{"fuse", false, "volumes as block devices of this host (FUSE)",
		"volumes can only be exported by NBD; services can not use them", configured("CONFIG_FUSE_FS") + "; try modprobe fuse; " + outside}, tryFUSE},
	{Feature{"loop-direct", false, "volumes as block devices of this host (loop devices with direct I/O and blocks of 4096 bytes)",
		"volumes can only be exported by NBD; services can not use them", configured("CONFIG_BLK_DEV_LOOP") + "; try modprobe loop; " + outside}, tryLoop},
	{Feature{"io-flusher", false, "volume servers that get memory even when everything waits for their volumes (PR_SET_IO_FLUSHER)",
		"a machine that runs out of memory while it writes to volumes may hang", "give torpor CAP_SYS_RESOURCE; the kernel has it since 5.6"}, tryFlusher},
	{Feature{"aio", false, "reads and writes of disks without a thread for each (io_submit)",
		"random reads and small synced writes of volumes cost up to twice the processor time", configured("CONFIG_AIO") + "; raise fs.aio-max-nr; " + outside}, tryQueue},
}

func tryFUSE(*machine) (string, error) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("open FUSE device: %w", err)
	}
	return "", f.Close()
}

// tryLoop makes a device of a file and takes it away again.
func tryLoop(*machine) (string, error) {
	if os.Geteuid() != 0 {
		return "", errNeedsRoot
	}
	f, err := os.CreateTemp("", "torpor-check-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		return "", err
	}
	d, err := loop.Attach(loop.Spec{BackingPath: f.Name(), BlockBytes: 4096, DirectIO: true})
	if err != nil {
		return "", err
	}
	return "", d.Detach(f.Name(), 10*time.Second)
}

func tryQueue(*machine) (string, error) {
	q, err := aio.NewQueue(1)
	if err != nil {
		return "", err
	}
	return "", q.Close()
}

// tryFlusher only asks: the answer needs what setting it needs.
func tryFlusher(*machine) (string, error) {
	if _, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0); err != nil {
		return "", fmt.Errorf("ask for I/O flusher: %w", err)
	}
	return "", nil
}
