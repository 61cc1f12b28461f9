package memory_test

import (
	"fmt"
	"testing"

	"torpor/block"
	"torpor/block/devicetest"
	"torpor/block/memory"
)

func TestSuite(t *testing.T) {
	for _, blockBytes := range []int{1, 512, 4096, 64 << 10} {
		t.Run(fmt.Sprint(blockBytes), func(t *testing.T) {
			devicetest.Run(t, func(t testing.TB) block.Device {
				d, err := memory.New(memory.Spec{SizeBytes: 5 << 20, BlockBytes: blockBytes})
				if err != nil {
					t.Fatal(err)
				}
				return d
			}, devicetest.Options{})
		})
	}
}
