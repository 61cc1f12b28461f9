// A program that is full of what looks like random state, exports the names by
// which runtimes are known, and whose RAND_poll never returns. It still answers
// after all that.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS (32 << 17)

uint64_t PyType_Type[64], PyModule_Type[64], _Py_HashSecret[4];
uint64_t *gHotSpotVMStructs, *gHotSpotVMTypes;
uint64_t gHotSpotVMStructEntryTypeNameOffset = 0, gHotSpotVMStructEntryFieldNameOffset = 8,
	gHotSpotVMStructEntryIsStaticOffset = 24, gHotSpotVMStructEntryOffsetOffset = 32,
	gHotSpotVMStructEntryAddressOffset = 40, gHotSpotVMStructEntryArrayStride = 48,
	gHotSpotVMTypeEntrySizeOffset = 40, gHotSpotVMTypeEntryArrayStride = 48, gHotSpotVMTypeEntryTypeNameOffset = 0;
__attribute__((aligned(16))) char info[64] = "\xff Go buildinf:\x08\x02";
volatile uint64_t one = 1;

void _ZN2v87Isolate10GetCurrentEv(void) {}
int RAND_get0_primary(void) { return 0; }
int RAND_poll(void) {
	while (one)
		pause();
	return 1;
}

// fields of the JVM that lead in circles.
static const char *names[][2] = {
	{"ClassLoaderDataGraph", "_head"}, {"Universe", "_collectedHeap"}, {"JVMFlag", "flags"},
	{"CompressedOops", "_base"}, {"CompressedKlassPointers", "_base"},
	{"ClassLoaderData", "_klasses"}, {"ClassLoaderData", "_next"}, {"Klass", "_next_link"}, {"Klass", "_super"},
	{"Klass", "_name"}, {"Symbol", "_length"}, {"Symbol", "_body[0]"}, {"CollectedHeap", "_reserved"},
	{"MemRegion", "_start"}, {"MemRegion", "_word_size"}, {"JVMFlag", "_name"}, {"JVMFlag", "_addr"},
};

static uint64_t *tables(uint64_t *loop) {
	int n = sizeof names / sizeof *names;
	uint64_t *t = calloc(6 * (n + 1), 8);
	for (int i = 0; i < n; i++) {
		t[6 * i] = (uint64_t)names[i][0];
		t[6 * i + 1] = (uint64_t)names[i][1];
		t[6 * i + 3] = i < 5;
		t[6 * i + 4] = 8 * (i % 3);
		t[6 * i + 5] = (uint64_t)&loop[i % 5];
	}
	return t;
}

static void pattern(uint64_t *p, int i) {
	uint64_t self = (uint64_t)p;
	uint64_t kinds[][8] = {
		{5 | 32ull << 32, 4}, {1, 335, 12345}, {3 | 31ull << 32, 3}, {0x5deece66d}, {(uint64_t)PyType_Type, 0, 0, 2520},
		{2048, 2048, 2048, 1, (uint64_t)RAND_poll, self - 8}, {0x7fffffffull << 32, self | 1, 0, self | 1, self | 1, 128ull << 32},
		{64ull << 32, 1, 2}, {16ull << 32, i, i}, {self, self, self, self},
	};
	memcpy(p, kinds[i % 10], sizeof kinds[0]);
}

int main(int argc, char **argv) {
	char line[100];
	PyType_Type[1] = (uint64_t)PyType_Type;
	PyType_Type[3] = (uint64_t) "_random.Random";
	PyType_Type[4] = 2520;
	PyType_Type[21] = 1 << 14;
	PyType_Type[32] = (uint64_t)PyType_Type;
	strcpy(info + 32, "\x08go1.99.9");
	uint64_t *fill = malloc(8 * WORDS);
	for (int i = 0; i + 8 <= WORDS; i += 8)
		pattern(fill + i, i / 8);
	uint64_t loop[8];
	for (int i = 0; i < 8; i++)
		loop[i] = (uint64_t)loop;
	gHotSpotVMStructs = gHotSpotVMTypes = tables(loop);
	char *method = strdup("CTR-DRBG");
	unsigned long sum = 0;
	for (int i = 0; i < WORDS; i++)
		sum = 31 * sum + fill[i];
	FILE *in = fopen(argv[1], "r+");
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, in)) {
		unsigned long now = 0;
		for (int i = 0; i < WORDS; i++)
			now = 31 * now + fill[i];
		puts(now == sum && !strcmp(method, "CTR-DRBG") ? "same=1" : "same=0");
	}
}
