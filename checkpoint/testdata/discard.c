// Allocates, dirties and frees on several threads, and at each line that it
// reads counts the bytes of fresh calloc memory that are not zero: an allocator
// that gives memory back by MADV_DONTNEED takes it for zeros afterwards.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, BLOCKS = 24, ROUNDS = 2 };
static const size_t sizes[] = {60 << 10, 200 << 10, 1 << 20, 2 << 20, 500, 8 << 10};
enum { SIZES = sizeof sizes / sizeof *sizes };
static uint8_t *held[THREADS][BLOCKS];
static long probes, dirty;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t go, done;

static size_t size_of(int i) { return sizes[i % SIZES]; }

static void *worker(void *arg) {
	long t = (long)arg;
	for (int round = 0;; round++) {
		for (int r = 0; r < ROUNDS; r++) {
			long bad = 0;
			for (int i = 0; i < BLOCKS; i++) {
				free(held[t][i]);
				uint8_t *p = held[t][i] = calloc(1, size_of(i + r));
				for (size_t n = 0; n < size_of(i + r); n++) bad += p[n] != 0;
				memset(p, 0xa5, size_of(i + r));
			}
			for (int i = 0; i < BLOCKS; i += 2) { free(held[t][i]); held[t][i] = NULL; }
			for (int i = 0; i < BLOCKS; i += 2) memset(held[t][i] = malloc(size_of(i * 3)), 0xa5, size_of(i * 3));
			pthread_mutex_lock(&mutex);
			probes += BLOCKS, dirty += bad;
			pthread_mutex_unlock(&mutex);
		}
		pthread_barrier_wait(&done);
		pthread_barrier_wait(&go);
	}
	return NULL;
}

int main(void) {
	char line[64];
	pthread_t thread;
	setvbuf(stdout, NULL, _IONBF, 0);
	setvbuf(stdin, NULL, _IONBF, 0);
	pthread_barrier_init(&go, NULL, THREADS + 1), pthread_barrier_init(&done, NULL, THREADS + 1);
	for (long t = 0; t < THREADS; t++) pthread_create(&thread, NULL, worker, (void *)t);
	pthread_barrier_wait(&done);
	for (printf(dirty ? "failed\n" : "ready\n"); fgets(line, sizeof line, stdin);) {
		probes = dirty = 0;
		pthread_barrier_wait(&go);
		pthread_barrier_wait(&done);
		printf("%ld callocs, %ld dirty bytes\n", probes, dirty);
		printf(dirty ? "dirty\n" : "ok\n");
	}
	return 0;
}
