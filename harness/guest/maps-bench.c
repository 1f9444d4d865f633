// SPDX-License-Identifier: GPL-2.0
/*
 * Measures reading of /proc/PID/maps, smaps, smaps_rollup and numa_maps, as each
 * implementation serves them, on processes with different mappings. Meant for a
 * guest whose clock counts instructions: what it prints as instructions are
 * nanoseconds.
 */
#include <getopt.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bench.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#define SPOT	0x100000000UL
#define ROUND	50000000L	/* at least so long, so that the clock's ticks even out */
#define STOCK	900	/* descriptors that use up the slab caches' stock */
#define TRACED	2000	/* mappings */
#define HOLDERS	64	/* descriptors whose memory is measured together */

static char buf[128 << 10];

static void make_anonymous(int count)
{
	char *at = mmap((void *)SPOT, count * PAGE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	for (int i = 1; i < count; i += 2) {
		if (mprotect(at + i * PAGE, PAGE, PROT_READ))
			die("mprotect");
	}
}

static void make_populated(int count)
{
	char *at = mmap((void *)SPOT, count * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	for (int i = 0; i < count; i++) {
		at[i * PAGE] = 1;
		if (i % 2 && mprotect(at + i * PAGE, PAGE, PROT_READ))
			die("mprotect");
	}
}

/* A kernel without CONFIG_ANON_VMA_NAME has no names of memory. */
static int has_names(void)
{
	void *at = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int has = at != MAP_FAILED && !prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, PAGE, "a");

	munmap(at, PAGE);
	return has;
}

static void make_named(int count)
{
	char name[16];

	make_anonymous(count);
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "pool %d", i % 10);
		if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, SPOT + i * PAGE, PAGE, name))
			die("PR_SET_VMA_ANON_NAME");
	}
}

/* Files in the folder @dir, each mapped @run times in a row */
static void map_files(int count, int files, int run, const char *dir)
{
	int *fds = calloc(files, sizeof(*fds));
	char path[512];

	for (const char *end = strchr(dir + 1, '/'); end; end = strchr(end + 1, '/')) {
		snprintf(path, sizeof(path), "%.*s", (int)(end - dir), dir);
		mkdir(path, 0755);
	}
	for (int i = 0; i < files; i++) {
		snprintf(path, sizeof(path), "%slib-number-%04d.so", dir, i);
		fds[i] = open(path, O_CREAT | O_RDWR, 0644);
		if (fds[i] < 0 || ftruncate(fds[i], PAGE))
			die(path);
	}
	for (int i = 0; i < count; i++) {
		if (mmap((void *)(SPOT + i * PAGE), PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED,
			 fds[i / run % files], 0) == MAP_FAILED)
			die("mmap");
	}
	for (int i = 0; i < files; i++)
		close(fds[i]);
	free(fds);
}

/* Paths of 40 characters */
#define LIBRARIES	"/tmp/lib/x86_64-linux/"

static void make_files(int count)
{
	map_files(count, 50, 5, LIBRARIES);
}

static void make_many_files(int count)
{
	map_files(count, 1000, 1, LIBRARIES);
}

/* Paths of 240 characters, with 12 folders */
static void make_deep(int count)
{
	char dir[512] = "/tmp/";

	for (int i = 1; i < 12; i++)
		strcat(dir, "folder-within-fold/");
	strcat(dir, "deep/");
	map_files(count, 50, 5, dir);
}

static const struct workload {
	const char *name;
	void (*make)(int count);
	int count;
	int held;	/* measure the memory that a reader holds, too */
	int query;	/* by PROCMAP_QUERY, not by reading */
	const char *file;	/* not maps */
} workloads[] = {
	{ "anonymous", make_anonymous, 20, .held = 1 },
	{ "anonymous", make_anonymous, 1000 },
	{ "anonymous", make_anonymous, 10000, .held = 1 },
	{ "anonymous", make_anonymous, 60000, .held = 1 },
	{ "named", make_named, 10000 },
	{ "files in fives", make_files, 20, .held = 1 },
	{ "files in fives", make_files, 10000, .held = 1 },
	{ "different files", make_many_files, 10000 },
	{ "deep paths in fives", make_deep, 10000 },
	{ "query", make_anonymous, 10000, .query = 1 },
	{ "smaps_rollup", make_anonymous, 2000, .file = "smaps_rollup" },
	{ "smaps_rollup with a page each", make_populated, 2000, .file = "smaps_rollup" },
	{ "smaps", make_anonymous, 2000, .file = "smaps" },
	{ "numa_maps", make_anonymous, 2000, .file = "numa_maps" },
	{ "smaps of files in fives", make_files, 2000, .file = "smaps" },
	{ "numa_maps of files in fives", make_files, 2000, .file = "numa_maps" },
};

/* A process with these mappings, asleep */
static pid_t start(const struct workload *w)
{
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(ready))
		die("pipe");
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		w->make(w->count);
		if (write(ready[1], "", 1) != 1)
			die("pipe");
		while (1)
			pause();
	}
	close(ready[1]);
	if (pid < 0 || read(ready[0], &c, 1) != 1)
		die("the process to look at");
	close(ready[0]);
	return pid;
}

static int open_file(pid_t pid, const char *file, enum implementation implementation)
{
	char path[64];
	int fd;

	use(implementation);
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	return fd;
}

/* How many calls it takes to the end; adds what was read to @bytes. */
static int all_calls(int fd, int query, long *bytes)
{
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
	};
	int calls = 1;

	if (query) {
		for (; !ioctl(fd, PROCMAP_QUERY, &q); calls++)
			q.query_addr = q.vma_end;
		if (errno != ENOENT)
			die("PROCMAP_QUERY");
	} else {
		ssize_t n;

		for (; (n = read(fd, buf, sizeof(buf))) > 0; calls++)
			*bytes += n;
		if (n)
			die("read");
	}
	return calls;
}

static int count_lines(int fd, int *half)
{
	int lines = 0;
	ssize_t n;

	*half = 0;
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		*half += n / 2;
		for (ssize_t i = 0; i < n; i++)
			lines += buf[i] == '\n';
	}
	return lines;
}

static long slab_kb(void)
{
	FILE *f = fopen("/proc/meminfo", "r");
	long kb = -1;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "SUnreclaim: %ld", &kb);
	if (kb < 0)
		die("/proc/meminfo");
	fclose(f);
	return kb;
}

/* Opens descriptors and reads each as far as @depth, but at least once */
static void hold(int *fds, int count, pid_t pid, enum implementation implementation, int depth)
{
	for (int i = 0; i < count; i++) {
		int got = 0;

		fds[i] = open_file(pid, "maps", implementation);
		do {
			ssize_t n = read(fds[i], buf, sizeof(buf));

			if (n <= 0)
				die("read");
			got += n;
		} while (got < depth);
	}
	/* the CPUs' counts are summed up only once a second */
	sleep(3);
}

/*
 * Bytes of the kernel that a half-read descriptor takes. Others come first and
 * use up what the slab caches have in stock.
 */
static long held(pid_t pid, enum implementation implementation, int half)
{
	static int fds[STOCK + HOLDERS];
	long before, bytes;

	hold(fds, STOCK, pid, implementation, 0);
	before = slab_kb();
	hold(fds + STOCK, HOLDERS, pid, implementation, half);
	bytes = (slab_kb() - before) * 1024 / HOLDERS;
	for (int i = 0; i < STOCK + HOLDERS; i++)
		close(fds[i]);
	return bytes;
}

/*
 * Has C and Rust read a process once that somebody traces: says who will read how many
 * lines, waits for a byte from the terminal, reads, and says that it is done.
 */
static int trace(const char *name)
{
	const struct workload *w = workloads;
	struct workload small;
	long bytes = 0;
	int terminal = open("/dev/ttyS0", O_RDONLY);
	pid_t pid;

	while (w < workloads + ARRAY_SIZE(workloads) && strcmp(w->name, name))
		w++;
	if (w == workloads + ARRAY_SIZE(workloads)) {
		fprintf(stderr, "maps-bench: there is no workload %s\n", name);
		return 2;
	}
	small = *w;
	small.count = TRACED;
	pid = start(&small);
	for (int i = C; i <= RUST; i++) {
		int fd = open_file(pid, "maps", i), half, lines = count_lines(fd, &half);
		char c;

		close(fd);
		fd = open_file(pid, w->file ? w->file : "maps", i);
		all_calls(fd, w->query, &bytes);
		lseek(fd, 0, SEEK_SET);
		/* until all that was freed is, and the CPU has nothing else to do */
		sleep(1);
		printf("trace %s %d\n", implementations[i], lines);
		fflush(stdout);
		if (terminal < 0 || read(terminal, &c, 1) != 1)
			die("the terminal");
		all_calls(fd, w->query, &bytes);
		printf("done\n");
		fflush(stdout);
		close(fd);
	}
	kill(pid, SIGKILL);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "trace", required_argument, NULL, 't' },
		{}
	};
	int rounds = 3, opt;

	while ((opt = getopt_long(argc, argv, "hr:t:", options, NULL)) != -1) {
		if (opt == 't')
			return trace(optarg);
		if (opt == 'r')
			rounds = atoi(optarg);
		if (opt == 'h')
			printf("usage: maps-bench [-r ROUNDS | -t WORKLOAD]\n"
			       "Measures /proc/PID/maps, smaps, smaps_rollup and numa_maps, each implementation\n"
			       "in turn; prints a line of CSV for each workload, implementation and round (%d\n"
			       "rounds). Units are lines of maps, and VMAs for the other files. With -t C and\n"
			       "Rust read once, %d mappings, each after a byte from the terminal.\n",
			       rounds, TRACED);
		if (opt != 'r')
			return opt == 'h' ? 0 : 2;
	}
	if (rounds < 1) {
		fprintf(stderr, "maps-bench: -r takes a number of rounds, at least 1\n");
		return 2;
	}

	printf("workload,mappings,file,units,implementation,round,instructions,calls,bytes,held_bytes\n");
	for (size_t i = 0; i < ARRAY_SIZE(workloads); i++) {
		const struct workload *w = &workloads[i];
		const char *file = w->file ? w->file : "maps";
		long holds[IMPLEMENTATIONS] = {};
		int lines = 0, half = 0, passes = 0;
		pid_t pid;

		if (w->make == make_named && !has_names())
			continue;
		pid = start(w);
		for (int n = 0; n < IMPLEMENTATIONS; n++) {
			int fd = open_file(pid, "maps", n);
			long begin, ns, bytes = 0;

			if (!has("maps", n))
				continue;
			lines = count_lines(fd, &half);
			close(fd);
			/* warms up what the rounds use, and tells how long it takes */
			fd = open_file(pid, file, n);
			begin = now();
			all_calls(fd, w->query, &bytes);
			ns = now() - begin;
			if (passes < 1 + ROUND / ns)
				passes = 1 + ROUND / ns;
			close(fd);
			if (w->held)
				holds[n] = held(pid, n, half);
		}
		for (int round = 1; round <= rounds; round++) {
			for (int n = 0; n < IMPLEMENTATIONS; n++) {
				long begin, end, bytes = 0;
				int fd, calls = 0;

				if (!has(file, n))
					continue;
				fd = open_file(pid, file, n);
				begin = now();
				for (int pass = 0; pass < passes; pass++) {
					lseek(fd, 0, SEEK_SET);
					calls = all_calls(fd, w->query, &bytes);
				}
				end = now();
				close(fd);
				printf("%s,%d,%s,%d,%s,%d,%ld,", w->name, w->count, file, lines,
				       implementations[n], round, (end - begin) / passes);
				printf("%d,%ld,%ld\n", calls, bytes / passes, holds[n]);
			}
			fflush(stdout);
		}
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}
