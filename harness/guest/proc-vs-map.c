// SPDX-License-Identifier: GPL-2.0
/*
 * Measures how long mmap() and munmap() of a page take while a reader at nice 15
 * reads a /proc/PID file of the process again and again, on another CPU, which it
 * shares with a busy task. This is what run-proc-vs-map.sh measures, of
 * https://github.com/paulmckrcu/proc-mmap_sem-test, here for each implementation
 * of the file in turn.
 */
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "writers.h"

#define REGION		(128UL << 20)
#define MAX_READERS	2
#define NICE		15
#define PAUSE		10	/* us between operations */
#define MAX_DURATION	30	/* s, in which there is room for all samples */
#define REST		1000	/* us between what a busy task does */

static struct reader {
	pid_t pid, busy;
	atomic_long *bytes;	/* how much it has read */
} readers[MAX_READERS];
static int reader_count;

/* What is measured in turn; without a file there is no reader */
static struct subject {
	const char *file;
	enum implementation implementation;
	struct result {
		long mean, p50, p99, max;
	} *results;
} subjects[1 + ARRAY_SIZE(files) * IMPLEMENTATIONS];
static int subject_count;

static long nsamples = 100, duration = 10, busyduration = 2;
static int rawdata;

static _Noreturn void read_all_the_time(const char *path, atomic_long *bytes)
{
	static char buf[128 << 10];

	if (setpriority(PRIO_PROCESS, 0, NICE))
		die("nice");
	while (1) {
		int fd = open(path, O_RDONLY);
		ssize_t got;

		if (fd < 0)
			die(path);
		while ((got = read(fd, buf, sizeof(buf))) > 0)
			*bytes += got;
		if (got < 0)
			die(path);
		close(fd);
	}
}

static _Noreturn void be_busy(const char *path)
{
	struct stat stat_buf;

	while (1) {
		long end = now() + busyduration * (SECOND / 1000);

		while (!busyduration || now() < end) {
			if (stat(path, &stat_buf))
				die(path);
		}
		usleep(REST);
	}
}

/* 0 in the child, which is on @cpu */
static pid_t start_child(int cpu)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(cpu);
	}
	return pid;
}

static void stop_child(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) < 0 || !WIFSIGNALED(status))
		exit(1);		/* the child has said why */
}

static void start_readers(const char *path)
{
	for (int n = 0; n < reader_count; n++) {
		*readers[n].bytes = 0;
		readers[n].pid = start_child(n + 1);
		if (!readers[n].pid)
			read_all_the_time(path, readers[n].bytes);
		while (!*readers[n].bytes) {
			if (waitpid(readers[n].pid, NULL, WNOHANG))
				exit(1);	/* the child has said why */
			usleep(1000);
		}
	}
}

static void start_busy_tasks(const char *path)
{
	for (int n = 0; n < reader_count; n++) {
		readers[n].busy = start_child(n + 1);
		if (!readers[n].busy)
			be_busy(path);
	}
}

static void stop_children(int reading)
{
	for (int n = 0; n < reader_count; n++) {
		stop_child(readers[n].busy);
		if (reading)
			stop_child(readers[n].pid);
	}
}

static long bytes_read(void)
{
	long bytes = 0;

	for (int n = 0; n < reader_count; n++)
		bytes += *readers[n].bytes;
	return bytes;
}

static void *map(void *at, unsigned long bytes, int flags)
{
	void *got = mmap(at, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | flags, -1, 0);

	if (got == MAP_FAILED)
		die("mmap");
	return got;
}

/* Maps or unmaps a page, whatever there is; how long the call took */
static long change(char *region)
{
	char *at = region + random_below(REGION / PAGE) * PAGE;
	int mapped = random_below(2);
	long begin = now();

	if (mapped)
		map(at, PAGE, MAP_FIXED);
	else if (munmap(at, PAGE))
		die("munmap");
	return now() - begin;
}

static void take_samples(char *region)
{
	long end = now() + duration * SECOND;

	op_samples.count = 0;
	do {
		op_samples.ns[op_samples.count++] = change(region);
		usleep(PAUSE);
	} while (op_samples.count < SAMPLES && now() < end);
}

/* The first time QEMU translates code, and its host allocates the guest's memory. */
static void warm_up(void)
{
	char *region = map(NULL, REGION, 0);

	take_samples(region);
	if (munmap(region, REGION))
		die("munmap");
}

static void measure(struct subject *s, long sample)
{
	struct result *result = &s->results[sample];
	char *region, path[64];
	long bytes;

	snprintf(path, sizeof(path), "/proc/%d/%s", getpid(), s->file ? s->file : files[0]);
	if (s->file) {
		use(s->implementation);
		start_readers(path);
	}
	region = map(NULL, REGION, 0);
	start_busy_tasks(path);
	bytes = bytes_read();
	take_samples(region);
	bytes = bytes_read() - bytes;
	stop_children(!!s->file);
	if (munmap(region, REGION))
		die("munmap");

	sort_samples();
	*result = (struct result){ mean(), quantile(500), quantile(990), quantile(1000) };
	if (rawdata)
		printf("%s,%s,%ld,%d,%ld,%ld,%ld,%ld,%ld\n", s->file ? s->file : "",
		       s->file ? implementations[s->implementation] : "", sample + 1,
		       op_samples.count, result->mean, result->p50, result->p99, result->max,
		       bytes);
	fflush(stdout);
}

static void add_subject(const char *file, enum implementation implementation)
{
	struct subject *s = &subjects[subject_count++];

	s->file = file;
	s->implementation = implementation;
	s->results = calloc(nsamples, sizeof(s->results[0]));
	if (!s->results)
		die("--nsamples");
}

static void add_subjects(const char *only)
{
	add_subject(NULL, C);
	for (size_t file = 0; file < ARRAY_SIZE(files); file++) {
		for (int i = 0; i < IMPLEMENTATIONS; i++) {
			if ((!only || !strcmp(only, files[file])) && has(files[file], i))
				add_subject(files[file], i);
		}
	}
}

static int by_mean(const void *a, const void *b)
{
	return by_size(&((const struct result *)a)->mean, &((const struct result *)b)->mean);
}

static void summarize(void)
{
	printf("%-14s%-12s%10s%10s%10s   us\n", "", "", "median", "minimum", "longest");
	for (struct subject *s = subjects; s < subjects + subject_count; s++) {
		struct result *r = s->results;
		long longest = 0;

		qsort(r, nsamples, sizeof(*r), by_mean);
		for (long i = 0; i < nsamples; i++)
			longest = r[i].max > longest ? r[i].max : longest;
		printf("%-14s%-12s%10.1f%10.1f%10.1f\n", s->file ? s->file : "no reader",
		       s->file ? implementations[s->implementation] : "",
		       (r[(nsamples - 1) / 2].mean + r[nsamples / 2].mean) / 2000.0,
		       r[0].mean / 1000.0, longest / 1000.0);
	}
}

static _Noreturn void misused(const char *option, const char *text, const char *wanted)
{
	fprintf(stderr, "proc-vs-map: %s is %s; it has to be %s\n", option, text, wanted);
	exit(2);
}

static long number(const char *option, const char *text, long least, long most)
{
	char *end, wanted[64];
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < least || n > most) {
		snprintf(wanted, sizeof(wanted), "a number from %ld to %ld", least, most);
		misused(option, text, wanted);
	}
	return n;
}

static const char *known_file(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!strcmp(name, files[i]))
			return name;
	}
	misused("--procfile", name, "maps, smaps, smaps_rollup or numa_maps");
}

static void usage(void)
{
	printf("usage: proc-vs-map [--nsamples N] [--rawdata] [--duration S] [--busyduration MS]\n"
	       "                   [--procfile FILE]\n"
	       "Measures how long a process that maps and unmaps random pages of 128 MiB waits\n"
	       "for that, while one of its /proc/PID files is read at nice %d on another CPU, on\n"
	       "which a busy task is as well: without a reader, and by each implementation in\n"
	       "turn. With more than two CPUs there are two readers, each with its CPU and its\n"
	       "busy task.\n"
	       "\n"
	       "  --nsamples N       how often each is measured (%ld)\n"
	       "  --duration S       seconds that a sample takes (%ld)\n"
	       "  --busyduration MS  milliseconds that a busy task calls stat() before it sleeps for\n"
	       "                     one; 0: it never sleeps (%ld)\n"
	       "  --procfile FILE    only this one of maps, smaps, smaps_rollup and numa_maps\n"
	       "  --rawdata          a line of CSV for each sample, not the median and minimum\n"
	       "                     of the samples' means and the longest operation of all\n",
	       NICE, nsamples, duration, busyduration);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "nsamples", required_argument, NULL, 'n' },
		{ "rawdata", no_argument, NULL, 'r' },
		{ "duration", required_argument, NULL, 'd' },
		{ "busyduration", required_argument, NULL, 'b' },
		{ "procfile", required_argument, NULL, 'p' },
		{}
	};
	const char *only = NULL;
	atomic_long *bytes;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case 'n':
			nsamples = number("--nsamples", optarg, 1, 100000);
			break;
		case 'r':
			rawdata = 1;
			break;
		case 'd':
			duration = number("--duration", optarg, 1, MAX_DURATION);
			break;
		case 'b':
			busyduration = number("--busyduration", optarg, 0, 100000);
			break;
		case 'p':
			only = known_file(optarg);
			break;
		case 'h':
			usage();
			return 0;
		default:
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "proc-vs-map: what is %s? See --help\n", argv[optind]);
		return 2;
	}

	reader_count = sysconf(_SC_NPROCESSORS_ONLN) - 1;
	if (reader_count > MAX_READERS)
		reader_count = MAX_READERS;
	if (reader_count < 1) {
		fprintf(stderr, "proc-vs-map: two CPUs are needed\n");
		return 1;
	}
	bytes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bytes == MAP_FAILED)
		die("mmap");
	for (int n = 0; n < reader_count; n++)
		readers[n].bytes = &bytes[n];
	/* 4 KiB pages, one of which can be unmapped without a split */
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		die("PR_SET_THP_DISABLE");
	/* QEMU's first CPU takes milliseconds to switch between two processes */
	pin(0);
	add_subjects(only);

	if (rawdata)
		printf("file,implementation,sample,operations,mean_ns,p50_ns,p99_ns,max_ns,"
		       "read_bytes\n");
	fflush(stdout);		/* not once more by a child */
	warm_up();
	for (long sample = 0; sample < nsamples; sample++) {
		for (int i = 0; i < subject_count; i++)
			measure(&subjects[i], sample);
	}
	if (!rawdata)
		summarize();
	return 0;
}
