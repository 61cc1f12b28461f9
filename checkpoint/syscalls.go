package checkpoint

// Numbers of the system calls that scripts make, asm/unistd_64.h. Scripts run
// in other processes: these are data here, not calls.
const (
	sysClose          = 3
	sysMmap           = 9
	sysMunmap         = 11
	sysRtSigaction    = 13
	sysPread64        = 17
	sysMremap         = 25
	sysMadvise        = 28
	sysShmat          = 30
	sysDup3           = 292
	sysGetitimer      = 36
	sysSetitimer      = 38
	sysExit           = 60
	sysFcntl          = 72
	sysFchdir         = 81
	sysUmask          = 95
	sysSetpgid        = 109
	sysSetsid         = 112
	sysSetgroups      = 116
	sysSetresuid      = 117
	sysSetresgid      = 119
	sysSetfsuid       = 122
	sysSetfsgid       = 123
	sysCapset         = 126
	sysSigaltstack    = 131
	sysMlockall       = 151
	sysPrctl          = 157
	sysChroot         = 161
	sysSetTidAddress  = 218
	sysTimerCreate    = 222
	sysTimerSettime   = 223
	sysTimerGettime   = 224
	sysPrlimit64      = 302
	sysSetRobustList  = 273
	sysRtSigqueueinfo = 129
	sysRtTgsigqueue   = 297
	sysSeccomp        = 317
	sysMembarrier     = 324
	sysMlock2         = 325
	sysRseq           = 334
	sysPidfdOpen      = 434
	sysClone3         = 435
	sysPidfdGetfd     = 438
	sysBrk            = 12
	sysShmctl         = 31
	sysPause          = 34
	sysClone          = 56
	sysVfork          = 58
	sysPersonality    = 135
	sysEpollWait      = 232
	sysEpollCtl       = 233
	sysSetns          = 308
)

// Flags and operations of those calls.
const (
	mapPrivate   = 0x2
	mapShared    = 0x1
	mapFixed     = 0x10
	mapAnonymous = 0x20
	mapGrowsDown = 0x100
	mapNoReserve = 0x4000
	mapDroppable = 0x8

	mremapMayMove = 1
	mremapFixed   = 2

	mlockOnFault = 1
	mclFuture    = 2
	mclOnFault   = 4
	shmRemap     = 0x4000
	shmReadOnly  = 0x1000
	shmDest      = 0o1000
	ipcStat      = 2

	fGetFD        = 1
	fSetFD        = 2
	fDupFDCloexec = 1030
	fSetOwnEx     = 15
	fdCloexec     = 1
	oCloexec      = 0x80000

	prSetName           = 15
	prSetDumpable       = 4
	prGetDumpable       = 3
	prSetPdeathsig      = 1
	prGetPdeathsig      = 2
	prCapbsetDrop       = 24
	prGetSecureBits     = 27
	prSetSecureBits     = 28
	prSetMM             = 35
	prSetMMMap          = 14
	prSetChildSubreaper = 36
	prGetChildSubreaper = 37
	prSetNoNewPrivs     = 38
	prGetTIDAddress     = 40
	prSetTimerSlack     = 29
	prGetTimerSlack     = 30
	prSetTHPDisable     = 41
	prGetTHPDisable     = 42
	prGetMDWE           = 66
	prSetMemoryMerge    = 67
	prGetMemoryMerge    = 68
	prCapAmbient        = 47
	prCapAmbientRaise   = 2
	prTimerRestoreIDs   = 77

	membarrierRegistrations = 1 << 9 // MEMBARRIER_CMD_GET_REGISTRATIONS

	epollAdd    = 1
	epollRemove = 2

	secbitNoSetuidFixup = 1 << 2
	seccompSetFilter    = 1
	capVersion3         = 0x20080522

	cloneNewTime     = 0x80
	cloneVM          = 0x100
	cloneFS          = 0x200
	cloneFiles       = 0x400
	cloneSighand     = 0x800
	clonePtrace      = 0x2000
	cloneParent      = 0x8000
	cloneThread      = 0x10000
	cloneSysvsem     = 0x40000
	cloneArgsBytes   = 88
	signalChild      = 17
	madvGuardInstall = 102
	madvDontFork     = 10
	madvWipeOnFork   = 18
	madvHugePage     = 14
	madvNoHugePage   = 15
	madvMergeable    = 12
	madvDontDump     = 16
	taskSize         = 0x7ffffffff000
)

const (
	sysMprotect      = 10
	sysRtSigprocmask = 14

	sigTrap         = 5
	sigKill         = 9
	sigIgnore       = 1 // SIG_IGN
	sigStop         = 19
	stackDisable    = 2 // SS_DISABLE
	stackOnStack    = 1 // SS_ONSTACK
	robustListBytes = 24
	lastCapability  = 40 // CAP_CHECKPOINT_RESTORE
)
