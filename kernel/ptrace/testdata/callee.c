// A program that is stopped and made to call its own functions. It prints
// where they are, then "." whenever it is told to by a byte on its input, and
// ends with 1 if anything of its own changed meanwhile.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static __thread long calls = 40;
static volatile int usr1;

static long sum(long a, long b, long c, long d, long e, long f) {
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e + 100000 * f;
}

// local uses thread-local storage, floating point, the allocator and the kernel.
static long local(void) {
	double x = calls++;
	free(malloc(100000));
	for (int i = 0; i < 10; i++)
		x += getppid() > 0 ? 0.1 : 0;
	return (long)(x + 1.5);
}

static long forever(void) {
	for (;;)
		pause();
}

static long crash(void) { return *(volatile long *)8; }

static long finish(void) { exit(3); }

static void *idle(void *arg) { return (void *)forever(); }

static void note(int n) { usr1++; }

int main(void) {
	signal(SIGTRAP, SIG_IGN);
	signal(SIGUSR1, note);
	pthread_t t;
	pthread_create(&t, NULL, idle, NULL);
	printf("%lx %lx %lx %lx %lx\n", (long)sum, (long)local, (long)forever, (long)crash, (long)finish);
	fflush(stdout);
	char c;
	for (;;) {
		if (read(0, &c, 1) != 1)
			return 2;
		struct sigaction a;
		sigaction(SIGTRAP, NULL, &a);
		if (a.sa_handler != SIG_IGN)
			return 1;
		printf("%ld %d\n", calls, usr1);
		fflush(stdout);
	}
}
