// A program that uses the generators of the C library and prints their next
// outputs whenever a line comes.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

int main(int argc, char **argv) {
	char line[100];
	srandom(time(NULL));
	srand48(time(NULL));
	for (int i = 0; i < 1000; i++) {
		rand();
		drand48();
	}
	unsigned *wiped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (madvise(wiped, 8192, MADV_WIPEONFORK))
		return 1;
	wiped[1000] = 7;
	unsigned long *start = (unsigned long *)getauxval(AT_RANDOM);
	FILE *in = fopen(argv[1], "r+");
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, in)) {
		unsigned long fresh;
		getrandom(&fresh, sizeof fresh, 0);
		printf("rand=%d random=%ld drand48=%.17g lrand48=%ld start=%lx,%lx wiped=%u freshkernel=%lx\n", rand(), random(),
			drand48(), lrand48(), start[0], start[1], wiped[1000], fresh);
	}
}
