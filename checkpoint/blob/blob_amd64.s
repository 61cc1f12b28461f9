// The code that runs outside torpor. See doc.go; the script's format is in
// script.go of package checkpoint, the init's protocol in DESIGN.md.
//
// Each function ends in a 16-byte mark by which text() finds its end: labels
// can not be exported from Go's assembler.

#include "textflag.h"

#define END_MARK QUAD $0x646e65706f72742e; QUAD $0x2e6b72616d2e2e2e

// System calls, asm/unistd_64.h.
#define SYS_read            0
#define SYS_write           1
#define SYS_poll            7
#define SYS_mmap            9
#define SYS_rt_sigprocmask 14
#define SYS_sched_yield    24
#define SYS_pause          34
#define SYS_sendmsg        46
#define SYS_recvmsg        47
#define SYS_fork           57
#define SYS_execve         59
#define SYS_exit           60
#define SYS_wait4          61
#define SYS_setsid        112
#define SYS_signalfd4     289
#define SYS_setns         308
#define SYS_clone3        435
#define SYS_close_range   436

// A thread that ends by itself gives its number back only after its process can
// have been waited for (release_task of kernel/exit.c: free_pids follows
// write_unlock_irq), so that who has waited can find the number taken. That
// takes microseconds, or as long as the thread has to wait for a processor.
#define MAX_TRIES 30000

// interp executes script entries of 64 bytes from R12 on:
//   0 nr uint32, 4 op uint8, 5 flags uint8, 6 tries uint16, 8 six arguments,
//   56 result.
// It uses no stack. On a failed check R15 holds 'fail' and R12 the entry.
TEXT ·interp(SB), NOSPLIT|NOFRAME, $0-0
next:
	MOVBLZX 4(R12), AX
	CMPL AX, $1
	JEQ  stop
	CMPL AX, $3
	JEQ  copy
	CMPL AX, $4
	JEQ  wait
	CMPL AX, $5
	JEQ  count
	CMPL AX, $6
	JEQ  sleep

	// 0: system call; 2: the same, and the child goes on at the last argument.
	MOVL 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	MOVQ 48(R12), R9
	SYSCALL
	MOVBLZX 4(R12), CX
	CMPL CX, $2
	JNE  parent
	CMPQ AX, $-17           // EEXIST: see MAX_TRIES
	JEQ  again
	TESTQ AX, AX
	JNE  parent
	MOVQ 48(R12), R12
	JMP  next
again:
	INCW 6(R12)
	CMPW 6(R12), $MAX_TRIES
	JCC  parent
	MOVL $SYS_sched_yield, AX
	SYSCALL
	JMP  next
parent:
	MOVQ 56(R12), DX
	MOVQ AX, 56(R12)
	MOVBLZX 5(R12), CX
	TESTL $1, CX
	JZ   unchecked
	CMPQ AX, $-4095
	JCC  fail               // unsigned: an errno
unchecked:
	TESTL $2, CX
	JZ   advance
	CMPQ AX, DX
	JNE  fail
advance:
	ADDQ $64, R12
	JMP  next

stop:                       // 1: hand over to the tracer
	INT  $3
	ADDQ $64, R12
	JMP  next

copy:                       // 3: a0 to, a1 from, a2 length
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), CX
	CLD
	REP; MOVSB
	JMP  advance

wait:                       // 4: until the uint32 at a0 is at least a1
	MOVQ 8(R12), DI
	MOVL 16(R12), SI
waiting:
	MOVL (DI), AX
	CMPL AX, SI
	JCC  advance
	MOVL $SYS_sched_yield, AX
	MOVQ DI, R8
	SYSCALL
	MOVQ R8, DI
	JMP  waiting

count:                      // 5: add one to the uint32 at a0
	MOVQ 8(R12), DI
	LOCK
	INCL (DI)
	JMP  advance

sleep:                      // 6: wait for the tracer
	MOVL $SYS_pause, AX
	SYSCALL
	JMP  sleep

fail:
	MOVQ $0x6c696166, R15   // "fail"
	INT  $3
	JMP  fail
	END_MARK

// stub: parameters at 0x100b0: area address, area length, first script entry,
// interpreter entry, namespace flags (0: stay), pid of the third process (0:
// any). Descriptor 3 is a pidfd of the process whose namespaces to join, 4 the
// area. The first process waits for the second, the second leaves the third to
// the namespace's init.
TEXT ·stub(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $0x100b0, R13
	MOVQ 0(R13), DI
	MOVQ 8(R13), SI
	MOVL $7, DX             // read, write, execute
	MOVL $0x100001, R10     // MAP_FIXED_NOREPLACE|MAP_SHARED
	MOVL $4, R8
	XORL R9, R9
	MOVL $SYS_mmap, AX
	SYSCALL
	MOVL $11, DI            // exit code of a failed mmap
	CMPQ AX, 0(R13)
	JNE  exit
	MOVQ 32(R13), SI
	TESTQ SI, SI
	JZ   joined
	MOVL $3, DI
	MOVL $SYS_setns, AX
	SYSCALL
	MOVL $12, DI
	TESTQ AX, AX
	JNE  exit
joined:
	MOVL $SYS_fork, AX
	SYSCALL
	MOVL $13, DI
	TESTQ AX, AX
	JLT  exit
	JEQ  second
	MOVQ AX, DI             // wait4(second, &status, 0, nil)
	SUBQ $16, SP
	MOVQ SP, SI
	XORL DX, DX
	XORL R10, R10
	MOVL $SYS_wait4, AX
	SYSCALL
	MOVL (SP), DI
	SHRL $8, DI
	JMP  exit
second:                     // struct clone_args: exit_signal, set_tid, set_tid_size
	SUBQ $96, SP
	MOVQ SP, DI
	XORL AX, AX
	MOVL $12, CX
	CLD
	REP; STOSQ
	MOVQ $17, 32(SP)        // SIGCHLD
	MOVQ 40(R13), AX
	TESTQ AX, AX
	JEQ  anypid
	LEAQ 40(R13), AX
	MOVQ AX, 64(SP)
	MOVQ $1, 72(SP)
anypid:
	MOVQ SP, DI
	MOVL $88, SI            // 88(SP) counts tries
	MOVL $SYS_clone3, AX
	SYSCALL
	CMPQ AX, $-17           // EEXIST
	JNE  cloned
	INCL 88(SP)
	CMPL 88(SP), $MAX_TRIES
	JCC  cloned
	MOVL $SYS_sched_yield, AX
	SYSCALL
	JMP  anypid
cloned:
	MOVL $14, DI
	TESTQ AX, AX
	JLT  exit
	JEQ  third
	XORL DI, DI
	JMP  exit
third:
	MOVL $SYS_setsid, AX
	SYSCALL
	XORL DI, DI
	MOVL $-1, SI
	XORL DX, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	MOVQ 16(R13), R12
	MOVQ 24(R13), AX
	JMP  AX
exit:
	MOVL $SYS_exit, AX
	SYSCALL
	JMP  exit
	END_MARK

// init: pid 1. Stack at entry: argc, argv..., 0, envp..., 0. Frame below SP:
//   0 msghdr (56) | 56 iovec (16) | 72 payload (8) | 80 sender's name (112)
//   192 control (1040) | 1232 pollfd (16) | 1248 signal mask (8)
//   1256 status (8) | 1264 siginfo (128)
// R13 argv, R14 pid of the application, R15 parked descriptors, BX the first
// descriptor number of those.
#define FRAME 1536
TEXT ·init1(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ (SP), R12          // argc
	LEAQ 8(SP), R13         // argv
	SUBQ $FRAME, SP
	CLD

	MOVL $5, DI             // only 0 to 4 are ours
	MOVL $-1, SI
	XORL DX, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	MOVQ $-1, AX            // block every signal
	MOVQ AX, 1248(SP)
	XORL DI, DI
	LEAQ 1248(SP), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVL $0x10000, AX       // SIGCHLD
	MOVQ AX, 1248(SP)
	MOVL $-1, DI
	LEAQ 1248(SP), SI
	MOVL $8, DX
	MOVL $0x80000, R10      // SFD_CLOEXEC
	MOVL $SYS_signalfd4, AX
	SYSCALL                 // 5
	XORL R15, R15
	MOVL $6, BX
	XORL R14, R14
	CMPQ R12, $2
	JLT  poll               // no application: only hold descriptors
	MOVL $SYS_fork, AX
	SYSCALL
	TESTQ AX, AX
	JEQ  app
	MOVQ AX, R14

poll:
	MOVL $5, 1232(SP)
	MOVL $1, 1236(SP)       // POLLIN, revents 0
	MOVL $4, 1240(SP)
	MOVL $1, 1244(SP)
	LEAQ 1232(SP), DI
	MOVL $2, SI
	MOVL $-1, DX
	MOVL $SYS_poll, AX
	SYSCALL
	TESTQ AX, AX
	JLE  poll
	MOVWLZX 1246(SP), AX
	TESTL AX, AX
	JNE  message
	MOVL $5, DI
	LEAQ 1264(SP), SI
	MOVL $128, DX
	MOVL $SYS_read, AX
	SYSCALL
reap:
	MOVQ $-1, DI
	LEAQ 1256(SP), SI
	MOVL $1, DX             // WNOHANG
	XORL R10, R10
	MOVL $SYS_wait4, AX
	SYSCALL
	TESTQ AX, AX
	JLE  poll
	CMPQ AX, R14
	JNE  reap
	MOVL 1256(SP), CX       // report pid, status
	MOVL AX, 72(SP)
	MOVL CX, 76(SP)
	MOVL $3, DI
	LEAQ 72(SP), SI
	MOVL $8, DX
	MOVL $SYS_write, AX
	SYSCALL
	JMP  reap

message:
	LEAQ 80(SP), AX
	MOVQ AX, 0(SP)          // msg_name
	MOVQ $112, 8(SP)
	LEAQ 56(SP), AX
	MOVQ AX, 16(SP)         // msg_iov
	MOVQ $1, 24(SP)
	LEAQ 72(SP), CX
	MOVQ CX, 56(SP)
	MOVQ $5, 64(SP)
	MOVL $0, 73(SP)
	LEAQ 192(SP), CX
	MOVQ CX, 32(SP)         // msg_control
	MOVQ $1040, 40(SP)
	MOVQ $0, 48(SP)
	MOVL $4, DI
	MOVQ SP, SI
	MOVL $0x40000040, DX    // MSG_CMSG_CLOEXEC|MSG_DONTWAIT
	MOVL $SYS_recvmsg, AX
	SYSCALL
	CMPQ AX, $1
	JLT  poll
	XORL CX, CX             // number of descriptors
	MOVQ 40(SP), AX
	CMPQ AX, $20            // a header and one descriptor
	JLT  counted
	MOVQ 192(SP), CX        // cmsg_len
	SUBQ $16, CX
	SHRQ $2, CX
counted:
	MOVBLZX 72(SP), AX
	CMPL AX, $0x6b          // 'k'
	JNE  notkeep
	ADDQ CX, BX
	JMP  answer
notkeep:
	CMPL AX, $0x6d          // 'm': whose end is reported
	JNE  notmain
	MOVL 73(SP), R14
	JMP  answer
notmain:
	CMPL AX, $0x74          // 't': only so many stay parked
	JNE  nottail
	MOVL 73(SP), DX
	CMPQ DX, R15
	JCC  answer
	MOVQ DX, R15
	LEAQ (BX)(DX*1), DI
	MOVL $-1, SI
	XORL DX, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	JMP  answer
nottail:
	CMPL AX, $0x70          // 'p'
	JNE  notpark
	ADDQ CX, R15
	JMP  answer
notpark:
	MOVQ BX, DI             // 'c', or unknown: hold nothing by mistake
	MOVL $-1, SI
	XORL DX, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	XORL R15, R15
answer:
	MOVL R15, 73(SP)
	MOVQ $5, 64(SP)
	MOVQ $0, 32(SP)
	MOVQ $0, 40(SP)
	MOVL $0, 48(SP)
	MOVL $4, DI
	MOVQ SP, SI
	MOVL $0x4040, DX        // MSG_NOSIGNAL|MSG_DONTWAIT
	MOVL $SYS_sendmsg, AX
	SYSCALL
	JMP  poll

app:
	MOVL $SYS_setsid, AX
	SYSCALL
	MOVQ $0, 1248(SP)
	MOVL $2, DI             // SIG_SETMASK
	LEAQ 1248(SP), SI
	XORL DX, DX
	MOVL $8, R10
	MOVL $SYS_rt_sigprocmask, AX
	SYSCALL
	MOVL $3, DI
	MOVL $-1, SI
	XORL DX, DX
	MOVL $SYS_close_range, AX
	SYSCALL
	MOVL $127, R15          // exit code unless something was there
	LEAQ 8(R13), R8         // &argv[1]
	LEAQ 8(R13)(R12*8), R9  // envp
	MOVQ (R8), R10          // name
	MOVQ R10, DI
slash:
	MOVBLZX (DI), AX
	TESTL AX, AX
	JEQ  search
	CMPL AX, $0x2f
	JEQ  direct
	INCQ DI
	JMP  slash
direct:
	MOVQ R10, DI
	MOVQ R8, SI
	MOVQ R9, DX
	MOVL $SYS_execve, AX
	SYSCALL
	CMPQ AX, $-2            // ENOENT
	JEQ  exit
	MOVL $126, R15
	JMP  exit

search:                     // R11 is lost in system calls: BX walks envp
	MOVQ R9, BX
env:
	MOVQ (BX), SI
	TESTQ SI, SI
	JEQ  exit
	ADDQ $8, BX
	MOVL (SI), AX
	CMPL AX, $0x48544150    // "PATH"
	JNE  env
	MOVBLZX 4(SI), AX
	CMPL AX, $0x3d          // '='
	JNE  env
	LEAQ 5(SI), BX          // walks PATH
	SUBQ $8192, SP
dir:
	MOVQ SP, DI
	LEAQ 4095(SP), DX       // the directory must end before this
dirbyte:
	MOVBLZX (BX), AX
	TESTL AX, AX
	JEQ  dirend
	CMPL AX, $0x3a          // ':'
	JEQ  dirend
	CMPQ DI, DX
	JCC  exit
	MOVB AX, (DI)
	INCQ DI
	INCQ BX
	JMP  dirbyte
dirend:
	MOVB $0x2f, (DI)
	INCQ DI
	MOVQ R10, SI
	LEAQ 8190(SP), DX
namebyte:
	MOVBLZX (SI), AX
	MOVB AX, (DI)
	TESTL AX, AX
	JEQ  try
	CMPQ DI, DX
	JCC  exit
	INCQ SI
	INCQ DI
	JMP  namebyte
try:
	MOVQ SP, DI
	MOVQ R8, SI
	MOVQ R9, DX
	MOVL $SYS_execve, AX
	SYSCALL
	CMPQ AX, $-2            // ENOENT
	JEQ  onward
	CMPQ AX, $-20           // ENOTDIR
	JEQ  onward
	MOVL $126, R15
onward:
	MOVBLZX (BX), AX
	TESTL AX, AX
	JEQ  exit
	INCQ BX
	JMP  dir
exit:
	MOVL R15, DI
	MOVL $SYS_exit, AX
	SYSCALL
	JMP  exit
	END_MARK

TEXT ·interpAddr(SB), NOSPLIT, $0-8
	LEAQ ·interp(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·stubAddr(SB), NOSPLIT, $0-8
	LEAQ ·stub(SB), AX
	MOVQ AX, ret+0(FP)
	RET

TEXT ·init1Addr(SB), NOSPLIT, $0-8
	LEAQ ·init1(SB), AX
	MOVQ AX, ret+0(FP)
	RET
