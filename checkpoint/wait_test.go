package checkpoint

import (
	"testing"
	"time"

	"torpor/kernel/ptrace"
)

func TestShortensWaits(t *testing.T) {
	minusOne := uint64(1<<64 - 1)
	for _, test := range []struct {
		name   string
		regs   ptrace.Regs
		passed time.Duration
		want   ptrace.Regs
		ok     bool
	}{
		{"epoll_wait", ptrace.Regs{Rax: 232, R10: 2000}, 1500 * time.Millisecond, ptrace.Regs{Rax: 232, R10: 500}, true},
		{"epoll_pwait", ptrace.Regs{Rax: 281, R10: 2000}, time.Hour, ptrace.Regs{Rax: 281, R10: 0}, true},
		{"poll", ptrace.Regs{Rax: 7, Rdx: 2000, R10: 5}, time.Second, ptrace.Regs{Rax: 7, Rdx: 1000, R10: 5}, true},
		{"for a long time", ptrace.Regs{Rax: 7, Rdx: 1<<31 - 1}, 100 * 24 * time.Hour, ptrace.Regs{Rax: 7}, true},
		{"for ever", ptrace.Regs{Rax: 232, R10: minusOne}, time.Hour, ptrace.Regs{Rax: 232, R10: minusOne}, false},
		{"for ever, by 32 bits", ptrace.Regs{Rax: 7, Rdx: 1<<32 - 1}, time.Hour, ptrace.Regs{Rax: 7, Rdx: 1<<32 - 1}, false},
		{"not at all", ptrace.Regs{Rax: 232}, time.Hour, ptrace.Regs{Rax: 232}, false},
		{"another call", ptrace.Regs{Rax: 0, Rdx: 2000, R10: 2000}, time.Hour, ptrace.Regs{Rax: 0, Rdx: 2000, R10: 2000}, false},
		{"the clock went back", ptrace.Regs{Rax: 232, R10: 2000}, -time.Hour, ptrace.Regs{Rax: 232, R10: 2000}, false},
	} {
		if got, ok := shortened(test.regs, test.passed); got != test.want || ok != test.ok {
			t.Errorf("%s: registers are %+v, %v", test.name, got, ok)
		}
	}
}
