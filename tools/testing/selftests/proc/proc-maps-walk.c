// SPDX-License-Identifier: GPL-2.0
/*
 * Read /proc/PID/maps while threads of that process change what is between
 * fixed mappings all the time. In every pass over the file
 *
 *  - each fixed mapping stands there exactly once, as it is;
 *  - memory that is always mapped, though split, merged, moved into and given
 *    other rights, is covered without a gap;
 *  - the lines' ends rise.
 *
 * A line may start below the end of the one before: a mapping that has been
 * given out may then have been merged with what follows it.
 */
#define _GNU_SOURCE
#include "kselftest_harness.h"
#include <pthread.h>
#include <time.h>
#include "proc-maps.h"

/*
 * The target has CELLS cells, one after the other, each for one kind of change:
 *
 *	page	0	1 .. 8		0	1 .. 8
 *		fixed	what changes	fixed	what changes	...
 *
 * The fixed pages cannot be accessed, pages 1 and 8 always can be where they
 * are mapped, so that no change merges with a fixed page.
 */
#define CELL_PAGES	9
#define ROUNDS		6	/* cells of each kind */
#define CELLS		(KINDS * ROUNDS)
#define ALL_PAGES	(CELLS * CELL_PAGES)
#define CHANGERS	2
#define READERS		3

enum kind {
	MERGE_BOTH,		/* mprotect: becomes one with both neighbours */
	MERGE_LEFT_FULL,
	MERGE_LEFT_PART,
	MERGE_RIGHT_FULL,
	MERGE_RIGHT_PART,
	INSERT_BOTH,		/* mmap into a hole: becomes one with both */
	INSERT_LEFT,
	INSERT_RIGHT,
	SPLIT_LOW,
	SPLIT_HIGH,
	REPLACE,		/* mmap over what is there */
	UNMAP,
	MOVE,
	STACK,
	KINDS,
};

static const struct {
	const char *name;
	const char always[CELL_PAGES + 1];	/* pages that are never unmapped */
	int before, between;			/* mappings on pages 1 to 8 */
} kinds[KINDS] = {
	[MERGE_BOTH]		= { "merge both",	"-********", 3, 1 },
	[MERGE_LEFT_FULL]	= { "merge left",	"-********", 3, 2 },
	[MERGE_LEFT_PART]	= { "merge left part",	"-********", 2, 2 },
	[MERGE_RIGHT_FULL]	= { "merge right",	"-********", 3, 2 },
	[MERGE_RIGHT_PART]	= { "merge right part",	"-********", 2, 2 },
	[INSERT_BOTH]		= { "insert both",	"-***..***", 2, 1 },
	[INSERT_LEFT]		= { "insert left",	"-***.....", 1, 1 },
	[INSERT_RIGHT]		= { "insert right",	"-.....***", 1, 1 },
	[SPLIT_LOW]		= { "split low",	"-********", 1, 2 },
	[SPLIT_HIGH]		= { "split high",	"-********", 1, 2 },
	[REPLACE]		= { "replace",		"-********", 1, 3 },
	[UNMAP]			= { "unmap",		"-*......*", 4, 2 },
	[MOVE]			= { "move",		"-*......*", 3, 2 },
	[STACK]			= { "stack",		"-.......*", 1, 1 },
};

#define RO	PROT_READ
#define RW	(PROT_READ | PROT_WRITE)

static char *page_at(int cell, int page)
{
	return (char *)SPOT + (cell * CELL_PAGES + page) * PAGE;
}

static void must(int failed, const char *what)
{
	if (failed)
		maps_die(what);
}

static void protect(int cell, int page, int count, int prot)
{
	must(mprotect(page_at(cell, page), count * PAGE, prot), "mprotect");
}

static void map_flags(int cell, int page, int count, int prot, int flags)
{
	must(mmap(page_at(cell, page), count * PAGE, prot,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0) == MAP_FAILED,
	     "mmap");
}

static void map(int cell, int page, int count, int prot)
{
	map_flags(cell, page, count, prot, 0);
}

static void unmap(int cell, int page, int count)
{
	must(munmap(page_at(cell, page), count * PAGE), "munmap");
}

static void move(char *from, char *to)
{
	must(mremap(from, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    to) == MAP_FAILED, "mremap");
}

/* All is mapped to be written first: that sets flags which hinder merging */
static void set_up(int cell)
{
	map(cell, 0, 1, PROT_NONE);
	map(cell, 1, 8, RW);
	switch (cell % KINDS) {
	case MERGE_BOTH:
		protect(cell, 4, 2, RO);
		break;
	case MERGE_LEFT_FULL:
	case MERGE_RIGHT_FULL:
		protect(cell, 1, 3, RO);
		protect(cell, 4, 2, PROT_NONE);
		break;
	case MERGE_LEFT_PART:
	case MERGE_RIGHT_PART:
		protect(cell, 1, 4, RO);
		break;
	case INSERT_BOTH:
		unmap(cell, 4, 2);
		break;
	case INSERT_LEFT:
		unmap(cell, 4, 5);
		break;
	case INSERT_RIGHT:
		unmap(cell, 1, 5);
		break;
	case UNMAP:
	case MOVE:
		unmap(cell, 2, 6);
		map(cell, 3, 2, RO);
		if (cell % KINDS == UNMAP)
			map(cell, 6, 1, RW);
		break;
	case STACK:
		unmap(cell, 1, 8);
		map_flags(cell, 8, 1, RW, MAP_GROWSDOWN);
		break;
	}
}

static void change(int cell)
{
	switch (cell % KINDS) {
	case MERGE_BOTH:
		protect(cell, 4, 2, RW);
		break;
	case MERGE_LEFT_FULL:
		protect(cell, 4, 2, RO);
		break;
	case MERGE_LEFT_PART:
		protect(cell, 5, 2, RO);
		break;
	case MERGE_RIGHT_FULL:
		protect(cell, 4, 2, RW);
		break;
	case MERGE_RIGHT_PART:
		protect(cell, 3, 2, RW);
		break;
	case INSERT_BOTH:
	case INSERT_LEFT:
		map(cell, 4, 2, RW);
		break;
	case INSERT_RIGHT:
		map(cell, 4, 2, RW);
		break;
	case SPLIT_LOW:
		protect(cell, 1, 4, RO);
		break;
	case SPLIT_HIGH:
		protect(cell, 5, 4, RO);
		break;
	case REPLACE:
		map(cell, 3, 3, RO);
		break;
	case UNMAP:
		unmap(cell, 2, 6);
		break;
	case MOVE:
		move(page_at(cell, 3), page_at(CELLS + cell, 3));
		break;
	case STACK:
		for (int page = 7; page > 2; page--)
			__atomic_store_n(page_at(cell, page), 1, __ATOMIC_RELAXED);
		break;
	}
}

static void change_back(int cell)
{
	switch (cell % KINDS) {
	case MERGE_BOTH:
		protect(cell, 4, 2, RO);
		break;
	case MERGE_LEFT_FULL:
	case MERGE_RIGHT_FULL:
		protect(cell, 4, 2, PROT_NONE);
		break;
	case MERGE_LEFT_PART:
		protect(cell, 5, 2, RW);
		break;
	case MERGE_RIGHT_PART:
		protect(cell, 3, 2, RO);
		break;
	case INSERT_BOTH:
	case INSERT_LEFT:
		unmap(cell, 4, 2);
		break;
	case INSERT_RIGHT:
		unmap(cell, 4, 2);
		break;
	case SPLIT_LOW:
		protect(cell, 1, 4, RW);
		break;
	case SPLIT_HIGH:
		protect(cell, 5, 4, RW);
		break;
	case REPLACE:
		map(cell, 1, 8, RW);
		break;
	case UNMAP:
		map(cell, 3, 2, RO);
		map(cell, 6, 1, RW);
		break;
	case MOVE:
		move(page_at(CELLS + cell, 3), page_at(cell, 3));
		break;
	case STACK:
		unmap(cell, 1, 7);
		break;
	}
}

/* What the target does */
enum command {
	CHANGE,
	CHANGE_BACK,
	START,
	STOP,
};

/* Shared by the target and the test */
struct shared {
	int stop;
	unsigned long changes[KINDS];
};

static struct shared *shared;

static void *change_all(void *arg)
{
	int first = (long)arg;

	while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
		for (int cell = first; cell < CELLS; cell += CHANGERS) {
			change(cell);
			change_back(cell);
			__atomic_add_fetch(&shared->changes[cell % KINDS], 2,
					   __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static int build(const void *arg)
{
	for (int cell = 0; cell < CELLS; cell++)
		set_up(cell);
	map(CELLS, 0, 1, PROT_NONE);
	return 0;
}

static int serve(int cmd)
{
	static pthread_t changers[CHANGERS];
	int err = 0;

	for (int cell = 0; cell < CELLS; cell++) {
		if (cmd == CHANGE)
			change(cell);
		if (cmd == CHANGE_BACK)
			change_back(cell);
	}
	__atomic_store_n(&shared->stop, cmd == STOP, __ATOMIC_RELAXED);
	for (long i = 0; i < CHANGERS && !err; i++) {
		if (cmd == START)
			err = pthread_create(&changers[i], NULL, change_all, (void *)i);
		if (cmd == STOP)
			err = pthread_join(changers[i], NULL);
	}
	return err;
}

struct reader {
	pthread_t thread;
	pid_t target;
	size_t min_size, max_size;	/* of its reads */
	unsigned long passes;
	unsigned long lines;
	bool stop;
	char wrong[256];
};

static bool is_wrong(struct reader *r, const char *what, const char *line)
{
	int len = strcspn(line, "\n");

	if (!r->wrong[0])
		snprintf(r->wrong, sizeof(r->wrong), "pass %lu: %s: %.*s",
			 r->passes, what, len, line);
	return false;
}

/* Look at one pass over the file; @text ends in a zero byte */
static bool check_pass(struct reader *r, const char *text)
{
	unsigned char covered[ALL_PAGES + 1] = {}, fixed[CELLS + 1] = {};
	unsigned long start, end, last_end = 0;
	const char *line, *next;
	char what[80];

	for (line = text; *line; line = next) {
		char rights[5];

		next = strchr(line, '\n');
		if (!next || sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3 ||
		    start >= end)
			return is_wrong(r, "not a line", line);
		next++;
		r->lines++;
		if (end <= last_end)
			return is_wrong(r, "behind the line before", line);
		last_end = end;

		if (start < SPOT || start > SPOT + ALL_PAGES * PAGE)
			continue;
		for (unsigned long at = start; at < end; at += PAGE) {
			size_t page = (at - SPOT) / PAGE;

			if (page > ALL_PAGES)
				break;
			covered[page] = 1;
			if (page % CELL_PAGES)
				continue;
			if (end - start != PAGE || strcmp(rights, "---p"))
				return is_wrong(r, "not the fixed mapping", line);
			fixed[page / CELL_PAGES]++;
		}
	}
	for (size_t page = 0; page <= ALL_PAGES; page++) {
		int kind = page / CELL_PAGES % KINDS;

		snprintf(what, sizeof(what), "page %zu, cell '%s'",
			 page % CELL_PAGES, kinds[kind].name);
		if (page % CELL_PAGES == 0 && fixed[page / CELL_PAGES] != 1)
			return is_wrong(r, what, "fixed mapping not seen once");
		if (kinds[kind].always[page % CELL_PAGES] == '*' &&
		    page < ALL_PAGES && !covered[page])
			return is_wrong(r, what, "gap where memory is always mapped");
	}
	return true;
}

static void *read_all(void *arg)
{
	static __thread char buf[1 << 17];
	struct reader *r = arg;
	unsigned int random = 1;
	struct text text = {};
	ssize_t n = 0;
	int fd;

	fd = maps_open(r->target, MAPS_RUST);
	while (fd >= 0 && !__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		text.len = 0;
		if (lseek(fd, 0, SEEK_SET))
			break;
		do {
			random = random * 1103515245 + 12345;
			n = read(fd, buf, r->min_size + (random >> 8) %
				 (r->max_size - r->min_size + 1));
			if (n > 0)
				text_append(&text, buf, n);
		} while (n > 0);
		text_append(&text, "", 1);
		if (n < 0 || !check_pass(r, text.data))
			break;
		r->passes++;
	}
	if (fd < 0 || n < 0)
		is_wrong(r, strerrorname_np(errno), "");
	close(fd);
	text_free(&text);
	return NULL;
}

static int seconds = 10;

FIXTURE(maps_walk)
{
	struct target target;
};

FIXTURE_SETUP(maps_walk)
{
	const char *cannot = maps_cannot_test();

	if (cannot)
		SKIP(return, "%s", cannot);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, shared);
	ASSERT_EQ(0, target_start(&self->target, build, serve, NULL));
}

FIXTURE_TEARDOWN(maps_walk)
{
	target_stop(&self->target);
}

/* Nothing is going on: are the changes what their names say? */
static void check_changes(struct __test_metadata *_metadata, pid_t target,
			  bool between)
{
	struct reader reader = {};
	struct text text = {};
	int fd = maps_open(target, MAPS_RUST);
	char what[32];

	ASSERT_EQ(0, text_read(&text, fd));
	text_append(&text, "", 1);
	close(fd);
	EXPECT_TRUE(check_pass(&reader, text.data))
		TH_LOG("%s", reader.wrong);
	for (int cell = 0; cell < CELLS; cell++) {
		int mappings = 0;

		for (int page = 1; page < CELL_PAGES; page++) {
			snprintf(what, sizeof(what), "\n%08lx-",
				 (unsigned long)page_at(cell, page));
			mappings += text_has(&text, what);
		}
		EXPECT_EQ(between ? kinds[cell % KINDS].between :
				    kinds[cell % KINDS].before, mappings)
			TH_LOG("%s, %s the change", kinds[cell % KINDS].name,
			       between ? "after" : "before");
	}
	text_free(&text);
}

#define LONGEST	86400

TEST_F_TIMEOUT(maps_walk, under_change, LONGEST)
{
	static struct reader readers[READERS] = {
		{ .min_size = 4096, .max_size = 4096 },
		{ .min_size = 40, .max_size = 300 },
		{ .min_size = 1, .max_size = 1 << 17 },
	};
	unsigned long lines = 0;

	for (int i = 0; i < 3; i++) {
		check_changes(_metadata, self->target.pid, i == 1);
		if (i < 2)
			ASSERT_EQ(0, target_do(&self->target, i ? CHANGE_BACK : CHANGE));
	}

	/* if a reader never comes back, this ends the test as failed */
	alarm(seconds + 60);
	ASSERT_EQ(0, target_do(&self->target, START));
	for (int i = 0; i < READERS; i++) {
		readers[i].target = self->target.pid;
		ASSERT_EQ(0, pthread_create(&readers[i].thread, NULL, read_all,
					    &readers[i]));
	}
	sleep(seconds);
	for (int i = 0; i < READERS; i++) {
		__atomic_store_n(&readers[i].stop, true, __ATOMIC_RELAXED);
		pthread_join(readers[i].thread, NULL);
		EXPECT_STREQ("", readers[i].wrong);
		EXPECT_LT(seconds, readers[i].passes);
		TH_LOG("reads of %zu to %zu bytes: %lu passes, %lu lines checked",
		       readers[i].min_size, readers[i].max_size,
		       readers[i].passes, readers[i].lines);
		lines += readers[i].lines;
	}
	ASSERT_EQ(0, target_do(&self->target, STOP));
	for (int kind = 0; kind < KINDS; kind++) {
		EXPECT_LT(seconds, shared->changes[kind]);
		TH_LOG("%lu changes of kind '%s'", shared->changes[kind],
		       kinds[kind].name);
	}
	TH_LOG("%lu lines checked in %d seconds", lines, seconds);
	check_changes(_metadata, self->target.pid, false);
}

int main(int argc, char **argv)
{
	if (argc > 1 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"))) {
		fprintf(stderr, "Usage: %s [-d SECONDS] [option of the test harness ...]\n"
			"\t-d SECONDS  how long to read while mappings change (%d)\n",
			argv[0], seconds);
		return KSFT_SKIP;
	}
	if (argc > 2 && !strcmp(argv[1], "-d")) {
		seconds = atoi(argv[2]);
		if (seconds < 1 || seconds > LONGEST - 100) {
			fprintf(stderr, "%s: -d takes a number of seconds from 1 to %d\n",
				argv[0], LONGEST - 100);
			return KSFT_FAIL;
		}
		argv[2] = argv[0];
		argv += 2;
		argc -= 2;
	}
	return test_harness_run(argc, argv);
}
