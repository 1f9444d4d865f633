/* SPDX-License-Identifier: GPL-2.0 */
/* What the benchmarks of the guest have in common. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define PAGE		4096UL
#define SECOND		1000000000L
#define PARAMETERS	"/sys/module/task_mmu/parameters/"

/* Who can serve the files that are opened */
enum implementation {
	C,
	RUST,
	MMAP_LOCK,	/* C that holds mmap_lock, see harness/bench.patch */
	IMPLEMENTATIONS
};

static const char * const implementations[] = { "C", "Rust", "mmap_lock" };

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void set_parameter(const char *path, int on)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, on ? "Y" : "N", 1) != 1)
		die(path);
	close(fd);
}

/* Files that are opened from now on are served by this. */
static void use(enum implementation implementation)
{
	set_parameter(PARAMETERS "rust", implementation == RUST);
	if (!access(PARAMETERS "mmap_lock", F_OK))
		set_parameter(PARAMETERS "mmap_lock", implementation == MMAP_LOCK);
}

/*
 * Other kernels than that of the benchmarks have no C that holds mmap_lock, and
 * for smaps_rollup C holds it anyway.
 */
static inline int has(const char *file, enum implementation implementation)
{
	return implementation != MMAP_LOCK ||
	       (strcmp(file, "smaps_rollup") && !access(PARAMETERS "mmap_lock", F_OK));
}

#endif
