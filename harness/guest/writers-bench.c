// SPDX-License-Identifier: GPL-2.0
/*
 * Measures how long a process waits for its own address space while others read
 * its /proc/PID files, as each implementation serves them. The process is on
 * CPU 1 and its readers are on CPU 0, so that it waits for locks, not for a CPU.
 * Where busy tasks are on CPU 0 as well, a reader can lose it at any moment.
 */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "writers.h"

#define FRAGMENTED	(128UL << 20)
#define LARGE		(1UL << 30)
#define MAX_READERS	4
#define BUSY_TASKS	2
#define CHILDREN	(MAX_READERS + BUSY_TASKS)
#define PAUSE		1000	/* us, of a thread beside page faults */

/* What else a child can be told to do */
enum { OWN_FILE = ARRAY_SIZE(files), BE_BUSY };

/* How readers get their CPU */
static const struct priority {
	const char *name;
	int policy, nice, busy;
} priorities[] = {
	{ "alone", SCHED_OTHER, 0 },
	{ "normal", SCHED_OTHER, 0, 1 },
	{ "nice 15", SCHED_OTHER, 15, 1 },
	{ "idle", SCHED_IDLE, 0, 1 },
};
enum { ALONE, NORMAL, NICE, IDLE };

/* What the process and its children share */
static struct shared {
	atomic_int stop;
	struct work {
		atomic_int begun;
		atomic_long reads, ns;
	} work[CHILDREN];
} *shared;

static struct child {
	pid_t pid;
	int command[2], answer[2];	/* pipes: what to do, and that it is done */
} children[CHILDREN];

static long duration = SECOND / 2;
static int rounds = 3;
static char *region;
static char *present;			/* fragmented: which pages are mapped */
static atomic_int writer_stop;

/*
 * Reads a file once. One that is starved of its CPU gives up when it is to stop,
 * unless @whole.
 */
static int read_once(const char *path, int whole)
{
	static char buf[128 << 10];
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (fd < 0)
		die(path);
	while ((got = read(fd, buf, sizeof(buf))) > 0) {
		if (shared->stop && !whole)
			break;
	}
	if (got < 0)
		die(path);
	close(fd);
	return got == 0;
}

/* A child: does what it is told to until it is told to stop. */
static void be_child(int n, pid_t process)
{
	struct work *work = &shared->work[n];
	char path[64], what;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(0);
	while (read(children[n].command[0], &what, 1) == 1) {
		if (what == BE_BUSY) {
			work->begun = 1;
			while (!shared->stop)
				;
		} else if (what == OWN_FILE) {
			snprintf(path, sizeof(path), "/proc/self/smaps_rollup");
		} else {
			snprintf(path, sizeof(path), "/proc/%d/%s", process, files[(int)what]);
		}
		while (what != BE_BUSY && (!shared->stop || !work->begun)) {
			long begin = now();

			work->begun = 1;
			if (read_once(path, work->reads == 0)) {
				work->ns += now() - begin;
				work->reads++;
			}
		}
		if (write(children[n].answer[1], "", 1) != 1)
			die("pipe");
	}
	exit(1);
}

static void make_children(void)
{
	pid_t process = getpid();

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		die("mmap");
	for (int n = 0; n < CHILDREN; n++) {
		struct child *child = &children[n];

		if (pipe(child->command) || pipe(child->answer))
			die("pipe");
		child->pid = fork();
		if (child->pid < 0)
			die("fork");
		if (!child->pid)
			be_child(n, process);
		/* so that reading tells when the child is gone */
		close(child->answer[1]);
	}
}

static void start_child(int n, char what)
{
	struct work *work = &shared->work[n];

	work->begun = work->reads = work->ns = 0;
	if (write(children[n].command[1], &what, 1) != 1)
		die("pipe");
	while (!work->begun) {
		if (waitpid(-1, NULL, WNOHANG) > 0)
			exit(1);		/* the child has said why */
		usleep(1000);
	}
}

static void stop_child(int n)
{
	char c;

	if (read(children[n].answer[0], &c, 1) != 1)
		exit(1);			/* the child has said why */
}

static void give_priority(int readers, const struct priority *priority)
{
	struct sched_param param = {};

	for (int n = 0; n < readers; n++) {
		if (sched_setscheduler(children[n].pid, priority->policy, &param) ||
		    setpriority(PRIO_PROCESS, children[n].pid, priority->nice))
			die("the priority of a reader");
	}
}

static void start(int readers, char file, const struct priority *priority)
{
	shared->stop = 0;
	for (int n = 0; n < readers; n++)
		start_child(n, file);
	give_priority(readers, priority);
	for (int n = MAX_READERS; priority->busy && n < CHILDREN; n++)
		start_child(n, BE_BUSY);
}

static void stop(int readers, const struct priority *priority)
{
	shared->stop = 1;
	give_priority(readers, &priorities[ALONE]);
	for (int n = 0; n < readers; n++)
		stop_child(n);
	for (int n = MAX_READERS; priority->busy && n < CHILDREN; n++)
		stop_child(n);
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

/* Takes the page at @at away and faults it in again; how long the fault took */
static long fault(char *at)
{
	long begin;

	if (madvise(at, PAGE, MADV_DONTNEED))
		die("MADV_DONTNEED");
	begin = now();
	*(volatile char *)at = 1;
	return now() - begin;
}

static long fragment_fault_op(void)
{
	unsigned long page;

	do
		page = random_below(FRAGMENTED / PAGE);
	while (!present[page]);
	return fault(region + page * PAGE);
}

static long protect(char *at)
{
	static int writable = 1;
	long begin;

	writable = !writable;
	begin = now();
	if (mprotect(at, PAGE, writable ? PROT_READ | PROT_WRITE : PROT_READ))
		die("mprotect");
	return now() - begin;
}

static long protect_op(void)
{
	return protect(region + LARGE / 2);
}

static long fault_op(void)
{
	char *at;

	do
		at = region + random_below(LARGE / PAGE) * PAGE;
	while (at == region + LARGE / 2);	/* may be read-only */
	return fault(at);
}

static long hot_op(void)
{
	return protect(region + PAGE);
}

static void *writer(void *unused)
{
	while (!writer_stop) {
		usleep(PAUSE);
		protect_op();
	}
	return NULL;
}

struct op {
	const char *name;
	long (*run)(void);
	int pause;		/* us, before each */
	int writer;		/* another thread changes the address space */
};

static void take_samples(const struct op *op)
{
	/* one that pauses takes few samples */
	long end = now() + (op->pause ? 3 * duration : duration);
	pthread_t thread;

	writer_stop = 0;
	if (op->writer && pthread_create(&thread, NULL, writer, NULL))
		die("pthread_create");
	op_samples.count = 0;
	do {
		if (op->pause)
			usleep(op->pause);
		op_samples.ns[op_samples.count++] = op->run();
	} while (op_samples.count < SAMPLES && now() < end);
	writer_stop = 1;
	if (op->writer)
		pthread_join(thread, NULL);
}

/*
 * How many samples there are in which class, as CLASS:COUNT. There are four
 * classes from one power of two to the next.
 */
static void print_classes(void)
{
	int last = -1, count = 0;

	for (int i = 0; i <= op_samples.count; i++) {
		unsigned long ns = i < op_samples.count ? op_samples.ns[i] | 4 : 0;
		int exponent = ns ? 63 - __builtin_clzl(ns) : 0;
		int class = ns ? exponent * 4 + (ns >> (exponent - 2) & 3) : -1;

		if (class != last && count)
			printf("%d:%d ", last, count);
		count = class == last ? count + 1 : 1;
		last = class;
	}
}

/* One line of what is measured; without @op of the readers alone. */
static void measure(const char *workload, const struct op *op, int readers, char file,
		    const struct priority *priority, enum implementation implementation, int round)
{
	long reads = 0, read_ns = 0;
	int own = file == OWN_FILE;

	use(implementation);
	start(readers, file, priority);
	if (op)
		take_samples(op);
	else
		usleep(duration / 1000);
	stop(readers, priority);
	for (int n = 0; n < readers; n++) {
		reads += shared->work[n].reads;
		read_ns += shared->work[n].ns;
	}
	printf("%s,%s,%s,%d,%s,%s,%d,", workload, op ? op->name : "", own ? "" : files[(int)file],
	       readers, priority->name, own ? "" : implementations[implementation], round);
	if (op) {
		sort_samples();
		printf("%d,%ld,%ld,%ld,%ld,%ld,", op_samples.count, mean(),
		       quantile(500), quantile(990), quantile(999), quantile(1000));
	} else {
		printf(",,,,,,");
	}
	/* there is one, since a reader completes the first that it began */
	if (own)
		printf(",,");
	else
		printf("%ld,%ld,", reads, read_ns / reads);
	if (op)
		print_classes();
	printf("\n");
	fflush(stdout);
}

/* One line for each file and implementation */
static void measure_files(const char *workload, const struct op *op, int readers,
			  const struct priority *priority, int round)
{
	for (size_t file = 0; file < ARRAY_SIZE(files); file++) {
		for (int i = 0; i < IMPLEMENTATIONS; i++) {
			if (has(files[file], i))
				measure(workload, op, readers, file, priority, i, round);
		}
	}
}

/*
 * The same without readers, and with readers of another process, which take CPU
 * time but no locks.
 */
static void measure_peace(const char *workload, const struct op *op, int readers, int round)
{
	measure(workload, op, 0, OWN_FILE, &priorities[ALONE], C, round);
	measure(workload, op, readers, OWN_FILE, &priorities[ALONE], C, round);
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

static void fragmented(const char *name)
{
	static const struct op map = { "mmap and munmap", map_op };
	static const struct op page_fault = { "page fault", fragment_fault_op };

	map_region(FRAGMENTED);
	present = malloc(FRAGMENTED / PAGE);
	if (!present)
		die("malloc");
	memset(present, 1, FRAGMENTED / PAGE);
	/* as fragmented as it will stay: half of the pages are mapped */
	for (unsigned long page = 0; page < FRAGMENTED / PAGE; page++) {
		if (random_below(2))
			toggle(page);
	}
	for (int round = 1; round <= rounds; round++) {
		measure_peace(name, &map, 2, round);
		for (int readers = 1; readers <= MAX_READERS; readers *= 2)
			measure_files(name, &map, readers, &priorities[ALONE], round);
		for (size_t i = NORMAL; i < ARRAY_SIZE(priorities); i++)
			measure_files(name, &map, 2, &priorities[i], round);
		measure_peace(name, &page_fault, 2, round);
		measure_files(name, &page_fault, 2, &priorities[ALONE], round);
	}
	free(present);
	munmap(region, FRAGMENTED);
}

static void large(const char *name)
{
	static const struct op ops[] = {
		{ "mprotect", protect_op },
		{ "mprotect every 100 us", protect_op, .pause = 100 },
		{ "mprotect every 1 ms", protect_op, .pause = 1000 },
		{ "page fault", fault_op },
		{ "page fault beside mprotect", fault_op, .writer = 1 },
	};

	map_region(LARGE);
	for (int round = 1; round <= rounds; round++) {
		measure_files(name, NULL, 1, &priorities[ALONE], round);
		for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
			measure_peace(name, &ops[i], 1, round);
			measure_files(name, &ops[i], 1, &priorities[ALONE], round);
		}
	}
	munmap(region, LARGE);
}

/* The middle one of three mappings of a page each */
static void hot(const char *name)
{
	static const struct op op = { "mprotect", hot_op };

	map_region(3 * PAGE);
	if (mprotect(region, PAGE, PROT_NONE) || mprotect(region + 2 * PAGE, PAGE, PROT_NONE))
		die("mprotect");
	for (int round = 1; round <= rounds; round++) {
		measure_peace(name, &op, 2, round);
		for (size_t i = 0; i < ARRAY_SIZE(priorities); i++) {
			/* what busy tasks and readers cost that take no lock of the process */
			if (priorities[i].busy)
				measure(name, &op, MAX_READERS, OWN_FILE, &priorities[i], C, round);
			for (int readers = 1; readers <= MAX_READERS; readers *= 2)
				measure_files(name, &op, readers, &priorities[i], round);
		}
	}
	munmap(region, 3 * PAGE);
}

static const struct workload {
	const char *name;
	void (*run)(const char *name);
} workloads[] = {
	{ "fragmented", fragmented },
	{ "large", large },
	{ "hot", hot },
};

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
	int opt, known = 0;

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
			printf("usage: writers-bench [-r ROUNDS] [-m MILLISECONDS] [-w fragmented|large|hot]\n"
			       "Measures a process that changes its address space while its /proc/PID files\n"
			       "are read, by each implementation in turn; prints a line of CSV for each\n"
			       "operation, number and priority of readers, file, implementation and round\n"
			       "(%d rounds, %ld ms each and three times that with pauses, all workloads).\n",
			       rounds, duration / (SECOND / 1000));
			return 0;
		default:
			return 2;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(workloads); i++)
		known |= !*only || !strcmp(only, workloads[i].name);
	if (rounds < 1 || duration < 1 || !known) {
		fprintf(stderr, "writers-bench: -r and -m take a number of at least 1, -w fragmented, large or hot\n");
		return 2;
	}

	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		die("PR_SET_THP_DISABLE");
	make_children();	/* now, while a fork has nothing to copy */
	pin(1);
	printf("workload,operation,file,readers,priority,implementation,round,operations,mean_ns,p50_ns,"
	       "p99_ns,p999_ns,max_ns,reads,read_ns,classes\n");
	fflush(stdout);
	for (size_t i = 0; i < ARRAY_SIZE(workloads); i++) {
		if (!*only || !strcmp(only, workloads[i].name))
			workloads[i].run(workloads[i].name);
	}
	return 0;
}
