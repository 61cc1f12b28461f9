// Programs for the tests of the checkpoint engine. The first argument names
// one: it sets something up, prints "ready", and at each line that it reads
// says "ok", or what is wrong. breadth_test.go puts it to sleep in between.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
static int failures, restored; // restored: from a ready checkpoint, perhaps
#define CHECK(x) do { if (!(x)) { failures++; printf("line %d: %s (errno %d)\n", __LINE__, #x, errno); } } while (0)
#define MUST(x) do { if (!(x)) { printf("line %d: can not set up: %s: %s\n", __LINE__, #x, strerror(errno)); exit(1); } } while (0)

// pause_for_test says how it went so far and waits to be told to go on.
static void pause_for_test(const char *word) {
	char line[64];
	printf("%s\n", failures ? "failed" : word);
	fflush(stdout);
	if (!fgets(line, sizeof line, stdin)) exit(0);
}
#define READY() pause_for_test("ready")
#define OK() pause_for_test("ok")

static void msleep(int ms) { poll(NULL, 0, ms); }
static long gettid_(void) { return syscall(SYS_gettid); }

static int all(const volatile uint8_t *p, size_t n, int v) {
	for (size_t i = 0; i < n; i++) if (p[i] != v) return 0;
	return 1;
}

static void *map(size_t n, int prot) {
	void *p = mmap(NULL, n, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(p != MAP_FAILED);
	return p;
}

// ---- signals and timers

static volatile int count[80];
static volatile int values[80];
static volatile uintptr_t handler_stack;
static void counting(int n, siginfo_t *info, void *context) {
	int here;
	count[n]++;
	values[n] = info->si_value.sival_int;
	handler_stack = (uintptr_t)&here;
}
static void handle(int n, int flags) {
	struct sigaction a = {.sa_sigaction = counting, .sa_flags = SA_SIGINFO | flags};
	sigaddset(&a.sa_mask, SIGUSR2);
	MUST(!sigaction(n, &a, NULL));
}

static void timers(void) {
	handle(SIGRTMIN, SA_RESTART);
	handle(SIGALRM, SA_RESTART);
	timer_t unused, periodic, once, mine;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 42};
	MUST(!timer_create(CLOCK_MONOTONIC, &event, &unused));
	MUST(!timer_create(CLOCK_MONOTONIC, &event, &periodic));
	MUST(!timer_create(CLOCK_REALTIME, &event, &once));
	event.sigev_notify = SIGEV_THREAD_ID;
	event.sigev_value.sival_int = 43;
	event._sigev_un._tid = gettid_();
	MUST(!timer_create(CLOCK_MONOTONIC, &event, &mine));
	MUST(!timer_delete(unused)); // ids have a hole
	struct itimerspec spec = {{0, 20000000}, {0, 20000000}};
	MUST(!timer_settime(periodic, 0, &spec, NULL));
	struct itimerspec later = {{0, 0}, {1000, 0}};
	MUST(!timer_settime(once, 0, &later, NULL));
	struct itimerval every = {{0, 20000}, {0, 20000}}, profile = {{7, 0}, {5, 0}};
	MUST(!setitimer(ITIMER_REAL, &every, NULL));
	MUST(!setitimer(ITIMER_VIRTUAL, &profile, NULL));
	READY();
	for (;;) {
		int before = count[SIGRTMIN], alarms = count[SIGALRM];
		for (int i = 0; i < 200 && (count[SIGRTMIN] < before + 3 || count[SIGALRM] < alarms + 3); i++) msleep(10);
		CHECK(count[SIGRTMIN] >= before + 3);
		CHECK(count[SIGALRM] >= alarms + 3);
		CHECK(values[SIGRTMIN] == 42);
		CHECK(!timer_gettime(once, &later) && later.it_value.tv_sec > 900 && later.it_value.tv_sec <= 1000);
		CHECK(!timer_gettime(periodic, &spec) && spec.it_interval.tv_nsec == 20000000);
		CHECK(!timer_gettime(mine, &spec) && spec.it_value.tv_sec == 0 && spec.it_value.tv_nsec == 0);
		CHECK(timer_gettime(unused, &spec) < 0);
		CHECK(!getitimer(ITIMER_VIRTUAL, &profile) && profile.it_interval.tv_sec == 7 && profile.it_value.tv_sec >= 4);
		OK();
	}
}

static void pending(void) {
	sigset_t set;
	sigemptyset(&set);
	for (int n = SIGRTMIN; n < SIGRTMIN + 3; n++) sigaddset(&set, n);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int first = 1;; first = 0) {
		kill(getpid(), SIGUSR1);
		for (int i = 0; i < 50; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 100 + i});
		pthread_sigqueue(pthread_self(), SIGRTMIN + 1, (union sigval){.sival_int = 7});
		if (first) READY(); else OK();
		struct timespec now = {0, 0};
		siginfo_t info;
		sigset_t one;
		sigemptyset(&one), sigaddset(&one, SIGUSR1);
		CHECK(sigtimedwait(&one, &info, &now) == SIGUSR1 && info.si_code == SI_USER && info.si_pid == getpid());
		sigemptyset(&one), sigaddset(&one, SIGRTMIN);
		for (int i = 0; i < 50; i++)
			CHECK(sigtimedwait(&one, &info, &now) == SIGRTMIN && info.si_code == SI_QUEUE && info.si_value.sival_int == 100 + i);
		CHECK(sigtimedwait(&one, &info, &now) < 0);
		sigemptyset(&one), sigaddset(&one, SIGRTMIN + 1);
		CHECK(sigtimedwait(&one, &info, &now) == SIGRTMIN + 1 && info.si_value.sival_int == 7);
	}
}

static void handlers(void) {
	stack_t stack = {.ss_sp = map(64 << 10, PROT_READ | PROT_WRITE), .ss_size = 64 << 10};
	MUST(!sigaltstack(&stack, NULL));
	handle(SIGTRAP, SA_ONSTACK); // the engine's own breakpoints must not touch it
	handle(SIGUSR1, SA_ONSTACK | SA_RESTART);
	signal(SIGURG, SIG_IGN);
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		struct sigaction a;
		stack_t now;
		count[SIGTRAP] = count[SIGUSR1] = 0;
		raise(SIGTRAP), raise(SIGUSR1), raise(SIGURG);
		CHECK(count[SIGTRAP] == 1 && count[SIGUSR1] == 1);
		CHECK((char *)handler_stack > (char *)stack.ss_sp && (char *)handler_stack < (char *)stack.ss_sp + stack.ss_size);
		CHECK(!sigaltstack(NULL, &now) && now.ss_sp == stack.ss_sp && now.ss_size == stack.ss_size && now.ss_flags == 0);
		CHECK(!sigaction(SIGUSR1, NULL, &a) && a.sa_sigaction == counting && a.sa_flags & SA_RESTART && sigismember(&a.sa_mask, SIGUSR2));
		CHECK(!sigaction(SIGURG, NULL, &a) && a.sa_handler == SIG_IGN);
	}
}

static void ignored_trap(void) {
	signal(SIGTRAP, SIG_IGN);
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		struct sigaction a;
		CHECK(!sigaction(SIGTRAP, NULL, &a) && a.sa_handler == SIG_IGN);
		raise(SIGTRAP);
	}
}

static void blocked_trap(void) {
	handle(SIGTRAP, 0);
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGTRAP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		struct sigaction a;
		CHECK(!sigaction(SIGTRAP, NULL, &a) && a.sa_sigaction == counting);
		CHECK(!sigprocmask(SIG_BLOCK, NULL, &set) && sigismember(&set, SIGTRAP));
	}
}

// ---- descriptors

static int has_data(int fd, int ms) { struct pollfd p = {fd, POLLIN, 0}; return poll(&p, 1, ms) == 1 && p.revents & POLLIN; }

static void descriptors(void) {
	char path[] = "breadth-XXXXXX", gone[] = "breadth-XXXXXX", buffer[256];
	handle(SIGIO, SA_RESTART);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec spec = {{0, 30000000}, {0, 30000000}};
	timerfd_settime(timer, 0, &spec, NULL);
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGRTMIN + 5);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int signals = signalfd(-1, &set, SFD_NONBLOCK), event = eventfd(5, 0), pipes[2], pair[2], epoll = epoll_create1(0);
	MUST(!pipe(pipes) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	MUST(fcntl(pair[0], F_SETOWN, getpid()) == 0);
	MUST(fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
	struct epoll_event watch = {EPOLLIN, {.u64 = 0x1122334455667788}};
	epoll_ctl(epoll, EPOLL_CTL_ADD, signals, &watch);
	watch.data.u64 = 99, watch.events = EPOLLIN | EPOLLET;
	epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &watch);
	int notify = inotify_init1(IN_NONBLOCK);
	int memory = memfd_create("memory", 0), temporary = mkstemp(gone), file = mkstemp(path), locked = open(path, O_RDWR);
	MUST(inotify_add_watch(notify, path, IN_ATTRIB) > 0);
	MUST(write(memory, "in memory", 9) == 9 && write(temporary, "deleted", 7) == 7 && write(file, "0123456789", 10) == 10);
	unlink(gone);
	lseek(temporary, 3, SEEK_SET), lseek(file, 4, SEEK_SET);
	int append = open(path, O_RDWR | O_APPEND | O_NONBLOCK), twin = dup(file), high = fcntl(file, F_DUPFD_CLOEXEC, 700);
	MUST(!flock(locked, LOCK_EX));
	MUST(!ftruncate(memory, PAGE));
	char *shown = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	MUST(write(pair[1], "xyz", 3) == 3);
	fcntl(pipes[1], F_SETPIPE_SZ, 1 << 20);
	for (int first = 1;; first = 0) {
		memset(buffer, 'p', sizeof buffer);
		MUST(write(pipes[1], buffer, 200) == 200);
		sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 31});
		if (first) READY(); else OK();
		uint64_t ticks = 0;
		CHECK(has_data(timer, 1000) && read(timer, &ticks, 8) == 8 && ticks >= 1);
		CHECK(has_data(timer, 1000) && read(timer, &ticks, 8) == 8);
		struct signalfd_siginfo info;
		struct epoll_event got[4];
		int n = epoll_wait(epoll, got, 4, 1000), seen = 0;
		for (int i = 0; i < n; i++) seen |= got[i].data.u64 == 99 ? 1 : got[i].data.u64 == 0x1122334455667788 ? 2 : 0;
		CHECK(seen & 2);
		CHECK(read(signals, &info, sizeof info) == sizeof info && info.ssi_int == 31);
		CHECK(read(signals, &info, sizeof info) < 0);
		sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 32}); // a new one wakes the set
		n = epoll_wait(epoll, got, 4, 1000), seen = 0;
		for (int i = 0; i < n; i++) seen |= got[i].data.u64 == 0x1122334455667788 ? 2 : 0;
		CHECK(seen == 2 && read(signals, &info, sizeof info) == sizeof info && info.ssi_int == 32);
		CHECK(!epoll_ctl(epoll, EPOLL_CTL_MOD, signals, &(struct epoll_event){EPOLLIN, {.u64 = 0x1122334455667788}}));
		uint64_t five = 0;
		CHECK(read(event, &five, 8) == 8 && five == 5 && write(event, &five, 8) == 8);
		CHECK(read(pipes[0], buffer, sizeof buffer) == 200 && all((uint8_t *)buffer, 200, 'p'));
		CHECK(fcntl(pipes[0], F_GETPIPE_SZ) == 1 << 20);
		CHECK(read(pair[0], buffer, 8) == 3 && !memcmp(buffer, "xyz", 3));
		count[SIGIO] = 0;
		CHECK(write(pair[1], "xyz", 3) == 3);
		msleep(5);
		CHECK(count[SIGIO] > 0 && fcntl(pair[0], F_GETOWN) == getpid());
		fchmod(file, 0600);
		CHECK(has_data(notify, 1000) && read(notify, buffer, sizeof buffer) > 0);
		CHECK(!memcmp(shown, "in memory", 9) && pread(memory, buffer, 9, 0) == 9 && !memcmp(buffer, shown, 9));
		shown[100]++;
		CHECK(pread(memory, buffer, 1, 100) == 1 && buffer[0] == shown[100]);
		CHECK(lseek(temporary, 0, SEEK_CUR) == 3 && read(temporary, buffer, 9) == 4 && !memcmp(buffer, "eted", 4));
		lseek(temporary, 3, SEEK_SET);
		CHECK(lseek(file, 0, SEEK_CUR) == 4 && lseek(twin, 0, SEEK_CUR) == 4 && lseek(high, 0, SEEK_CUR) == 4);
		lseek(twin, 5, SEEK_SET);
		CHECK(lseek(file, 0, SEEK_CUR) == 5 && lseek(high, 4, SEEK_SET) == 4);
		CHECK(fcntl(high, F_GETFD) == FD_CLOEXEC && fcntl(twin, F_GETFD) == 0 && fcntl(timer, F_GETFD) == FD_CLOEXEC);
		CHECK((fcntl(append, F_GETFL) & (O_APPEND | O_NONBLOCK)) == (O_APPEND | O_NONBLOCK));
		struct stat st;
		fstat(file, &st);
		CHECK(pwrite(append, "+", 1, 0) == 1 && lseek(append, 0, SEEK_END) == st.st_size + 1);
		int other = open(path, O_RDWR);
		CHECK(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
		close(other);
	}
}

static void watch(int set, int fd, uint32_t events, uint64_t data) {
	MUST(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &(struct epoll_event){events, {.u64 = data}}));
}

// seen is which of the registrations with data 1 to 31 have an event.
static uint32_t seen(int set) {
	struct epoll_event got[32];
	uint32_t bits = 0;
	int n = epoll_wait(set, got, 32, 20);
	for (int i = 0; i < n; i++) bits |= 1u << got[i].data.u64;
	return bits;
}

static int not_watched(int set, int fd) { return epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) < 0 && errno == ENOENT; }

// registrations whose files are not under the numbers they were registered by.
static void registrations(void) {
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGRTMIN + 5), sigprocmask(SIG_BLOCK, &set, NULL);
	int epoll = epoll_create1(EPOLL_CLOEXEC), one = eventfd(0, EFD_NONBLOCK), two = eventfd(0, EFD_NONBLOCK), three = eventfd(0, EFD_NONBLOCK), ends[2];
	int closed = fcntl(one, F_DUPFD, 50), reused = fcntl(two, F_DUPFD, 60), last = fcntl(one, F_DUPFD, 300), signals = signalfd(-1, &set, SFD_NONBLOCK);
	int moved = fcntl(signals, F_DUPFD, 70), next = eventfd(0, EFD_NONBLOCK), fresh, go[2];
	watch(epoll, closed, EPOLLIN, 1), close(closed);
	watch(epoll, last, EPOLLIN, 2), close(last); // above all others
	watch(epoll, reused, EPOLLIN, 3);
	MUST(dup3(three, reused, O_CLOEXEC) == reused);
	watch(epoll, reused, EPOLLIN, 4); // two files by one number
	watch(epoll, moved, EPOLLIN, 5), close(moved);
	watch(epoll, next, EPOLLIN, 6);
	fresh = dup(next), close(next); // the lowest number that is free
	MUST(!pipe(go) && !pipe(ends) && go[0] == next);
	if (!fork()) { // registers what the parent does not have
		int mine = eventfd(1, 0);
		char c;
		watch(epoll, mine, EPOLLIN, 7);
		MUST(write(ends[1], "x", 1) == 1);
		for (;; pause()) read(go[0], &c, 0);
	}
	char c;
	MUST(read(ends[0], &c, 1) == 1);
	uint64_t n = 1;
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		CHECK(seen(epoll) == 1 << 7);
		CHECK(write(one, &n, 8) == 8 && seen(epoll) == (1 << 1 | 1 << 2 | 1 << 7) && read(one, &n, 8) == 8);
		CHECK(write(two, &n, 8) == 8 && seen(epoll) == (1 << 3 | 1 << 7) && read(two, &n, 8) == 8);
		CHECK(write(three, &n, 8) == 8 && seen(epoll) == (1 << 4 | 1 << 7) && read(three, &n, 8) == 8);
		CHECK(write(fresh, &n, 8) == 8 && seen(epoll) == (1 << 6 | 1 << 7) && read(fresh, &n, 8) == 8);
		struct signalfd_siginfo info;
		sigqueue(getpid(), SIGRTMIN + 5, (union sigval){.sival_int = 31});
		CHECK(seen(epoll) == (1 << 5 | 1 << 7) && read(signals, &info, sizeof info) == sizeof info && info.ssi_int == 31);
		CHECK(fcntl(closed, F_GETFD) < 0 && fcntl(last, F_GETFD) < 0 && fcntl(moved, F_GETFD) < 0 && fcntl(reused, F_GETFD) == FD_CLOEXEC);
		CHECK(not_watched(epoll, one) && not_watched(epoll, two) && not_watched(epoll, three) && not_watched(epoll, fresh) && not_watched(epoll, signals));
		CHECK(dup2(one, closed) == closed && !epoll_ctl(epoll, EPOLL_CTL_DEL, closed, NULL)); // by its number it is
		watch(epoll, closed, EPOLLIN, 1), close(closed);
	}
}

// once has registrations for one event that have had it.
static void once(void) {
	int epoll = epoll_create1(0), event = eventfd(3, EFD_NONBLOCK), pair[2], armed = eventfd(0, EFD_NONBLOCK);
	MUST(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	watch(epoll, event, EPOLLIN | EPOLLONESHOT, 1);
	watch(epoll, pair[0], EPOLLOUT | EPOLLET | EPOLLONESHOT, 2);
	MUST(seen(epoll) == (1 << 1 | 1 << 2));
	watch(epoll, armed, EPOLLIN | EPOLLONESHOT, 3);
	uint64_t n = 1;
	for (int round = 1;; round++) {
		if (round == 1) READY(); else OK();
		CHECK(seen(epoll) == 0);
		if (round == 1) shutdown(pair[1], SHUT_RDWR); // hangs up
		CHECK(seen(epoll) == 0 && write(armed, &n, 8) == 8 && seen(epoll) == 1 << 3 && seen(epoll) == 0 && read(armed, &n, 8) == 8);
		CHECK(!epoll_ctl(epoll, EPOLL_CTL_MOD, event, &(struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 4}}));
		CHECK(seen(epoll) == 1 << 4 && seen(epoll) == 0);
		CHECK(!epoll_ctl(epoll, EPOLL_CTL_MOD, event, &(struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 1}}) && seen(epoll) == 1 << 1);
		CHECK(!epoll_ctl(epoll, EPOLL_CTL_MOD, armed, &(struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u64 = 3}}));
	}
}

// spent has one on a pipe that has no event now.
static void spent(void) {
	int epoll = epoll_create1(0), ends[2];
	char c;
	MUST(!pipe(ends) && write(ends[1], "x", 1) == 1);
	watch(epoll, ends[0], EPOLLIN | EPOLLONESHOT, 1);
	MUST(seen(epoll) == 1 << 1 && read(ends[0], &c, 1) == 1);
	for (READY();; OK()) CHECK(seen(epoll) == 0 && write(ends[1], "x", 1) == 1 && seen(epoll) == 0 && read(ends[0], &c, 1) == 1);
}

// ---- memory

static void shared(void) {
	struct area { pthread_mutex_t mutex; volatile long n[4]; } *area = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&area->mutex, &attributes);
	area->n[3] = 77;
	pid_t child = fork();
	if (!child) {
		pthread_mutex_lock(&area->mutex); // held while it sleeps
		for (area->n[0] = 1;; msleep(1)) area->n[0]++, area->n[2] = area->n[1];
	}
	while (!area->n[0]) msleep(1);
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		long before = area->n[0];
		area->n[1]++;
		for (int i = 0; i < 2000 && (area->n[0] < before + 5 || area->n[2] != area->n[1]); i++) msleep(1);
		CHECK(area->n[0] >= before + 5 && area->n[2] == area->n[1] && area->n[3] == 77);
		CHECK(pthread_mutex_trylock(&area->mutex) == EBUSY);
		CHECK(waitpid(child, NULL, WNOHANG) == 0);
	}
}

static sigjmp_buf jump;
static void faulting(int n) { siglongjmp(jump, 1); }
static int faults(volatile char *p) {
	signal(SIGSEGV, faulting);
	int r = sigsetjmp(jump, 1);
	if (!r) *p;
	signal(SIGSEGV, SIG_DFL);
	return r;
}

static void mappings(void) {
	char path[] = "breadth-XXXXXX";
	int file = mkstemp(path);
	MUST(!ftruncate(file, 64 * PAGE));
	for (int i = 0; i < 64; i++) MUST(pwrite(file, &i, 1, i * PAGE) == 1);
	uint8_t *private = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	uint8_t *untouched = mmap(NULL, 64 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
	private[5 * PAGE] = 200, private[63 * PAGE + 9] = 201;
	uint8_t *none = map(16 * PAGE, PROT_READ | PROT_WRITE);
	memset(none, 0x5a, 16 * PAGE);
	MUST(!mprotect(none, 16 * PAGE, PROT_NONE));
	uint8_t *guarded = map(16 * PAGE, PROT_READ | PROT_WRITE);
	memset(guarded, 0x5b, 16 * PAGE);
	int has_guards = !madvise(guarded + 4 * PAGE, 2 * PAGE, 102); // MADV_GUARD_INSTALL, Linux 6.13
	uint8_t *hidden = map(4 * PAGE, PROT_READ | PROT_WRITE), *wiped = map(4 * PAGE, PROT_READ | PROT_WRITE);
	memset(hidden, 0x5c, 4 * PAGE), memset(wiped, 0x5d, 4 * PAGE);
	MUST(!madvise(hidden, 4 * PAGE, MADV_DONTFORK) && !madvise(wiped, 4 * PAGE, MADV_WIPEONFORK));
	uint8_t *zero = map(64 * PAGE, PROT_READ | PROT_WRITE), *code = map(PAGE, PROT_READ | PROT_WRITE);
	all(zero, 64 * PAGE, 0); // maps the zero page
	zero[9 * PAGE] = 1;
	memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6); // mov $42, %eax; ret
	MUST(!mprotect(code, PAGE, PROT_READ | PROT_EXEC));
	uint8_t *locked = map(8 * PAGE, PROT_READ | PROT_WRITE);
	MUST(!mlock(locked, 8 * PAGE));
	uint8_t *huge = map(8 << 20, PROT_READ | PROT_WRITE);
	madvise(huge, 8 << 20, MADV_HUGEPAGE);
	memset(huge, 0x5e, 8 << 20);
	uint8_t *reserve = mmap(NULL, 1L << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	MUST(reserve != MAP_FAILED);
	reserve[1L << 39] = 0x5f;
	for (int round = 1;; round++) {
		if (round == 1) READY(); else OK();
		for (int i = 0; i < 64; i++) CHECK(private[i * PAGE] == (i == 5 ? 200 : i) && untouched[i * PAGE] == i);
		CHECK(private[63 * PAGE + 9] == 201);
		private[7 * PAGE + round] = round;
		for (int i = 1; i < round; i++) CHECK(private[7 * PAGE + i] == i);
		CHECK(faults((char *)none));
		CHECK(!mprotect(none, 16 * PAGE, PROT_READ | PROT_WRITE) && all(none, 16 * PAGE, 0x5a));
		CHECK(!mprotect(none, 16 * PAGE, PROT_NONE));
		CHECK(faults((char *)none));
		CHECK(all(guarded, 4 * PAGE, 0x5b) && all(guarded + 6 * PAGE, 10 * PAGE, 0x5b));
		CHECK(!has_guards || (faults((char *)guarded + 4 * PAGE) && faults((char *)guarded + 6 * PAGE - 1)));
		// Restored from a ready checkpoint it is as after a fork.
		CHECK(all(hidden, 4 * PAGE, 0x5c) && (all(wiped, 4 * PAGE, 0x5d) || (restored && all(wiped, 4 * PAGE, 0))));
		pid_t child = fork();
		if (!child) _exit((faults((char *)hidden) ? 0 : 1) | (all(wiped, 4 * PAGE, 0) ? 0 : 2) | (private[5 * PAGE] == 200 ? 0 : 4));
		int status = -1;
		CHECK(waitpid(child, &status, 0) == child);
		CHECK(status == 0);
		CHECK(all(zero, 9 * PAGE, 0) && zero[9 * PAGE] == 1 && all(zero + 10 * PAGE, 54 * PAGE, 0));
		CHECK(((int (*)(void))code)() == 42);
		CHECK(all(locked, 8 * PAGE, 0) && all(huge, 8 << 20, 0x5e));
		CHECK(reserve[1L << 39] == 0x5f && reserve[5] == 0);
		CHECK(!munmap(huge + (1 << 20), 1 << 20) && mmap(huge + (1 << 20), 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == huge + (1 << 20));
		CHECK(all(huge + (1 << 20), 1 << 20, 0));
		memset(huge + (1 << 20), 0x5e, 1 << 20);
	}
}

static int __attribute__((noinline)) deep(int n) {
	volatile char frame[16 << 10];
	memset((void *)frame, n & 0x7f, sizeof frame);
	int r = n ? deep(n - 1) : 0;
	return r + !all((volatile uint8_t *)frame, sizeof frame, n & 0x7f);
}

static void growth(void) {
	uint8_t *heap = sbrk(64 * PAGE);
	memset(heap, 1, 64 * PAGE);
	size_t n = 256 * PAGE;
	// A mapping of its own: what the kernel merges with a neighbour grows into
	// the neighbour's place in the image, which then shows.
	uint8_t *grown = (uint8_t *)map(n + 2 * PAGE, PROT_NONE) + PAGE, *neighbour = map(PAGE, PROT_READ);
	MUST(!mprotect(grown, n, PROT_READ | PROT_WRITE));
	memset(grown, 2, n);
	uint8_t *low = mmap((void *)0x300000000000, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
	MUST(low != MAP_FAILED);
	memset(low, 3, 4 * PAGE);
	size_t below = 0, heaped = 64 * PAGE;
	for (int round = 1;; round++) {
		if (round == 1) READY(); else OK();
		CHECK(all(heap, heaped, 1) && all(grown, n, 2) && all(low - below, 4 * PAGE + below, 3) && all(neighbour, PAGE, 0));
		uint8_t *more = sbrk(32 * PAGE);
		CHECK(more == heap + heaped && all(more, 32 * PAGE, 0)); // brk went on where it was
		memset(more, 1, 32 * PAGE);
		sbrk(-16 * PAGE);
		CHECK(sbrk(16 * PAGE) == more + 16 * PAGE && all(more + 16 * PAGE, 16 * PAGE, 0));
		memset(more + 16 * PAGE, 1, 16 * PAGE);
		heaped += 32 * PAGE;
		uint8_t *moved = mremap(grown, n, n + 512 * PAGE, MREMAP_MAYMOVE);
		CHECK(moved != MAP_FAILED);
		if (moved == MAP_FAILED) continue;
		CHECK(all(moved, n, 2) && all(moved + n, 512 * PAGE, 0)); // nothing but zeros is new
		grown = moved, n += 512 * PAGE;
		CHECK(mremap(grown, n, n - 128 * PAGE, 0) == grown); // what grows again here shows its place in the image
		n -= 128 * PAGE;
		memset(grown, 2, n);
		below += 8 * PAGE; // the mapping grows at the fault below it
		for (size_t i = PAGE; i <= 8 * PAGE; i += PAGE) memset(low - below + 8 * PAGE - i, 3, PAGE);
		CHECK(deep(300 + 50 * round) == 0);
	}
}

// ---- calls during which the process sleeps

static int pipes[2], listener, pair[2], epoll, words, queue, semaphores, lockpath;
static pid_t waited;
static struct blocked { const char *name; long result; int error; volatile int done; pthread_t thread; } blocked[20];
static int word = 1;
static void *block(void *arg) {
	struct blocked *b = arg;
	char c[64];
	struct timespec sleep = {0, 300000000}, until;
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1);
	struct sembuf down = {0, -1, 0};
	struct { long type; char text[8]; } message;
	struct pollfd p = {pipes[0], POLLIN, 0};
	struct epoll_event event;
	fd_set fds;
	FD_ZERO(&fds);
	FD_SET(pipes[0], &fds);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 1;
	errno = 0;
#define CASE(text, call) if (!strcmp(b->name, text)) b->result = (call)
	CASE("nanosleep", nanosleep(&sleep, NULL));
	CASE("clock_nanosleep", -clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	CASE("poll", poll(&p, 1, -1) - 1);
	CASE("poll timeout", poll(&p, 1, 60000) - 1);
	CASE("select", select(pipes[0] + 1, &fds, NULL, NULL, NULL) - 1);
	CASE("epoll_wait", epoll_wait(epoll, &event, 1, -1) - 1);
	CASE("epoll_wait timeout", epoll_wait(epoll, &event, 1, 60000) - 1);
	CASE("futex", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, NULL));
	CASE("futex timeout", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &(struct timespec){60, 0}));
	CASE("read", read(words, c, 1) - 1);
	CASE("recv timeout", recv(pair[0], c, 1, MSG_PEEK) - 1);
	CASE("accept", accept(listener, NULL, NULL) > 0 ? 0 : -1);
	CASE("sigwaitinfo", sigwaitinfo(&set, NULL) - SIGUSR1);
	CASE("semop", semop(semaphores, &down, 1));
	CASE("semtimedop", semtimedop(semaphores, &down, 1, &(struct timespec){60, 0}));
	CASE("msgrcv", msgrcv(queue, &message, 8, 0, 0) - 4);
	CASE("wait4", wait4(waited, NULL, 0, NULL) - waited);
	CASE("flock", flock(lockpath, LOCK_EX));
	b->error = errno;
	b->done = 1;
	return NULL;
}

static void calls(void) {
	static const char *names[] = {"nanosleep", "clock_nanosleep", "poll", "poll timeout", "select", "epoll_wait", "epoll_wait timeout", "futex", "futex timeout",
		"read", "recv timeout", "accept", "sigwaitinfo", "semop", "semtimedop", "msgrcv", "wait4", "flock"};
	enum { n = sizeof names / sizeof *names };
	char path[] = "breadth-XXXXXX", out[2];
	int one[2], hold[2], locked = mkstemp(path);
	lockpath = open(path, O_RDWR);
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof address;
	MUST(!pipe(pipes) && !pipe(one) && !pipe(hold) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair) && !flock(locked, LOCK_EX));
	words = one[0];
	MUST(!setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){60, 0}, sizeof(struct timeval)));
	listener = socket(AF_INET, SOCK_STREAM, 0);
	MUST(!bind(listener, (void *)&address, sizeof address) && !listen(listener, 5) && !getsockname(listener, (void *)&address, &size));
	epoll = epoll_create1(0);
	epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &(struct epoll_event){EPOLLIN});
	semaphores = semget(IPC_PRIVATE, 1, 0600), queue = msgget(IPC_PRIVATE, 0600);
	if (!(waited = fork())) { close(hold[1]); _exit(read(hold[0], out, 1)); }
	close(hold[0]);
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1), sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < n; i++) {
		blocked[i].name = names[i];
		MUST(!pthread_create(&blocked[i].thread, NULL, block, &blocked[i]));
	}
	msleep(50);
	READY();
	for (int told = 0; told < 2; told++) { // slept twice
		for (int i = 2; i < n; i++) if (blocked[i].done) {
			CHECK(!"ended early");
			printf("%s: %ld, errno %d\n", names[i], blocked[i].result, blocked[i].error);
		}
		if (!told) OK();
	}
	MUST(write(pipes[1], "x", 1) == 1 && write(one[1], "x", 1) == 1 && write(pair[1], "x", 1) == 1);
	word = 2;
	syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 10);
	int client = socket(AF_INET, SOCK_STREAM, 0);
	MUST(!connect(client, (void *)&address, sizeof address));
	kill(getpid(), SIGUSR1);
	MUST(!semop(semaphores, &(struct sembuf){0, 2, 0}, 1) && !msgsnd(queue, &(struct { long t; char m[4]; }){1, "abc"}, 4, 0));
	close(hold[1]);
	flock(locked, LOCK_UN);
	for (int i = 0; i < n; i++) {
		for (int ms = 0; ms < 3000 && !blocked[i].done; ms++) msleep(1);
		if (!blocked[i].done || blocked[i].result) {
			CHECK(!"went wrong");
			printf("%s: done %d, %ld, errno %d\n", names[i], blocked[i].done, blocked[i].result, blocked[i].error);
		}
	}
	semctl(semaphores, 0, IPC_RMID), msgctl(queue, IPC_RMID, NULL);
	for (;;) OK();
}

// ---- processes and threads

static void forks(void) {
	enum { size = 4 << 20 };
	uint8_t *p = map(size, PROT_READ | PROT_WRITE);
	memset(p, 1, size);
	int to[2], from[2];
	MUST(!pipe(to) && !pipe(from));
	READY();
	if (!fork()) { // after a wake: parent and child map the same pages of the image
		uint8_t c;
		memset(p, 2, size / 2);
		while (read(to[0], &c, 1) == 1) {
			uint8_t good = all(p, size / 2, c) && all(p + size / 2, size / 2, 1);
			memset(p, c + 1, size / 2);
			MUST(write(from[1], &good, 1) == 1);
		}
		_exit(0);
	}
	memset(p + size / 4, 9, size / 2);
	for (uint8_t round = 2;; round++) {
		uint8_t good = 0;
		CHECK(write(to[1], &round, 1) == 1 && read(from[0], &good, 1) == 1 && good);
		CHECK(all(p, size / 4, 1) && all(p + size / 4, size / 2, round == 2 ? 9 : round + 98) && all(p + size * 3 / 4, size / 4, 1));
		memset(p + size / 4, round + 99, size / 2);
		OK();
	}
}

static volatile long counters[40];
static __thread long mine;
static pthread_barrier_t barrier;
static volatile int tids[40];
static void *counter(void *arg) {
	long i = (long)arg;
	char name[16], now[16];
	snprintf(name, sizeof name, "counter %ld", i);
	pthread_setname_np(pthread_self(), name);
	tids[i] = gettid_();
	double x = i;
	pthread_barrier_wait(&barrier);
	for (;; msleep(1)) {
		x = x * 1.5 - x / 2; // stays what it is, in a floating-point register
		prctl(PR_GET_NAME, now);
		if (strcmp(name, now) || x != i || ++mine != counters[i] + 1 || tids[i] != gettid_()) counters[i] = -1000000;
		counters[i]++;
	}
	return NULL;
}

static void threads(void) {
	pthread_barrier_init(&barrier, NULL, 41);
	pthread_t t[40];
	for (long i = 0; i < 40; i++) MUST(!pthread_create(&t[i], NULL, counter, (void *)i));
	pthread_barrier_wait(&barrier);
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		for (int i = 0; i < 40; i++) {
			long before = counters[i];
			for (int ms = 0; ms < 2000 && counters[i] < before + 3; ms++) msleep(1);
			CHECK(before >= 0 && counters[i] >= before + 3);
		}
		pthread_t extra; // a thread made after the wake
		CHECK(!pthread_create(&extra, NULL, (void *(*)(void *))getpid, NULL) && !pthread_join(extra, NULL));
	}
}

static void install_filter(void) {
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 1), // which the engine uses
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	MUST(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	code[1].k = SYS_getpgrp, code[2].k = SECCOMP_RET_ERRNO | 78;
	MUST(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static int io_priority(int n) { return syscall(SYS_ioprio_set, 1, 0, n); }

static void *idle(void *arg) {
	if (arg) { // one thread has rights of its own
		MUST(!setpriority(PRIO_PROCESS, 0, 9));
		MUST(!sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &(struct sched_param){0}));
		MUST(!io_priority(3 << 13)); // IOPRIO_CLASS_IDLE
		struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
		struct __user_cap_data_struct caps[2] = {{1 << CAP_KILL, 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE, 0}};
		MUST(!syscall(SYS_capset, &header, caps));
	}
	pthread_barrier_wait(&barrier);
	for (;;) pause();
}

// rights changes everything that the kernel remembers of a process's rights;
// the test compares /proc before and after.
static void rights(void) {
	MUST(!setpgid(0, 0) || getpid() == getsid(0));
	umask(027);
	int filter = open("/proc/self/coredump_filter", O_WRONLY);
	MUST(write(filter, "0x7c", 4) == 4 && !close(filter) && !io_priority(2 << 13 | 6)); // IOPRIO_CLASS_BE
	MUST(!chdir("/usr") && !setpriority(PRIO_PROCESS, 0, 5));
	MUST(!setrlimit(RLIMIT_NOFILE, &(struct rlimit){200, 300}) && !setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
	MUST(!setrlimit(RLIMIT_NPROC, &(struct rlimit){100, 100}) && !setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){65536, 65536}));
	MUST(!prctl(PR_SET_TIMERSLACK, 123456) && !prctl(PR_SET_CHILD_SUBREAPER, 1));
	pthread_t t;
	pthread_barrier_init(&barrier, NULL, 3);
	for (int n = 0; n < 40; n++) if (n != CAP_NET_BIND_SERVICE && n != CAP_KILL && n != CAP_SETPCAP) MUST(!prctl(PR_CAPBSET_DROP, n));
	gid_t groups[] = {5, 77, 4000000000};
	MUST(!syscall(SYS_setgroups, 3, groups) && !prctl(PR_SET_KEEPCAPS, 1));
	MUST(!setresgid(1, 2, 3) && !setresuid(11, 12, 13));
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct caps[2] = {{1 << CAP_NET_BIND_SERVICE, 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE, 1 << CAP_NET_BIND_SERVICE}};
	MUST(!syscall(SYS_capset, &header, caps) && !prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0));
	MUST(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	install_filter();
	prctl(PR_SET_NAME, "rights (x) y");
	for (long i = 0; i < 2; i++) MUST(!pthread_create(&t, NULL, idle, (void *)i));
	pthread_barrier_wait(&barrier);
	int child = fork();
	if (!child) for (setpgid(0, 0), prctl(PR_SET_PDEATHSIG, SIGUSR2);;) pause();
	int grandchild = fork();
	if (!grandchild) for (setsid();;) pause();
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		errno = 0;
		CHECK(syscall(SYS_getppid) < 0 && errno == 77);
		CHECK(syscall(SYS_getpgrp) < 0 && errno == 78);
		uid_t r, e, s;
		CHECK(!getresuid(&r, &e, &s) && r == 11 && e == 12 && s == 13);
		int signal = 0;
		CHECK(!prctl(PR_GET_PDEATHSIG, &signal) && signal == 0);
		CHECK(open("/etc/shadow", O_RDONLY) < 0 && errno == EACCES);
		CHECK(prctl(PR_GET_DUMPABLE) == 0);
		CHECK(prctl(PR_GET_TIMERSLACK) == 123456 && prctl(PR_GET_KEEPCAPS) == 1);
		CHECK(prctl(PR_GET_CHILD_SUBREAPER, &signal) == 0 && signal == 1);
		CHECK(waitpid(-1, NULL, WNOHANG) == 0);
	}
}

static void on_cpu(int n) {
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(n, &set);
	MUST(!sched_setaffinity(0, sizeof set, &set));
}

static void *elsewhere(void *arg) { // on another CPU
	on_cpu((long)arg);
	return idle(NULL);
}

// places are where a process and its children are: root and directory, sessions,
// groups, CPUs, the barriers that it takes part in, and merging of memory.
static void places(void) {
	cpu_set_t usable, now;
	int cpus[2], n = 0;
	MUST(!sched_getaffinity(0, sizeof usable, &usable));
	for (int i = 0; n < 2 && i < CPU_SETSIZE; i++) if (CPU_ISSET(i, &usable)) cpus[n++] = i;
	struct stat root, cwd, st;
	MUST(!stat("/usr", &root) && !stat("/usr/lib", &cwd) && !chdir("/usr/lib") && !chroot("/usr"));
	on_cpu(cpus[0]);
	MUST(!syscall(SYS_membarrier, 1 << 4, 0, 0)); // for private expedited ones
	int merges = !prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0); // not without KSM
	pthread_t t;
	pthread_barrier_init(&barrier, NULL, 2);
	MUST(!pthread_create(&t, NULL, elsewhere, (void *)(long)cpus[n - 1]));
	pthread_barrier_wait(&barrier);
	int tell[2];
	MUST(!pipe(tell));
	pid_t group = fork(), member, session, grandchild;
	if (!group) for (setpgid(0, 0);;) pause();
	setpgid(group, group);
	if (!(member = fork())) for (setpgid(0, group);;) pause(); // of the group of a sibling
	setpgid(member, group);
	if (!(session = fork())) {
		setsid();
		if (!(grandchild = fork())) for (;;) pause();
		setpgid(grandchild, grandchild);
		MUST(write(tell[1], &grandchild, sizeof grandchild) == sizeof grandchild);
		for (;;) pause();
	}
	MUST(read(tell[0], &grandchild, sizeof grandchild) == sizeof grandchild);
	for (READY();; OK()) {
		CHECK(!stat("/", &st) && st.st_ino == root.st_ino && st.st_dev == root.st_dev && !stat(".", &st) && st.st_ino == cwd.st_ino);
		CHECK(!stat("..", &st) && st.st_ino == root.st_ino && stat("/usr/lib", &st) < 0);
		CHECK(!sched_getaffinity(0, sizeof now, &now) && CPU_COUNT(&now) == 1 && CPU_ISSET(cpus[0], &now));
		CHECK(!syscall(SYS_membarrier, 1 << 3, 0, 0) && syscall(SYS_membarrier, 1 << 5, 0, 0) < 0 && errno == EPERM);
		CHECK(!merges || prctl(68, 0, 0, 0, 0) == 1);
		CHECK(getpgid(group) == group && getpgid(member) == group && getsid(member) == getsid(0) && getsid(group) == getsid(0));
		CHECK(getsid(session) == session && getpgid(session) == session && getsid(grandchild) == session && getpgid(grandchild) == grandchild);
		CHECK(waitpid(-1, NULL, WNOHANG) == 0);
	}
}

static void gone_directory(void) {
	char dir[] = "breadth-XXXXXX", now[256];
	MUST(mkdtemp(dir) && !chdir(dir) && !rmdir(getcwd(now, sizeof now)));
	for (READY();; OK()) CHECK(!getcwd(now, sizeof now) && errno == ENOENT);
}

// sysv uses segments that outlive it.
static void sysv(void) {
	int id = shmget(IPC_PRIVATE, 1 << 16, 0600);
	uint8_t *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
	MUST(a != (void *)-1 && b != (void *)-1);
	for (int round = 1;; round++) {
		memset(a, round, 1 << 16);
		if (round == 1) READY(); else OK();
		struct shmid_ds ds;
		CHECK(all(b, 1 << 16, round) && !shmctl(id, IPC_STAT, &ds) && ds.shm_nattch == 2);
	}
}

// varied has some of everything and opens no files to write.
static void varied(void) {
	srand(77), rand();
	handle(SIGRTMIN, SA_RESTART);
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	MUST(!timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_settime(timer, 0, &(struct itimerspec){{1000, 0}, {1000, 0}}, NULL));
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGRTMIN + 1), sigprocmask(SIG_BLOCK, &set, NULL);
	sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 5});
	int ends[2], pair[2], epoll = epoll_create1(0), count = eventfd(5, 0), memory = memfd_create("memory", 0), signals = signalfd(-1, &set, 0);
	MUST(!pipe(ends) && !socketpair(AF_UNIX, SOCK_STREAM, 0, pair) && write(ends[1], "abc", 3) == 3 && write(pair[1], "def", 3) == 3);
	MUST(write(memory, "ghi", 3) == 3 && signals >= 0 && open("/dev/null", O_RDWR) >= 0 && timerfd_create(CLOCK_MONOTONIC, 0) >= 0);
	MUST(!epoll_ctl(epoll, EPOLL_CTL_ADD, count, &(struct epoll_event){EPOLLIN}) && !epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &(struct epoll_event){EPOLLIN}));
	pthread_t t;
	pthread_barrier_init(&barrier, NULL, 3);
	for (long i = 0; i < 2; i++) MUST(!pthread_create(&t, NULL, idle, (void *)i));
	pthread_barrier_wait(&barrier);
	if (!fork()) for (setpgid(0, 0);;) pause();
	for (READY();;) {
		char c[4];
		CHECK(read(ends[0], c, 4) == 3 && write(ends[1], c, 3) == 3 && read(pair[0], c, 4) == 3 && write(pair[1], c, 3) == 3);
		CHECK(pread(memory, c, 4, 0) == 3);
		OK();
	}
}

// ---- what is refused

static void plain(void) { for (READY();;) OK(); }
static void zombie(void) {
	pid_t child = fork();
	if (!child) _exit(3);
	msleep(20);
	READY();
	int status;
	CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 3);
	for (;;) OK();
}
static void stopped(void) {
	pid_t child = fork();
	if (!child) for (;;) raise(SIGSTOP);
	int status;
	MUST(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
	READY();
	msleep(20);
	CHECK(waitpid(child, &status, WUNTRACED | WNOHANG) == 0); // still stopped, and not stopped anew
	kill(child, SIGCONT);
	CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)); // stopped itself again: it ran
	kill(child, SIGKILL);
	CHECK(waitpid(child, &status, 0) == child);
	for (;;) OK();
}
static void vforked(void) {
	int hold[2];
	MUST(!pipe(hold));
	static volatile pid_t child;
	if (!fork()) {
		close(hold[1]);
		if (!(child = vfork())) { char c; read(hold[0], &c, 1); _exit(5); }
		int status;
		_exit(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 5 ? 6 : 7);
	}
	msleep(30);
	READY();
	int status;
	close(hold[1]);
	CHECK(wait(&status) > 0 && WEXITSTATUS(status) == 6);
	for (;;) OK();
}
static void uring(void) { char p[120] = {0}; MUST(syscall(425, 4, p) >= 0); plain(); }
static void userfault(void) { MUST(syscall(SYS_userfaultfd, 1) >= 0); plain(); }
static void pidfd(void) { MUST(syscall(434, getpid(), 0) >= 0); plain(); }
// memfd_sealed makes a memory file of a page with content.
static int memfd_sealed(int seals) {
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING);
	MUST(fd >= 0 && !ftruncate(fd, PAGE) && pwrite(fd, "sealed", 6, 0) == 6);
	if (seals) MUST(!fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}
#define FUTURE_WRITE 0x10 // F_SEAL_FUTURE_WRITE

// sealed has memory files with seals that can be made again.
static void sealed(void) {
	int future = memfd_sealed(F_SEAL_SHRINK | FUTURE_WRITE), all = memfd_sealed(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	char *shown = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, future, 0), *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, future, 0);
	MUST(shown != MAP_FAILED && copy != MAP_FAILED);
	copy[9] = 'x';
	for (int first = 1;; first = 0) {
		if (first) READY(); else OK();
		char b[6];
		CHECK(!memcmp(shown, "sealed", 7) && !memcmp(copy, "sealed\0\0\0x", 10) && pread(all, b, 6, 0) == 6 && !memcmp(b, "sealed", 6));
		CHECK(fcntl(future, F_GET_SEALS) == (F_SEAL_SHRINK | FUTURE_WRITE) && fcntl(all, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL));
		CHECK(pwrite(future, "x", 1, 0) < 0 && errno == EPERM && pwrite(all, "x", 1, 0) < 0 && errno == EPERM);
		CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0) == MAP_FAILED && errno == EPERM);
		CHECK(mprotect(shown, PAGE, PROT_READ | PROT_WRITE) < 0 && ftruncate(future, 0) < 0 && !ftruncate(future, PAGE * 2) && !ftruncate(future, PAGE * 2));
	}
}

// sealed_mapped writes to a file that nobody else can map to write.
static void sealed_mapped(void) {
	int fd = memfd_sealed(0);
	volatile char *shown = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(shown != MAP_FAILED && !fcntl(fd, F_ADD_SEALS, FUTURE_WRITE));
	for (READY();; OK()) {
		char c;
		shown[3]++;
		CHECK(pread(fd, &c, 1, 3) == 1 && c == shown[3]);
	}
}

// no_gain may not make memory executable any more, as the engine has to.
static void no_gain(void) {
	signal(SIGTRAP, SIG_IGN);
	MUST(!prctl(65 /* PR_SET_MDWE */, 1, 0, 0, 0));
	for (READY();; OK()) {
		struct sigaction a;
		CHECK(prctl(66, 0, 0, 0, 0) == 1 && !sigaction(SIGTRAP, NULL, &a) && a.sa_handler == SIG_IGN);
	}
}

// dispatched gets its own calls as signals when it sets the selector.
static volatile char selector;
static void allowing(int n) { selector = 0, count[n]++; }
static void dispatched(void) {
	signal(SIGSYS, allowing);
	MUST(!prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector));
	for (READY();; OK()) {
		int before = count[SIGSYS];
		selector = 1;
		syscall(SYS_getppid);
		CHECK(count[SIGSYS] == before + 1);
	}
}

// lock_future locks all that it maps from now on.
static int lock_flags = MCL_FUTURE;
static void lock_future(void) {
	uint8_t *before = map(4 * PAGE, PROT_READ | PROT_WRITE);
	MUST(!mlockall(lock_flags));
	for (READY();; OK()) {
		unsigned char in[4] = {0};
		uint8_t *after = map(4 * PAGE, PROT_READ | PROT_WRITE);
		int now = lock_flags == MCL_FUTURE;
		CHECK(!mincore(after, 4 * PAGE, in) && (in[0] & 1) == now && (in[3] & 1) == now); // populated, unless on fault
		errno = 0;
		CHECK(madvise(after, PAGE, MADV_DONTNEED) < 0 && errno == EINVAL); // locked
		CHECK(!munmap(after, 4 * PAGE) && all(before, 4 * PAGE, 0));
	}
}
static void lock_on_fault(void) { lock_flags = MCL_FUTURE | 4 /* MCL_ONFAULT */; lock_future(); }

static void record_lock(void) {
	char path[] = "breadth-XXXXXX";
	int fd = mkstemp(path);
	struct flock lock = {F_WRLCK, SEEK_SET, 0, 10};
	MUST(!fcntl(fd, F_SETLK, &lock));
	READY();
	if (!fork()) {
		lock.l_type = F_WRLCK;
		_exit(!fcntl(fd, F_GETLK, &lock) && lock.l_type != F_UNLCK ? 0 : 1);
	}
	int status;
	CHECK(wait(&status) > 0 && status == 0);
	for (;;) OK();
}
static void namespaced(void) { if (!fork()) { MUST(!unshare(CLONE_NEWNET)); for (;;) pause(); } msleep(50); plain(); }
static void destroyed(void) { int id = shmget(IPC_PRIVATE, PAGE, 0600); MUST(shmat(id, NULL, 0) != (void *)-1); shmctl(id, IPC_RMID, NULL); plain(); }
static void *unshared(void *arg) { MUST(!unshare(CLONE_FILES)); pthread_barrier_wait(&barrier); for (;;) pause(); }
static void own_files(void) { pthread_t t; pthread_barrier_init(&barrier, NULL, 2); pthread_create(&t, NULL, unshared, NULL); pthread_barrier_wait(&barrier); plain(); }
static void strict(void) {
	int hold[2];
	char c;
	MUST(!pipe(hold));
	if (!fork()) for (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);;) read(hold[0], &c, 1);
	msleep(20);
	plain();
}

int main(int argc, char **argv) {
	static const struct { const char *name; void (*run)(void); } programs[] = {
		{"timers", timers}, {"pending", pending}, {"handlers", handlers}, {"ignored trap", ignored_trap}, {"blocked trap", blocked_trap},
		{"descriptors", descriptors}, {"shared", shared}, {"mappings", mappings}, {"growth", growth}, {"calls", calls}, {"forks", forks},
		{"threads", threads}, {"rights", rights}, {"sysv", sysv}, {"varied", varied}, {"places", places}, {"gone directory", gone_directory}, {"sealed", sealed}, {"sealed mapped", sealed_mapped}, {"no gain", no_gain}, {"dispatched", dispatched},
		{"lock future", lock_future}, {"lock on fault", lock_on_fault}, {"registrations", registrations}, {"once", once}, {"spent", spent}, {"zombie", zombie}, {"stopped", stopped}, {"vforked", vforked}, {"uring", uring},
		{"userfault", userfault}, {"pidfd", pidfd}, {"record lock", record_lock}, {"namespaced", namespaced}, {"destroyed", destroyed},
		{"own files", own_files}, {"strict", strict},
	};
	setvbuf(stdout, NULL, _IONBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	restored = argc > 2;
	free(malloc(1000)); // no brk of its own later
	for (size_t i = 0; i < sizeof programs / sizeof *programs; i++)
		if (argc > 1 && !strcmp(argv[1], programs[i].name)) programs[i].run();
	return 2;
}
