// Package unique finds the random state that a program keeps in its own memory
// and renews it in a restored process before that runs.
//
// A checkpoint that is restored more than once makes processes that would all
// draw the same "random" numbers, session ids and keys. The kernel's generator
// (getrandom, /dev/urandom) is not affected; what programs keep themselves is.
//
// Nouns: a Spec is what was found in one process, plain data that is stored
// with the checkpoint; a Place is a run of memory that Renew overwrites; a Call
// is a chain of calls of the program's own functions, where memory alone does
// not do; Shared names what stays the same in all restores, for people to read.
//
// Find looks at a stopped process and changes nothing; Renew changes a stopped,
// restored one. Different processes may be handled concurrently. Renew must run
// on the thread that traces the process. After an error of Renew the process
// must not run.
//
// # What counts as found
//
// Whatever is overwritten must be what it is taken for, or the program breaks.
// So nothing is found by its looks alone. A state counts if
//
//   - recomputing proves it: the output buffer of Go's ChaCha8 is what its seed
//     and counter give; 64 numbers of V8 lead, step by step, to the state of
//     its xorshift128+; a state of Go's math/rand.NewSource leads back to a
//     seed; V8's generator follows from the seed beside it; or
//   - the runtime's own structures lead to it: Python's classes and the links of
//     its garbage collector, the JVM's tables for debuggers and the references
//     of an object, the variables of a module of node in their order, the
//     pointers in glibc's data.
//
// What was freed and partly used again fails these tests; look-alikes of that
// kind exist in every Go program that makes many sources.
//
// # What is renewed
//
//   - AT_RANDOM, and memory that a fork would clear (MADV_WIPEONFORK), which is
//     how BoringSSL, AWS-LC, libbsd and others notice a copy. The state of
//     getrandom in the vdso is not restored at all (MAP_DROPPABLE).
//   - OpenSSL 1.1.1 and 3, as a library or exported by the executable as in
//     node: RAND_poll seeds the primary generator, and those of all threads
//     reseed when they see that. Version 3 makes its generators at the first
//     use: where there are none yet nothing is called.
//   - Python 3.9 to 3.13: objects of random.Random and its subclasses, which is
//     the module random, tempfile, and seeded ones too; numpy's generators.
//   - Go 1.22 or later: the runtime's generators of all threads, so math/rand,
//     math/rand/v2, seeds of new maps and hash/maphash; rand.NewSource;
//     rand.NewChaCha8.
//   - Node 18 to 24: Math.random in all contexts and workers, crypto, the bytes
//     that crypto.randomUUID and crypto.randomInt have fetched ahead.
//   - HotSpot 17 to 25 with G1, Serial and Parallel: Random, Math.random,
//     ThreadLocalRandom, SplittableRandom, SecureRandom of the kinds DRBG,
//     SHA1PRNG and NativePRNG.
//   - glibc: random, rand, drand48.
//
// Generators that a program seeded with a constant are renewed as well: they
// can not be told from the others.
//
// # What is not
//
// Named in Shared where it is met: seeds of string and map hashes (Python, V8,
// Go), which are in every table of the living process; Go before 1.22; a JVM
// with ZGC, Shenandoah, compact headers or more than 32 GB; other libraries and
// languages of the list in library.go.
//
// Not noticed, so not named:
//
//   - stack canaries, pointer guards and addresses (ASLR): the frames and
//     pointers of the process were made with them;
//   - what a program made of randomness before: keys, session ids, tickets, and
//     bytes that libraries fetch ahead, such as the pools of the npm packages
//     uuid, nanoid and ws;
//   - generators of 16 bytes that nothing proves (rand.NewPCG of Go, xoshiro of
//     java.util.random), std::mt19937, random_r and drand48_r, musl's random;
//   - OpenSSL that is linked into an executable and not exported; Go in a
//     library;
//   - Python classes with a metaclass, and the second of a pair of numbers that
//     random.gauss and numpy's RandomState.normal keep;
//   - up to 7 bytes that rand.ChaCha8.Read of Go has left over.
//
// A process that was itself restored is searched only where it wrote since;
// Shared says so. Threads should wait in system calls: a generator that was
// stopped in the middle of a step does not pass the tests.
//
// # Calls
//
// A call runs code of the program while all else is stopped: on a stack of its
// own, with signals blocked, for at most CallLimit. A lock that another thread
// holds ends it there. It may change the thread's errno.
//
// # Trust
//
// The program wrote all that is read. Addresses that lead nowhere prove
// nothing, loops and look-alikes are bounded (an abusive program makes its own
// checkpoint take some seconds), and a place is always in memory that only the
// process itself writes.
package unique
