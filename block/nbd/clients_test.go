package nbd

import (
	"testing"

	"torpor/internal/kerneltest"
)

const mib = 1 << 20

func TestInfo(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("nbdinfo"))
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Description: "a disk", Device: newRAM(64*mib, 4096)})
	out := run(t, "nbdinfo", "nbd+unix:///disk?socket="+socket)
	wantParts(t, out, "export-size: 67108864", "description: a disk", "block_size_minimum: 4096",
		"block_size_maximum: 33554432", "can_multi_conn: true", "can_df: true", "can_fast_zero: true", "base:allocation")
}

func TestFioVerifies(t *testing.T) {
	kerneltest.Require(t, kerneltest.Program("fio"))
	_, socket := serve(t, ServerSpec{}, Export{Name: "disk", Device: newRAM(64*mib, 4096)})
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket="+socket, "--rw=randwrite",
		"--bsrange=4k-256k", "--blockalign=4k", "--iodepth=16", "--size=64m", "--verify=crc32c", "--verify_fatal=1")
}
