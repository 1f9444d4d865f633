// SPDX-License-Identifier: GPL-2.0
/*
 * Measures how long a process waits for its own address space while others read
 * its /proc/PID files, as the C and as the Rust code serve them. The process is
 * on CPU 1 and its readers are on CPU 0, so that it waits for locks, not for a
 * CPU.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define SWITCH		"/sys/module/task_mmu/parameters/rust"
#define PAGE		4096UL
#define FRAGMENTED	(128UL << 20)
#define HOT		(1UL << 30)
#define READERS		2
#define SAMPLES		(1 << 18)
#define SECOND		1000000000L
#define PAUSE		1000	/* us */

static const char * const files[] = { "smaps_rollup", "smaps", "maps", "numa_maps" };
#define HOT_FILES 2		/* the first ones */
#define NO_FILE ((char)-1)	/* the readers read a file of their own */

/* What the process and its readers share */
static struct shared {
	atomic_int stop;
	struct reader {
		atomic_int reading;
		atomic_long reads, ns;
	} readers[READERS];
} *shared;

static struct samples {
	long ns[SAMPLES];
	int count;
} op_samples;

static int commands[READERS][2];	/* pipes: which file to read */
static int answers[READERS][2];		/* pipes: done */
static long duration = SECOND;
static int rounds = 5;
static char *region;
static char *present;			/* fragmented: which pages are mapped */
static atomic_int writer_stop;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "writers-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("two CPUs are needed");
}

static void use_rust(int rust)
{
	int fd = open(SWITCH, O_WRONLY);

	if (fd < 0 || write(fd, rust ? "Y" : "N", 1) != 1)
		die(SWITCH);
	close(fd);
}

/* A reader: reads the file that it is told to until it is told to stop. */
static void be_reader(int n, pid_t pid)
{
	static char buf[128 << 10];
	struct reader *r = &shared->readers[n];
	char file, path[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(0);
	while (read(commands[n][0], &file, 1) == 1) {
		if (file == NO_FILE)
			snprintf(path, sizeof(path), "/proc/self/smaps_rollup");
		else
			snprintf(path, sizeof(path), "/proc/%d/%s", pid, files[(int)file]);
		r->reads = r->ns = 0;
		do {
			long begin = now();
			int fd = open(path, O_RDONLY);
			ssize_t got;

			if (fd < 0)
				die(path);
			r->reading = 1;
			while ((got = read(fd, buf, sizeof(buf))) > 0)
				;
			if (got)
				die(path);
			close(fd);
			r->ns += now() - begin;
			r->reads++;
		} while (!shared->stop);
		r->reading = 0;
		if (write(answers[n][1], "", 1) != 1)
			die("pipe");
	}
	exit(1);
}

static void make_readers(void)
{
	pid_t pid = getpid();

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	for (int n = 0; n < READERS; n++) {
		if (pipe(commands[n]) || pipe(answers[n]))
			die("pipe");
		switch (fork()) {
		case -1:
			die("fork");
		case 0:
			be_reader(n, pid);
		}
		/* so that reading tells when the reader is gone */
		close(answers[n][1]);
	}
}

static void start_readers(int count, char file)
{
	shared->stop = 0;
	for (int n = 0; n < count; n++) {
		if (write(commands[n][1], &file, 1) != 1)
			die("pipe");
	}
	for (int n = 0; n < count; n++) {
		while (!shared->readers[n].reading) {
			if (waitpid(-1, NULL, WNOHANG) > 0)
				exit(1);	/* the reader has said why */
			usleep(1000);
		}
	}
}

static void stop_readers(int count)
{
	char c;

	shared->stop = 1;
	for (int n = 0; n < count; n++) {
		if (read(answers[n][0], &c, 1) != 1)
			exit(1);		/* the reader has said why */
	}
}

static unsigned long random_below(unsigned long limit)
{
	static unsigned long state = 88172645463325252UL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % limit;
}

/* Takes @page away or brings it back; how long the call took */
static long toggle(unsigned long page)
{
	char *at = region + page * PAGE;
	long begin = now(), ns;

	if (present[page]) {
		if (munmap(at, PAGE))
			die("munmap");
	} else {
		if (mmap(at, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			die("mmap");
	}
	ns = now() - begin;
	present[page] ^= 1;
	if (present[page])
		*at = 1;
	return ns;
}

static long map_op(void)
{
	return toggle(random_below(FRAGMENTED / PAGE));
}

static long protect_op(void)
{
	static int writable = 1;
	long begin;

	writable = !writable;
	begin = now();
	if (mprotect(region + HOT / 2, PAGE, writable ? PROT_READ | PROT_WRITE : PROT_READ))
		die("mprotect");
	return now() - begin;
}

static long protect_pause_op(void)
{
	usleep(PAUSE);
	return protect_op();
}

static long fault_op(void)
{
	char *at;
	long begin;

	do
		at = region + random_below(HOT / PAGE) * PAGE;
	while (at == region + HOT / 2);		/* may be read-only */
	if (madvise(at, PAGE, MADV_DONTNEED))
		die("MADV_DONTNEED");
	begin = now();
	*(volatile char *)at = 1;
	return now() - begin;
}

static void *writer(void *unused)
{
	while (!writer_stop)
		protect_pause_op();
	return NULL;
}

static const struct op {
	const char *name;
	long (*run)(void);
	int writer;		/* another thread changes the address space */
} fragmented_op = {
	"mmap and munmap", map_op
}, hot_ops[] = {
	{ "mprotect", protect_op },
	{ "mprotect every 1 ms", protect_pause_op },
	{ "page fault", fault_op },
	{ "page fault beside mprotect", fault_op, .writer = 1 },
};

static int by_size(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static void take_samples(const struct op *op)
{
	long end = now() + duration;
	pthread_t thread;

	writer_stop = 0;
	if (op->writer && pthread_create(&thread, NULL, writer, NULL))
		die("pthread_create");
	op_samples.count = 0;
	do
		op_samples.ns[op_samples.count++] = op->run();
	while (op_samples.count < SAMPLES && now() < end);
	writer_stop = 1;
	if (op->writer)
		pthread_join(thread, NULL);
}

static long quantile(int per_mille)
{
	return op_samples.ns[(long)(op_samples.count - 1) * per_mille / 1000];
}

/* One line of what is measured; without @op of the readers alone. */
static void measure(const char *workload, const struct op *op, int readers, char file,
		    int rust, int round)
{
	long reads = 0, read_ns = 0, sum = 0;

	use_rust(rust);
	if (readers)
		start_readers(readers, file);
	if (op)
		take_samples(op);
	else
		usleep(duration / 1000);
	if (readers)
		stop_readers(readers);
	for (int n = 0; n < readers; n++) {
		reads += shared->readers[n].reads;
		read_ns += shared->readers[n].ns;
	}
	printf("%s,%s,%s,%d,%s,%d,", workload, op ? op->name : "",
	       file == NO_FILE ? "" : files[(int)file], readers,
	       file == NO_FILE ? "" : rust ? "Rust" : "C", round);
	if (op) {
		qsort(op_samples.ns, op_samples.count, sizeof(op_samples.ns[0]), by_size);
		for (int i = 0; i < op_samples.count; i++)
			sum += op_samples.ns[i];
		printf("%d,%ld,%ld,%ld,%ld,%ld,", op_samples.count, sum / op_samples.count,
		       quantile(500), quantile(990), quantile(999), quantile(1000));
	} else {
		printf(",,,,,,");
	}
	/* there is one, since a reader completes what it began */
	if (file == NO_FILE)
		printf(",\n");
	else
		printf("%ld,%ld\n", reads, read_ns / reads);
	fflush(stdout);
}

/*
 * One line without readers, one with readers of another process, which take
 * CPU time but no locks, and one for each of @count files and implementation
 */
static void measure_all(const char *workload, const struct op *op, int readers, int count,
			int round)
{
	if (op) {
		measure(workload, op, 0, NO_FILE, 0, round);
		measure(workload, op, readers, NO_FILE, 0, round);
	}
	for (int file = 0; file < count; file++) {
		for (int rust = 0; rust < 2; rust++)
			measure(workload, op, readers, file, rust, round);
	}
}

static void map_region(unsigned long bytes)
{
	region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED)
		die("mmap");
	/* 4 KiB pages: THP are off */
	for (unsigned long at = 0; at < bytes; at += PAGE)
		region[at] = 1;
}

static void fragmented(void)
{
	map_region(FRAGMENTED);
	present = malloc(FRAGMENTED / PAGE);
	memset(present, 1, FRAGMENTED / PAGE);
	/* as fragmented as it will stay: half of the pages are mapped */
	for (unsigned long page = 0; page < FRAGMENTED / PAGE; page++) {
		if (random_below(2))
			toggle(page);
	}
	for (int round = 1; round <= rounds; round++)
		measure_all("fragmented", &fragmented_op, READERS, ARRAY_SIZE(files), round);
	munmap(region, FRAGMENTED);
}

static void hot(void)
{
	map_region(HOT);
	for (int round = 1; round <= rounds; round++) {
		measure_all("hot", NULL, 1, HOT_FILES, round);
		for (size_t i = 0; i < ARRAY_SIZE(hot_ops); i++)
			measure_all("hot", &hot_ops[i], 1, HOT_FILES, round);
	}
	munmap(region, HOT);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "milliseconds", required_argument, NULL, 'm' },
		{ "workload", required_argument, NULL, 'w' },
		{}
	};
	const char *only = "";
	int opt;

	while ((opt = getopt_long(argc, argv, "hr:m:w:", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'm':
			duration = atol(optarg) * (SECOND / 1000);
			break;
		case 'w':
			only = optarg;
			break;
		case 'h':
			printf("usage: writers-bench [-r ROUNDS] [-m MILLISECONDS] [-w fragmented|hot]\n"
			       "Measures a process that changes its address space while its /proc/PID files\n"
			       "are read, C and Rust in turn; prints a line of CSV for each operation, file,\n"
			       "implementation and round (%d rounds, %ld ms each, both workloads).\n",
			       rounds, duration / (SECOND / 1000));
			return 0;
		default:
			return 2;
		}
	}
	if (rounds < 1 || duration < 1) {
		fprintf(stderr, "writers-bench: -r and -m take a number of at least 1\n");
		return 2;
	}
	if (*only && strcmp(only, "fragmented") && strcmp(only, "hot")) {
		fprintf(stderr, "writers-bench: -w takes fragmented or hot\n");
		return 2;
	}

	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		die("PR_SET_THP_DISABLE");
	make_readers();		/* now, while a fork has nothing to copy */
	pin(1);
	printf("workload,operation,file,readers,implementation,round,operations,mean_ns,p50_ns,"
	       "p99_ns,p999_ns,max_ns,reads,read_ns\n");
	fflush(stdout);
	if (strcmp(only, "hot"))
		fragmented();
	if (strcmp(only, "fragmented"))
		hot();
	return 0;
}
