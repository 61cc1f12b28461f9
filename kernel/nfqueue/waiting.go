package nfqueue

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
)

// Waiting returns how many packets of a number wait for a verdict, in the
// network namespace of the calling thread: none if nobody has it open.
func Waiting(number uint16) (int, error) {
	b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return 0, fmt.Errorf("list queues: %w", err)
	}
	n, err := waiting(b, number)
	if err != nil {
		return 0, fmt.Errorf("list queues: %w", err)
	}
	return n, nil
}

// waiting reads lines of number, port id, waiting packets and more
// (net/netfilter/nfnetlink_queue.c, seq_show).
func waiting(list []byte, number uint16) (int, error) {
	lines := bufio.NewScanner(bytes.NewReader(list))
	for lines.Scan() {
		var queue uint16
		var port uint32
		var packets int
		if _, err := fmt.Sscan(lines.Text(), &queue, &port, &packets); err != nil {
			return 0, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		if queue == number {
			return packets, nil
		}
	}
	return 0, lines.Err()
}
