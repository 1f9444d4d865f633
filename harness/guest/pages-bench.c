// SPDX-License-Identifier: GPL-2.0
/*
 * Measures what a page takes in /proc/PID/smaps_rollup and numa_maps, for pages of
 * different kinds: what reading takes when they are there, less what it took before.
 * Meant for a guest whose clock counts instructions: what it prints as instructions are
 * nanoseconds. On a kernel without the switch it measures what serves the files there.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench.h"

#define PAGES	16384
#define SIZE	(PAGES * PAGE)
#define SPOT	0x100000000UL
#define ROUND	50000000L	/* at least so long, so that the clock's ticks even out */
#define PATH	"/tmp/pages"

/* Writes to one page of @of. */
static void write_one(unsigned long of)
{
	for (unsigned long i = 0; i < SIZE; i += of * PAGE)
		((volatile char *)SPOT)[i] = 1;
}

static void write_pages(void)
{
	write_one(1);
}

static void read_pages(void)
{
	for (unsigned long i = 0; i < SIZE; i += PAGE)
		(void)((volatile char *)SPOT)[i];
}

/* Another process maps what this one does. */
static void share(void)
{
	int ready[2];
	char c;

	if (pipe(ready))
		die("pipe");
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		read_pages();
		if (write(ready[1], "", 1) != 1)
			die("pipe");
		while (1)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		die("the process to share with");
	close(ready[0]);
}

static void set_folios(const char *size, const char *when)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/hugepages-%s/enabled",
		 size);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, when, strlen(when)) < 0)
		die(path);
	close(fd);
}

static void fill_folios(void)
{
	set_folios("2048kB", "never");
	set_folios("64kB", "always");
	if (madvise((void *)SPOT, SIZE, MADV_HUGEPAGE))
		die("MADV_HUGEPAGE");
	write_pages();
	set_folios("64kB", "never");
	set_folios("2048kB", "inherit");
}

static void fill_after_fork(void)
{
	write_pages();
	share();
}

static void fill_shared(void)
{
	read_pages();
	share();
}

/* Each page table has some pages. */
static void fill_sparsely(void)
{
	write_one(32);
}

static void fill_lazy_free(void)
{
	write_pages();
	if (madvise((void *)SPOT, SIZE, MADV_FREE))
		die("MADV_FREE");
}

static const struct kind {
	const char *name;
	void (*fill)(void);
	int is_file;
	const char *file;
} kinds[] = {
	{ "anonymous", write_pages, 0, "smaps_rollup" },
	{ "anonymous, after fork", fill_after_fork, 0, "smaps_rollup" },
	{ "of a 64 KiB folio", fill_folios, 0, "smaps_rollup" },
	{ "of a file", read_pages, 1, "smaps_rollup" },
	{ "of a file, mapped by two", fill_shared, 1, "smaps_rollup" },
	{ "zero page", read_pages, 0, "smaps_rollup" },
	{ "after MADV_FREE", fill_lazy_free, 0, "smaps_rollup" },
	{ "an entry, of which one of 32 has a page", fill_sparsely, 0, "smaps_rollup" },
	{ "anonymous", write_pages, 0, "numa_maps" },
	{ "of a file", read_pages, 1, "numa_maps" },
	{ "zero page", read_pages, 0, "numa_maps" },
	{ "an entry, of which one of 32 has a page", fill_sparsely, 0, "numa_maps" },
};

static void map(int is_file)
{
	int fd = -1;

	if (is_file) {
		fd = open(PATH, O_CREAT | O_TRUNC | O_RDWR, 0600);
		for (int i = 0; i < PAGES; i++) {
			if (pwrite(fd, "", 1, i * PAGE) != 1)
				die(PATH);
		}
		unlink(PATH);
	}
	if (mmap((void *)SPOT, SIZE, is_file ? PROT_READ : PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_FIXED | (is_file ? 0 : MAP_ANONYMOUS), fd, 0) == MAP_FAILED)
		die("mmap");
	madvise((void *)SPOT, SIZE, MADV_NOHUGEPAGE);
	close(fd);
}

static long pass(int fd)
{
	static char buf[128 << 10];
	long begin = now();

	lseek(fd, 0, SEEK_SET);
	while (read(fd, buf, sizeof(buf)) > 0)
		continue;
	return now() - begin;
}

/* The mean of passes that take long enough together */
static long measure(pid_t pid, const char *file)
{
	char path[64];
	long begin, ns;
	int fd, passes;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	passes = 1 + ROUND / pass(fd);
	begin = now();
	for (int i = 0; i < passes; i++)
		pass(fd);
	ns = (now() - begin) / passes;
	close(fd);
	return ns;
}

int main(int argc, char **argv)
{
	int has_switch = !access(PARAMETERS "rust", F_OK);

	if (argc > 1) {
		printf("usage: pages-bench\n"
		       "Prints a line of CSV for each kind of page, file and implementation.\n");
		return strcmp(argv[1], "--help") ? 2 : 0;
	}
	printf("kind,file,implementation,instructions\n");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const struct kind *kind = &kinds[i];
		long before[2] = {};
		int to[2], from[2];
		pid_t pid;
		char c;

		if (pipe(to) || pipe(from))
			die("pipe");
		pid = fork();
		if (!pid) {
			/* of what it starts, too */
			setpgid(0, 0);
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			map(kind->is_file);
			if (write(from[1], "", 1) != 1 || read(to[0], &c, 1) != 1)
				die("pipe");
			kind->fill();
			if (write(from[1], "", 1) != 1)
				die("pipe");
			while (1)
				pause();
		}
		close(from[1]);
		for (int filled = 0; filled <= 1; filled++) {
			if (read(from[0], &c, 1) != 1)
				die("the process to look at");
			for (int n = C; n <= (has_switch ? RUST : C); n++) {
				long ns;

				if (has_switch)
					use(n);
				ns = measure(pid, kind->file);
				if (!filled)
					before[n] = ns;
				else
					printf("\"%s\",%s,%s,%.1f\n", kind->name, kind->file,
					       implementations[n], (double)(ns - before[n]) / PAGES);
			}
			if (!filled && write(to[1], "", 1) != 1)
				die("pipe");
		}
		fflush(stdout);
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(from[0]);
		close(to[0]);
		close(to[1]);
	}
	return 0;
}
