// SPDX-License-Identifier: GPL-2.0
/*
 * Read maps, smaps, smaps_rollup and numa_maps of a process and ask it
 * PROCMAP_QUERY, by many readers at once, while its threads split, merge, unmap,
 * move, replace and grow mappings, and fork and exec. The layout has
 *
 *  - fixed mappings, of which every pass over a file shows each once and as it is;
 *  - memory that is always mapped, if by different mappings, in which no reader
 *    may see a gap;
 *  - memory that is always populated, so that what smaps says of it is known.
 *
 * Line after line, the ends have to rise. A line may start below the end of the
 * one before: what has been shown may have been merged with what follows it.
 *
 * Short-lived processes are read as well, of which less is known: reads succeed or
 * end, and the ends of lines rise.
 */
#define _GNU_SOURCE
#include "kselftest.h"
#include <getopt.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "proc-maps-cells.h"

#define ROUNDS		4	/* cells of each kind */
#define CELLS		(KINDS * ROUNDS)
#define LEAD		4	/* fixed pages before the one that each cell begins with */
#define PITCH		(LEAD + CELL_PAGES)
#define BIG_PAGES	2048	/* a populated mapping of several page tables */
#define CELLS_END	(CELLS * PITCH)
#define BIG		(CELLS_END + 1)
#define FAR		(BIG + BIG_PAGES + 1)	/* where mappings are moved to and from */
#define LAST		(FAR + CELLS * PITCH)
#define ALL_PAGES	(LAST + 1)

#define START_OF(page)	(SPOT + (page) * PAGE)
#define PAGE_OF(addr)	(((addr) - SPOT) / PAGE)
#define END		START_OF(ALL_PAGES)

#define STUCK		60	/* seconds without progress */
#define MOST		64	/* readers or writers of a kind */
#define STACK_SIZE	(64UL << 10)
#define TEXT_SIZE	(8UL << 20)	/* of a pass; none comes near */
#define READ_MAX	(128UL << 10)
#define YOUNG_PROGRAM	"--young"

/* A mapping that never changes */
struct fixed {
	unsigned long start, end;
	bool populated;
	bool readable, writable;
	char line[44];
};

#define FIXED_LINE	"%08lx-%08lx %c%c-p 00000000 00:00 0 %c"
#define FIXED_LEN	41

static struct fixed fixed[CELLS * (LEAD + 1) + 4];
static unsigned int fixed_count;
/* For each page: the first one at or after it that is always mapped */
static unsigned int next_always[ALL_PAGES + 1];
/* For each page: the first fixed mapping that ends after it */
static unsigned int fixed_from[ALL_PAGES + 1];
static unsigned long populated_least, populated_most;	/* pages */

/* What was read while nothing changed */
static struct {
	unsigned long start;		/* of the first mapping */
	unsigned long last_end;		/* of the last line of maps */
	unsigned long vma_end;		/* of the last mapping of the process' own */
	unsigned long query_end;	/* of the last answer */
	struct text smaps;
	size_t bare, bare_len;		/* smaps of a fixed mapping that is not populated */
	size_t flags, flags_len;	/* the last line of one that is */
	struct text numa;
	size_t numa_bare, numa_bare_len;
	bool swap;
} quiet;

enum property {
	FALSE_GAPS,
	TWICE,
	ORDER,
	FIXED,
	SMAPS,
	ROLLUP,
	NUMA,
	QUERIES,
	READS,
	CHANGES,
	FINISH,
	LINES,
	PROPERTIES,
};

static const char *const property_name[] = {
	[FALSE_GAPS]	= "no gap in memory that is always mapped",
	[TWICE]		= "no mapping is shown twice",
	[ORDER]		= "ends of lines rise",
	[FIXED]		= "fixed mappings are shown once and as they are",
	[SMAPS]		= "values in smaps",
	[ROLLUP]	= "values in smaps_rollup",
	[NUMA]		= "values in numa_maps",
	[QUERIES]	= "answers to PROCMAP_QUERY",
	[READS]		= "reads give whole lines or end",
	[CHANGES]	= "changes of each kind were made",
	[FINISH]	= "readers and writers finish",
	[LINES]		= "lines checked",
};

enum file {
	MAPS_FILE,
	SMAPS_FILE,
	ROLLUP_FILE,
	NUMA_FILE,
	FILES,
};

static const char *const file_name[] = { "maps", "smaps", "smaps_rollup", "numa_maps" };

enum reading {
	READ_MAPS,
	READ_SMAPS,
	READ_ROLLUP,
	READ_NUMA,
	READ_QUERIES,		/* all mappings, one after the other */
	READ_RANDOM,		/* queries at random addresses */
	READ_YOUNG,		/* short-lived processes */
	READINGS,
};

static struct {
	const char *name, *what;
	int count;
	int nice;
} readings[] = {
	[READ_MAPS]	= { "maps",	"lines",	3, 0 },
	[READ_SMAPS]	= { "smaps",	"entries",	1, 5 },
	[READ_ROLLUP]	= { "rollup",	"sums",		1, 8 },
	[READ_NUMA]	= { "numa_maps", "lines",	1, 8 },
	[READ_QUERIES]	= { "queries",	"answers",	1, 5 },
	[READ_RANDOM]	= { "random",	"answers",	1, 8 },
	[READ_YOUNG]	= { "young",	"lines",	1, 8 },
};

enum writing {
	WRITE_CHANGE,
	WRITE_FORK,		/* of the target, to exit at once */
	WRITE_EXEC,		/* of the target, to exec */
	WRITE_YOUNG,		/* of a small process, to exec or exit */
	WRITINGS,
};

static struct {
	const char *name;
	int count;
	int nice;
} writings[] = {
	[WRITE_CHANGE]	= { "change",	4, 0 },
	[WRITE_FORK]	= { "fork",	1, 5 },
	[WRITE_EXEC]	= { "exec",	1, 5 },
	[WRITE_YOUNG]	= { "young",	1, 8 },
};

struct writer {
	unsigned long progress;
	bool started, done;
	pid_t young;		/* a child that waits until a reader has opened a file of it */
	char pad[48];
};

/* By the test, the target and their children */
static struct {
	bool stop;
	unsigned long changes[KINDS];
	unsigned long children[WRITINGS];
	int child_status;
	struct writer writers[WRITINGS][MOST];
} *shared;

struct reader {
	pthread_t thread;
	enum reading kind;
	int number;
	unsigned int random;
	pid_t target;
	unsigned long progress, passes, lines, gaps;
	bool started, done;
	/* the pass, which is kept whole to tell what is around a wrong line */
	char *text;
	size_t len;
	unsigned int cuts[1 << 15], cut_count;	/* where reads began */
	const char *line;
	unsigned long last_start, last_end;
	unsigned int next_fixed;
};

static struct reader *readers[READINGS][MOST];

static struct {
	const char *program;
	const char *impl;
	unsigned long lines;
	unsigned long seconds;
	unsigned int seed;
} options;

#define load(p)		__atomic_load_n(p, __ATOMIC_RELAXED)
#define store(p, v)	__atomic_store_n(p, v, __ATOMIC_RELAXED)
#define add(p, v)	__atomic_add_fetch(p, v, __ATOMIC_RELAXED)

static unsigned int random_next(unsigned int *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 17;
	*random ^= *random << 5;
	return *random;
}

static unsigned int random_seed(int a, int b)
{
	unsigned int random = options.seed * 2654435761U + a * MOST + b + 1;

	random += !random;
	for (int i = 0; i < 8; i++)
		random_next(&random);
	return random;
}

/* The layout */

static bool is_populated(const struct cell *c)
{
	return c->flags & MAP_POPULATE;
}

/* Only what is done by mprotect() and madvise() leaves pages where they are */
static bool keeps_pages(enum kind kind)
{
	return kind <= MERGE_RIGHT_PART || kind == SPLIT_LOW || kind == SPLIT_HIGH;
}

static struct cell cell_at(int i)
{
	int round = i / KINDS;
	struct cell c = {
		.kind = i % KINDS,
		.base = (char *)START_OF(i * PITCH + LEAD),
		.advise = round & 1,
	};

	/* near: to pages 5 and 6 of the same cell */
	c.away = round & 1 ? c.base + 2 * PAGE : (char *)START_OF(FAR + i * PITCH);
	if (round & 2 && keeps_pages(c.kind))
		c.flags = MAP_POPULATE;
	return c;
}

static void layout_fix(unsigned long page, unsigned long pages, int prot, bool populated)
{
	struct fixed *f = &fixed[fixed_count++];

	f->start = START_OF(page);
	f->end = START_OF(page + pages);
	f->populated = populated;
	f->readable = prot & PROT_READ;
	f->writable = prot & PROT_WRITE;
	snprintf(f->line, sizeof(f->line), FIXED_LINE, f->start, f->end,
		 f->readable ? 'r' : '-', f->writable ? 'w' : '-', '\n');
	for (; pages; pages--)
		next_always[page++] = 1;
	if (populated) {
		populated_least += (f->end - f->start) / PAGE;
		populated_most += (f->end - f->start) / PAGE;
	}
}

static void layout_make(void)
{
	unsigned int next = ALL_PAGES, first;

	for (int i = 0; i < CELLS; i++) {
		struct cell c = cell_at(i);

		for (int page = 0; page <= LEAD; page++)
			layout_fix(i * PITCH + page, 1, page % 2 ? RO : PROT_NONE, page % 2);
		for (int page = 1; page < CELL_PAGES; page++)
			next_always[i * PITCH + LEAD + page] = kinds[c.kind].always[page] == '*';
		if (is_populated(&c)) {
			populated_least += CELL_PAGES - 1;
			populated_most += CELL_PAGES - 1;
		} else if (c.kind == STACK) {
			populated_most += CELL_PAGES - 1;
		}
	}
	layout_fix(CELLS_END, 1, PROT_NONE, false);
	layout_fix(BIG, BIG_PAGES, RW, true);
	layout_fix(BIG + BIG_PAGES, 1, PROT_NONE, false);
	layout_fix(LAST, 1, PROT_NONE, false);

	first = fixed_count;
	fixed_from[ALL_PAGES] = first;
	next_always[ALL_PAGES] = next;
	for (int page = ALL_PAGES - 1; page >= 0; page--) {
		while (first && fixed[first - 1].end > START_OF(page))
			first--;
		fixed_from[page] = first;
		if (next_always[page])
			next = page;
		next_always[page] = next;
	}
}

/* Which cell this address is in, or -1 */
static int cell_of(unsigned long addr)
{
	if (addr < SPOT || addr >= START_OF(CELLS_END))
		return -1;
	return PAGE_OF(addr) / PITCH;
}

/* The target */

enum command {
	CHANGE,
	CHANGE_BACK,
	PREPARE,
	GO,
	JOIN,
};

static int build(const void *arg __always_unused)
{
	char *big = (char *)START_OF(BIG);

	for (int i = 0; i < CELLS; i++) {
		struct cell c = cell_at(i), lead = { .base = c.base - LEAD * PAGE };

		for (int page = 0; page < LEAD; page++) {
			map_flags(&lead, page, 1, page % 2 ? RW : PROT_NONE,
				  page % 2 ? MAP_POPULATE : 0);
			if (page % 2)
				protect(&lead, page, 1, RO);
		}
		cell_set_up(&c);
	}
	must(mmap(big - PAGE, (BIG_PAGES + 2) * PAGE, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED, "mmap");
	must(mmap((void *)START_OF(LAST), PAGE, PROT_NONE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED, "mmap");
	must(mprotect(big, BIG_PAGES * PAGE, RW), "mprotect");
	/* Forks lock it as any other mapping, but need not copy its page tables */
	must(madvise(big, BIG_PAGES * PAGE, MADV_DONTFORK), "madvise");
	if (madvise(big, BIG_PAGES * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL)
		maps_die("madvise");
	memset(big, 1, BIG_PAGES * PAGE);
	return 0;
}

static void writer_nice(enum writing kind)
{
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), writings[kind].nice);
}

static void *change_cells(void *arg)
{
	int number = (long)arg;
	struct writer *w = &shared->writers[WRITE_CHANGE][number];
	unsigned int random = random_seed(READINGS + WRITE_CHANGE, number);
	int first = CELLS * number / writings[WRITE_CHANGE].count;
	int mine = CELLS * (number + 1) / writings[WRITE_CHANGE].count - first;

	writer_nice(WRITE_CHANGE);
	while (!load(&shared->stop)) {
		struct cell c = cell_at(first + random_next(&random) % mine);

		cell_change(&c);
		cell_change_back(&c);
		add(&shared->changes[c.kind], 2);
		add(&w->progress, 1);
	}
	store(&w->done, true);
	return NULL;
}

/*
 * A child lets readers open its files first, if there are any that do, so that
 * they read while it calls exec() or exits.
 */
static void young_life(struct writer *w, bool wait, bool exec)
{
	char *const args[] = { "proc-maps-torture", YOUNG_PROGRAM, NULL };
	pid_t pid = getpid();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (wait) {
		store(&w->young, pid);
		for (int i = 0; i < 200 && load(&w->young) == pid; i++)
			sched_yield();
	}
	if (exec) {
		execv("/proc/self/exe", args);
		_exit(126);
	}
	_exit(0);
}

static void bear_children(enum writing kind, int number)
{
	struct writer *w = &shared->writers[kind][number];
	unsigned int random = random_seed(READINGS + kind, number);

	writer_nice(kind);
	while (!load(&shared->stop)) {
		double start = maps_now(), pause;
		unsigned int way = random_next(&random) >> 8;
		bool wait = kind != WRITE_FORK || way & 1;
		bool exec = kind == WRITE_EXEC || (kind == WRITE_YOUNG && way & 2);
		int status;
		pid_t pid = fork();

		if (!pid)
			young_life(w, wait, exec);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			maps_die("child");
		if (status)
			store(&shared->child_status, status);
		add(&shared->children[kind], 1);
		add(&w->progress, 1);
		if (kind == WRITE_YOUNG)
			continue;
		/* fork() keeps all others out for long: leave most of the time to them */
		pause = 2 * (maps_now() - start);
		if (pause > 0.2)
			pause = 0.2;
		nanosleep(&(struct timespec) { .tv_nsec = pause * 1e9 }, NULL);
	}
	store(&w->done, true);
}

static void *fork_target(void *arg)
{
	bear_children(WRITE_FORK, (long)arg);
	return NULL;
}

static void *exec_target(void *arg)
{
	bear_children(WRITE_EXEC, (long)arg);
	return NULL;
}

static pthread_barrier_t barrier;

static void *wait_and_write(void *arg)
{
	static void *(*const write[])(void *arg) = {
		[WRITE_CHANGE]	= change_cells,
		[WRITE_FORK]	= fork_target,
		[WRITE_EXEC]	= exec_target,
	};
	long kind = (long)arg / MOST;

	pthread_barrier_wait(&barrier);
	return write[kind]((void *)((long)arg % MOST));
}

static int start_writers(pthread_t *threads)
{
	pthread_attr_t attr;
	int count = 0, err;

	for (int kind = 0; kind < WRITE_YOUNG; kind++)
		count += writings[kind].count;
	err = pthread_barrier_init(&barrier, NULL, count + 1);
	if (!err)
		err = pthread_attr_init(&attr);
	/* what they populate of their stacks makes the sums uncertain */
	if (!err)
		err = pthread_attr_setstacksize(&attr, STACK_SIZE);
	for (long kind = 0; kind < WRITE_YOUNG; kind++) {
		for (long i = 0; i < writings[kind].count && !err; i++)
			err = pthread_create(threads++, &attr, wait_and_write,
					     (void *)(kind * MOST + i));
	}
	return err;
}

static int serve(int cmd)
{
	static pthread_t threads[WRITE_YOUNG * MOST];
	int err = 0;

	switch (cmd) {
	case CHANGE:
	case CHANGE_BACK:
		for (int i = 0; i < CELLS; i++) {
			struct cell c = cell_at(i);

			if (cmd == CHANGE)
				cell_change(&c);
			else
				cell_change_back(&c);
		}
		break;
	case PREPARE:
		return start_writers(threads);
	case GO:
		pthread_barrier_wait(&barrier);
		break;
	case JOIN:
		for (int i = 0; threads[i] && !err; i++)
			err = pthread_join(threads[i], NULL);
		break;
	}
	return err;
}

/* What the children execute: some mappings, to be read while it exits */
static int young_program(void)
{
	return map_many(100) != 0;
}

/* What is found wrong */

struct note {
	size_t len;
	char text[8192];
};

static struct {
	unsigned long count;
	struct note first;
} wrong[PROPERTIES];

static pthread_mutex_t wrong_lock = PTHREAD_MUTEX_INITIALIZER;

static __printf(2, 3) void note(struct note *n, const char *fmt, ...)
{
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(n->text + n->len, sizeof(n->text) - n->len, fmt, args);
	va_end(args);
	n->len += len;
	if (n->len >= sizeof(n->text))
		n->len = sizeof(n->text) - 1;
}

static bool starts_vma(const char *line)
{
	return (*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f');
}

static const char *line_after(const char *line)
{
	const char *end = strchr(line, '\n');

	return end ? end + 1 : line + strlen(line);
}

static bool read_began_in(const struct reader *r, const char *from, const char *to)
{
	for (unsigned int i = 0; i < r->cut_count; i++) {
		if (r->text + r->cuts[i] >= from && r->text + r->cuts[i] < to)
			return true;
	}
	return false;
}

#define AROUND	4

static void note_lines(struct note *n, const struct reader *r)
{
	const char *from = r->line, *line, *next;
	int before = 0, after = 0;

	while (from > r->text && before < AROUND) {
		do {
			from--;
		} while (from > r->text && from[-1] != '\n');
		before += starts_vma(from);
	}
	note(n, "lines around it, | where a read began:\n");
	for (line = from; *line && after < AROUND; line = next) {
		next = line_after(line);
		after += line > r->line && starts_vma(line);
		/* of an entry of smaps only what the failure is about */
		if (starts_vma(line) || (line > r->line && !after))
			note(n, "%s %c %.*s", line == r->line ? "->" : "  ",
			     read_began_in(r, line, next) ? '|' : ' ',
			     (int)(next - line), line);
	}
	if (!*line)
		note(n, "   end of the file\n");
}

static void note_cell(struct note *n, unsigned long addr)
{
	int i = cell_of(addr);
	struct cell c;

	if (i < 0)
		return;
	c = cell_at(i);
	note(n, "cell %d at %lx, '%s' by %s, %s; moved to %lx; always mapped: %s\n", i,
	     (unsigned long)c.base, kinds[c.kind].name,
	     c.advise ? "madvise" : "mprotect or mmap",
	     is_populated(&c) ? "populated" : "not populated",
	     c.kind == MOVE ? (unsigned long)c.away + 3 * PAGE : 0, kinds[c.kind].always);
}

static bool is_first(enum property of)
{
	return add(&wrong[of].count, 1) == 1;
}

/* @addr is where it went wrong */
static __printf(4, 5) void is_wrong(struct reader *r, enum property of,
				    unsigned long addr, const char *fmt, ...)
{
	struct note *n = &wrong[of].first;
	char what[256];
	va_list args;

	if (!is_first(of))
		return;
	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);

	pthread_mutex_lock(&wrong_lock);
	if (r)
		note(n, "reader %d of %s, pass %lu: ", r->number, readings[r->kind].name,
		     r->passes);
	note(n, "%s\n", what);
	if (r && r->kind != READ_YOUNG)
		note_cell(n, addr);
	if (r && r->line)
		note_lines(n, r);
	pthread_mutex_unlock(&wrong_lock);
}

static void print_note(const struct note *n)
{
	for (const char *line = n->text, *next; *line; line = next) {
		next = line_after(line);
		ksft_print_msg("  %.*s\n", (int)strcspn(line, "\n"), line);
	}
}

/* What is checked of every line */

static void pass_begin(struct reader *r)
{
	r->len = 0;
	r->cut_count = 0;
	r->line = NULL;
	r->last_start = 0;
	r->last_end = 0;
	r->next_fixed = 0;
}

/* Nothing was shown from @from to @to */
static void check_gap(struct reader *r, unsigned long from, unsigned long to)
{
	unsigned int always;

	if (from < SPOT)
		from = SPOT;
	if (to > END)
		to = END;
	if (from >= to)
		return;
	always = next_always[PAGE_OF(from)];
	if (always < PAGE_OF(to))
		is_wrong(r, FALSE_GAPS, START_OF(always),
			 "gap from %lx to %lx, but %lx is always mapped", from, to,
			 START_OF(always));
	else
		r->gaps++;
}

static int fixed_find(unsigned long start, unsigned long end)
{
	unsigned int i;

	if (start < SPOT || start >= END)
		return -1;
	i = fixed_from[PAGE_OF(start)];
	return fixed[i].start == start && fixed[i].end == end ? (int)i : -1;
}

/* Whatever file it is in, a mapping is shown. Returns which fixed one it is, or -1. */
static int check_range(struct reader *r, unsigned long start, unsigned long end)
{
	int which = fixed_find(start, end);

	if (start >= end || (start | end) % PAGE) {
		is_wrong(r, READS, start, "not a range: %lx-%lx", start, end);
		return -1;
	}
	if (end <= r->last_end) {
		if (which >= 0 || (start == r->last_start && end == r->last_end))
			is_wrong(r, TWICE, start, "%lx-%lx is shown twice", start, end);
		else
			is_wrong(r, ORDER, start, "%lx-%lx after what ends at %lx", start, end,
				 r->last_end);
		return which;
	}
	if (start > r->last_end)
		check_gap(r, r->last_end, start);
	if (r->next_fixed && start < fixed[r->next_fixed - 1].end)
		is_wrong(r, FIXED, start, "%lx-%lx is over the fixed mapping at %lx", start, end,
			 fixed[r->next_fixed - 1].start);
	for (; r->next_fixed < fixed_count && fixed[r->next_fixed].start < end; r->next_fixed++) {
		if ((int)r->next_fixed != which)
			is_wrong(r, FIXED, fixed[r->next_fixed].start,
				 "not shown, or not as it is: the fixed mapping at %lx",
				 fixed[r->next_fixed].start);
	}
	r->last_start = start;
	r->last_end = end;
	return which;
}

static void check_end(struct reader *r, unsigned long end)
{
	check_gap(r, r->last_end, END);
	if (r->next_fixed < fixed_count)
		is_wrong(r, FIXED, fixed[r->next_fixed].start,
			 "not shown before the end: fixed mappings from %lx on",
			 fixed[r->next_fixed].start);
	if (end && r->last_end != end)
		is_wrong(r, FALSE_GAPS, r->last_end, "ends at %lx instead of %lx", r->last_end,
			 end);
}

static bool parse_hex(const char **at, unsigned long *value)
{
	const char *p = *at;
	unsigned long v = 0;

	for (;; p++) {
		unsigned int digit = *p - '0';

		if (digit > 9) {
			digit = *p - 'a';
			if (digit > 5)
				break;
			digit += 10;
		}
		v = v << 4 | digit;
	}
	*value = v;
	if (p == *at || p > *at + 16)
		return false;
	*at = p;
	return true;
}

static bool parse_range(const char **at, unsigned long *start, unsigned long *end)
{
	return parse_hex(at, start) && *(*at)++ == '-' && parse_hex(at, end) && *(*at)++ == ' ';
}

/*
 * The line of a mapping in maps, or the first one of an entry in smaps. Returns
 * what follows it, or NULL; @which is which fixed mapping it is, or -1.
 */
static inline const char *check_line(struct reader *r, const char *line, int *which)
{
	const struct fixed *f = &fixed[r->next_fixed];
	unsigned long start, end;
	const char *at = line;

	r->line = line;
	r->lines++;
	/* Most are the one that is expected. What is after the text is zero bytes. */
	if (r->next_fixed < fixed_count && !memcmp(line, f->line, FIXED_LEN)) {
		if (r->last_end != f->start)
			check_gap(r, r->last_end, f->start);
		r->last_start = f->start;
		r->last_end = f->end;
		*which = r->next_fixed++;
		return line + FIXED_LEN;
	}
	if (!parse_range(&at, &start, &end) || !strchr(at, '\n')) {
		is_wrong(r, READS, 0, "not a line");
		return NULL;
	}
	*which = check_range(r, start, end);
	if (*which >= 0 && memcmp(line, fixed[*which].line, FIXED_LEN))
		is_wrong(r, FIXED, start, "it should read %s", fixed[*which].line);
	return line_after(at);
}

static void check_maps(struct reader *r)
{
	const char *line = r->text;
	int which;

	while (line && *line)
		line = check_line(r, line, &which);
	if (line)
		check_end(r, quiet.last_end);
}

/* In the order in which they are printed */
enum value {
	SIZE,
	RSS,
	SHARED_CLEAN,
	SHARED_DIRTY,
	PRIVATE_CLEAN,
	PRIVATE_DIRTY,
	ANONYMOUS,
	SWAP,
	VALUES,
};

static const struct {
	const char *name;
	int len;
} values[] = {
	[SIZE]		= { "Size:", 5 },
	[RSS]		= { "Rss:", 4 },
	[SHARED_CLEAN]	= { "Shared_Clean:", 13 },
	[SHARED_DIRTY]	= { "Shared_Dirty:", 13 },
	[PRIVATE_CLEAN]	= { "Private_Clean:", 14 },
	[PRIVATE_DIRTY]	= { "Private_Dirty:", 14 },
	[ANONYMOUS]	= { "Anonymous:", 10 },
	[SWAP]		= { "Swap:", 5 },
};

/*
 * Reads lines until the next entry, values from @first on. Returns what follows,
 * and the last line; NULL if a value is missing.
 */
static const char *parse_values(const char *line, unsigned long *value, enum value first,
				const char **last)
{
	unsigned int next = first;

	*last = line;
	while (*line && !starts_vma(line)) {
		const char *end = strchr(line, '\n');

		if (!end)
			return NULL;
		if (next < VALUES && !memcmp(line, values[next].name, values[next].len)) {
			const char *p = line + values[next].len;

			while (*p == ' ')
				p++;
			value[next] = 0;
			while (*p >= '0' && *p <= '9')
				value[next] = 10 * value[next] + *p++ - '0';
			next++;
		}
		*last = line;
		line = end + 1;
	}
	return next == VALUES ? line : NULL;
}

static bool adds_up(const unsigned long *value)
{
	return value[RSS] == value[SHARED_CLEAN] + value[SHARED_DIRTY] +
			     value[PRIVATE_CLEAN] + value[PRIVATE_DIRTY];
}

static const char *check_values(struct reader *r, const char *line, int which)
{
	unsigned long value[VALUES], size = (r->last_end - r->last_start) >> 10;
	int cell = cell_of(r->last_start);
	const char *next, *last;
	bool full, empty;
	struct cell c;

	/* nothing in it depends on anything */
	if (which >= 0 && !fixed[which].populated) {
		if (!memcmp(line, quiet.smaps.data + quiet.bare, quiet.bare_len))
			return line + quiet.bare_len;
	}
	next = parse_values(line, value, SIZE, &last);
	if (!next) {
		is_wrong(r, SMAPS, r->last_start, "values are missing");
		return NULL;
	}

	if (which >= 0) {
		full = fixed[which].populated;
		empty = !full;
		if (empty)
			is_wrong(r, SMAPS, r->last_start, "of a fixed, empty mapping it says else");
		else if (fixed[which].end == fixed[which].start + PAGE &&
			 memcmp(last, quiet.smaps.data + quiet.flags, quiet.flags_len))
			is_wrong(r, SMAPS, r->last_start, "flags of a fixed mapping have changed");
	} else {
		full = false;
		empty = false;
		if (cell >= 0) {
			c = cell_at(cell);
			full = is_populated(&c);
			empty = !full && c.kind != STACK;
		}
	}
	if (value[SIZE] != size)
		is_wrong(r, SMAPS, r->last_start, "Size %lu kB in a range of %lu kB", value[SIZE],
			 size);
	if (value[RSS] > size || value[ANONYMOUS] > value[RSS] || !adds_up(value))
		is_wrong(r, SMAPS, r->last_start, "it does not add up");
	if (full && (value[RSS] + value[SWAP] != size || value[ANONYMOUS] != value[RSS]))
		is_wrong(r, SMAPS, r->last_start, "all %lu kB are populated", size);
	if (empty && value[RSS] + value[SWAP])
		is_wrong(r, SMAPS, r->last_start, "nothing is populated");
	return next;
}

static void check_smaps(struct reader *r)
{
	const char *line = r->text;
	unsigned long last_end;
	int which;

	while (line && *line) {
		last_end = r->last_end;
		line = check_line(r, line, &which);
		/* the range is only known if it was taken for right */
		if (line && r->last_end != last_end)
			line = check_values(r, line, which);
		else
			while (line && *line && !starts_vma(line))
				line = line_after(line);
	}
	if (line)
		check_end(r, quiet.last_end);
}

static void check_rollup(struct reader *r)
{
	const char *line = r->text, *last;
	unsigned long start, end, value[VALUES];

	r->line = line;
	if (!parse_range(&line, &start, &end)) {
		is_wrong(r, READS, 0, "not a line");
		return;
	}
	line = parse_values(line_after(line), value, RSS, &last);
	if (!line || *line) {
		is_wrong(r, ROLLUP, 0, "values are missing or there is more");
		return;
	}
	if (start != quiet.start || end != quiet.vma_end)
		is_wrong(r, ROLLUP, 0, "range is not %lx-%lx", quiet.start, quiet.vma_end);
	if (!adds_up(value) || value[ANONYMOUS] > value[RSS])
		is_wrong(r, ROLLUP, 0, "it does not add up");
	if (value[ANONYMOUS] + value[SWAP] < populated_least * (PAGE >> 10))
		is_wrong(r, ROLLUP, 0, "%lu kB are always populated",
			 populated_least * (PAGE >> 10));
	if (value[RSS] + value[SWAP] > populated_most * (PAGE >> 10))
		is_wrong(r, ROLLUP, 0, "no more than %lu kB were ever populated",
			 populated_most * (PAGE >> 10));
	r->lines++;
}

static void check_numa_line(struct reader *r, const char *rest, const struct fixed *f)
{
	static const char name[] = " anon=";
	unsigned long pages = 0, all = (f->end - f->start) / PAGE;
	const char *at, *end = strchr(rest, '\n');

	if (!f->populated) {
		if (memcmp(rest, quiet.numa.data + quiet.numa_bare, quiet.numa_bare_len))
			is_wrong(r, NUMA, f->start, "of a fixed, empty mapping it says else");
		return;
	}
	at = memmem(rest, end - rest, name, strlen(name));
	if (at) {
		for (at += strlen(name); *at >= '0' && *at <= '9'; at++)
			pages = 10 * pages + *at - '0';
	}
	if (pages > all || (pages < all && !quiet.swap))
		is_wrong(r, NUMA, f->start, "all %lu pages are populated", all);
}

/* There are no ends in it, so only the fixed mappings tell where it is */
static void check_numa(struct reader *r)
{
	const char *line = r->text, *at;
	unsigned long start;

	for (; *line; line = line_after(at)) {
		at = line;
		r->line = line;
		r->lines++;
		if (!parse_hex(&at, &start) || *at != ' ' || !strchr(at, '\n')) {
			is_wrong(r, READS, 0, "not a line");
			return;
		}
		if (r->next_fixed && start < fixed[r->next_fixed - 1].end) {
			int which = fixed_from[start < SPOT ? 0 : PAGE_OF(start)];

			is_wrong(r, fixed[which].start == start ? TWICE : ORDER, start,
				 "%lx after %lx", start, fixed[r->next_fixed - 1].start);
			continue;
		}
		for (; r->next_fixed < fixed_count && fixed[r->next_fixed].start <= start;
		     r->next_fixed++) {
			if (fixed[r->next_fixed].start == start)
				check_numa_line(r, at, &fixed[r->next_fixed]);
			else
				is_wrong(r, FIXED, start, "not shown: the fixed mapping at %lx",
					 fixed[r->next_fixed].start);
		}
	}
	if (r->next_fixed < fixed_count)
		is_wrong(r, FIXED, fixed[r->next_fixed].start,
			 "not shown before the end: fixed mappings from %lx on",
			 fixed[r->next_fixed].start);
}

/* Readers */

static bool read_more(void)
{
	return !load(&shared->stop);
}

/* Read all of a file into r->text. Returns errno, or -1 if it was told to stop. */
static int read_text(struct reader *r, int fd)
{
	size_t least, most;
	ssize_t n;

	switch (random_next(&r->random) >> 8 & 7) {
	case 0:
		least = 40;	/* a line or two */
		most = 400;
		break;
	case 1:
	case 2:
	case 3:
		least = PAGE;
		most = PAGE;
		break;
	default:
		least = PAGE;
		most = READ_MAX;
		break;
	}
	pass_begin(r);
	do {
		size_t size = least + (random_next(&r->random) >> 8) % (most - least + 1);

		if (!read_more())
			return -1;
		if (r->len + READ_MAX + FIXED_LEN > TEXT_SIZE) {
			r->text[r->len] = '\0';
			is_wrong(r, READS, 0, "the file has no end");
			return -1;
		}
		n = read(fd, r->text + r->len, size);
		if (n < 0)
			return errno;
		if (r->cut_count < ARRAY_SIZE(r->cuts))
			r->cuts[r->cut_count++] = r->len;
		r->len += n;
		store(&r->progress, r->progress + 1);
	} while (n);
	memset(r->text + r->len, 0, FIXED_LEN);
	return 0;
}

static void read_file(struct reader *r, const char *name, void (*check)(struct reader *r))
{
	int fd = -1, err = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", r->target, name);
	while (read_more()) {
		if (fd >= 0 && !(random_next(&r->random) >> 8 & 15)) {
			close(fd);
			fd = -1;
		}
		if (fd < 0)
			fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || lseek(fd, 0, SEEK_SET))
			err = errno;
		if (!err)
			err = read_text(r, fd);
		if (err)
			break;
		check(r);
		store(&r->passes, r->passes + 1);
	}
	if (err > 0) {
		r->line = NULL;
		is_wrong(r, READS, 0, "%s: %s", name, strerror(err));
	}
	if (fd >= 0)
		close(fd);
}

static bool is_fixed_answer(const struct procmap_query *q, const struct fixed *f)
{
	unsigned long flags = (f->readable ? PROCMAP_QUERY_VMA_READABLE : 0) |
			      (f->writable ? PROCMAP_QUERY_VMA_WRITABLE : 0);

	return q->vma_start == f->start && q->vma_end == f->end && q->vma_flags == flags &&
	       q->vma_page_size == PAGE && !q->vma_offset && !q->inode && !q->dev_major &&
	       !q->dev_minor && !q->vma_name_size;
}

static void query_init(struct reader *r, struct procmap_query *q, unsigned long addr, bool next)
{
	static __thread char name[4096];

	*q = (struct procmap_query) {
		.size = sizeof(*q),
		.query_addr = addr,
		.query_flags = next ? PROCMAP_QUERY_COVERING_OR_NEXT_VMA : 0,
	};
	if (random_next(&r->random) >> 8 & 1) {
		q->vma_name_addr = (uintptr_t)name;
		q->vma_name_size = sizeof(name);
	}
}

static void query_all(struct reader *r, int fd)
{
	struct procmap_query q;
	unsigned long addr = 0;

	while (read_more()) {
		pass_begin(r);
		for (;;) {
			int which;

			query_init(r, &q, r->last_end, true);
			if (ioctl(fd, PROCMAP_QUERY, &q))
				break;
			store(&r->progress, r->progress + 1);
			r->lines++;
			addr = r->last_end;
			which = check_range(r, q.vma_start, q.vma_end);
			if (r->last_end == addr) {
				is_wrong(r, QUERIES, addr, "after %lx, the answer is %llx-%llx",
					 addr, q.vma_start, q.vma_end);
				return;
			}
			if (which >= 0 && !is_fixed_answer(&q, &fixed[which]))
				is_wrong(r, QUERIES, addr,
					 "after %lx: not all of the answer %llx-%llx is right",
					 addr, q.vma_start, q.vma_end);
		}
		if (errno != ENOENT) {
			is_wrong(r, QUERIES, r->last_end, "after %lx: %s", r->last_end,
				 strerror(errno));
			return;
		}
		check_end(r, quiet.query_end);
		store(&r->passes, r->passes + 1);
	}
}

static void check_answer(struct reader *r, unsigned long addr, bool next,
			 const struct procmap_query *q)
{
	unsigned long start = q->vma_start, end = q->vma_end;
	const struct fixed *f = &fixed[fixed_from[PAGE_OF(addr)]];

	if (start >= end || end <= addr || (start > addr && !next))
		is_wrong(r, QUERIES, addr, "at %lx: %lx-%lx is not there", addr, start, end);
	else if (start > addr && START_OF(next_always[PAGE_OF(addr)]) < start)
		is_wrong(r, QUERIES, addr, "from %lx: %lx-%lx, but %lx is always mapped", addr,
			 start, end, START_OF(next_always[PAGE_OF(addr)]));
	else if (f->start < end && !is_fixed_answer(q, f))
		is_wrong(r, QUERIES, addr, "at %lx: %lx-%lx is over the fixed mapping at %lx",
			 addr, start, end, f->start);
	else if (start > addr)
		r->gaps++;
}

static void query_random(struct reader *r, int fd)
{
	while (read_more()) {
		/* half of them where the cells are */
		unsigned long in = random_next(&r->random) >> 8 & 1 ? CELLS_END : ALL_PAGES;
		unsigned long page = (random_next(&r->random) >> 4) % in;
		unsigned long addr = START_OF(page) + (random_next(&r->random) >> 8) % PAGE;
		bool next = random_next(&r->random) >> 8 & 1;
		struct procmap_query q;

		query_init(r, &q, addr, next);
		if (!ioctl(fd, PROCMAP_QUERY, &q))
			check_answer(r, addr, next, &q);
		else if (errno != ENOENT)
			is_wrong(r, QUERIES, addr, "at %lx: %s", addr, strerror(errno));
		else if (next || next_always[page] == page)
			is_wrong(r, QUERIES, addr, "%lx is always mapped, but there is nothing%s",
				 addr, next ? " from there on" : "");
		r->lines++;
		store(&r->progress, r->progress + 1);
		if (!(r->lines & 1023))
			store(&r->passes, r->passes + 1);
	}
}

static void read_queries(struct reader *r, void (*ask)(struct reader *r, int fd))
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", r->target);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		is_wrong(r, QUERIES, 0, "%s: %s", path, strerror(errno));
		return;
	}
	ask(r, fd);
	close(fd);
}

static bool file_exists[FILES];

/* Only that ends rise */
static void check_young(struct reader *r, enum file file)
{
	unsigned long start, end;

	for (const char *line = r->text, *at; *line; line = line_after(line)) {
		if (!starts_vma(line))
			continue;
		r->line = line;
		r->lines++;
		at = line;
		if (file == NUMA_FILE) {
			if (!parse_hex(&at, &start))
				is_wrong(r, READS, 0, "not a line");
			continue;
		}
		if (!parse_range(&at, &start, &end) || start >= end || !strchr(at, '\n'))
			is_wrong(r, READS, 0, "not a line");
		else if (end <= r->last_end)
			is_wrong(r, ORDER, 0, "after what ends at %lx", r->last_end);
		r->last_end = end;
	}
}

static void read_young(struct reader *r)
{
	struct writer *all[] = { shared->writers[WRITE_FORK], shared->writers[WRITE_EXEC],
				 shared->writers[WRITE_YOUNG] };
	int counts[] = { writings[WRITE_FORK].count, writings[WRITE_EXEC].count,
			 writings[WRITE_YOUNG].count };

	while (read_more()) {
		unsigned int random = random_next(&r->random) >> 8;
		unsigned int kind = random % ARRAY_SIZE(all);
		enum file file = random / 4 % FILES;
		struct writer *w;
		int fd, err;
		char path[64];
		pid_t pid;

		store(&r->progress, r->progress + 1);
		w = counts[kind] ? &all[kind][random / 16 % counts[kind]] : NULL;
		pid = w ? load(&w->young) : 0;
		if (!pid || !file_exists[file]) {
			sched_yield();
			continue;
		}
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, file_name[file]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		err = fd < 0 ? errno : 0;
		__atomic_compare_exchange_n(&w->young, &pid, 0, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
		if (!err) {
			err = read_text(r, fd);
			close(fd);
		} else if (err == ENOENT) {
			continue;
		}
		if (!err) {
			check_young(r, file);
			/* it may have been gone before */
			if (r->len)
				store(&r->passes, r->passes + 1);
		} else if (err > 0 && err != ESRCH) {
			r->line = NULL;
			is_wrong(r, READS, 0, "%s: %s", path, strerror(err));
			break;
		}
	}
}

static void *read_forever(void *arg)
{
	struct reader *r = arg;

	setpriority(PRIO_PROCESS, syscall(SYS_gettid), readings[r->kind].nice);
	switch (r->kind) {
	case READ_MAPS:
		read_file(r, file_name[MAPS_FILE], check_maps);
		break;
	case READ_SMAPS:
		read_file(r, file_name[SMAPS_FILE], check_smaps);
		break;
	case READ_ROLLUP:
		read_file(r, file_name[ROLLUP_FILE], check_rollup);
		break;
	case READ_NUMA:
		read_file(r, file_name[NUMA_FILE], check_numa);
		break;
	case READ_QUERIES:
		read_queries(r, query_all);
		break;
	case READ_RANDOM:
		read_queries(r, query_random);
		break;
	default:
		read_young(r);
		break;
	}
	store(&r->done, true);
	return NULL;
}

/* While nothing changes */

/* Returns errno; the text ends in a zero byte */
static int file_read(pid_t pid, const char *name, struct text *text)
{
	char path[64];
	int fd, err;

	text->len = 0;
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = text_read(text, fd);
	close(fd);
	text_append(text, "", 1);
	text->len--;
	return err;
}

static void quiet_read(pid_t pid, const char *name, struct text *text)
{
	int err = file_read(pid, name, text);

	if (err)
		ksft_exit_fail_msg("%s of the target: %s\n", name, strerror(err));
}

/* Are the cells what the table says? */
static void quiet_check(pid_t pid, bool between)
{
	int mappings[CELLS] = {};
	struct text text = {};
	unsigned long start, end;

	quiet_read(pid, "maps", &text);
	for (const char *line = text.data, *at; *line; line = line_after(line)) {
		at = line;
		if (!parse_range(&at, &start, &end))
			ksft_exit_fail_msg("not a line: %.60s\n", line);
		if (cell_of(start) >= 0 && PAGE_OF(start) % PITCH > LEAD)
			mappings[cell_of(start)]++;
	}
	for (int i = 0; i < CELLS; i++) {
		struct cell c = cell_at(i);
		int expected = between ? kinds[c.kind].between : kinds[c.kind].before;

		/* not moved out of the cell */
		if (between && c.kind == MOVE && cell_of((unsigned long)c.away) == i)
			expected++;
		if (mappings[i] != expected)
			ksft_exit_fail_msg("cell %d, '%s', has %d mappings instead of %d, %s\n", i,
					   kinds[c.kind].name, mappings[i], expected,
					   between ? "changed" : "not changed");
	}
	text_free(&text);
}

static size_t find(const struct text *text, const char *what, const char *name)
{
	const char *at = memmem(text->data, text->len, what, strlen(what));

	if (!at)
		ksft_exit_fail_msg("%s of the target does not have %s", name, what);
	return at - text->data;
}

static void quiet_smaps(pid_t pid)
{
	const char *line, *last;
	unsigned long ignored[VALUES];

	quiet_read(pid, "smaps", &quiet.smaps);
	quiet.bare = find(&quiet.smaps, fixed[0].line, "smaps") + FIXED_LEN;
	line = parse_values(quiet.smaps.data + quiet.bare, ignored, SIZE, &last);
	if (!line || ignored[RSS])
		ksft_exit_fail_msg("cannot understand smaps of the target\n");
	quiet.bare_len = line - quiet.smaps.data - quiet.bare;

	line = quiet.smaps.data + find(&quiet.smaps, fixed[1].line, "smaps") + FIXED_LEN;
	line = parse_values(line, ignored, SIZE, &last);
	if (!line)
		ksft_exit_fail_msg("cannot understand smaps of the target\n");
	quiet.flags = last - quiet.smaps.data;
	quiet.flags_len = line - last;
}

static void quiet_numa(pid_t pid)
{
	char what[32];

	quiet_read(pid, "numa_maps", &quiet.numa);
	snprintf(what, sizeof(what), "\n%08lx ", fixed[2].start);
	quiet.numa_bare = find(&quiet.numa, what, "numa_maps") + strlen(what) - 1;
	quiet.numa_bare_len = line_after(quiet.numa.data + quiet.numa_bare) -
			      quiet.numa.data - quiet.numa_bare;
}

/* Returns whether there is such a thing as PROCMAP_QUERY */
static bool quiet_queries(pid_t pid)
{
	struct procmap_query q = { .size = sizeof(q) };
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		ksft_exit_fail_perror(path);
	do {
		quiet.query_end = q.vma_end;
		q = (struct procmap_query) {
			.size = sizeof(q),
			.query_addr = quiet.query_end,
			.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
		};
	} while (!ioctl(fd, PROCMAP_QUERY, &q));
	close(fd);
	return errno != ENOTTY;
}

static void quiet_maps(pid_t pid)
{
	struct text text = {}, swaps = {};
	unsigned long start, end;

	quiet_read(pid, "maps", &text);
	for (const char *line = text.data, *at; *line; line = line_after(line)) {
		at = line;
		if (!parse_range(&at, &start, &end))
			ksft_exit_fail_msg("not a line: %.60s\n", line);
		if (line == text.data)
			quiet.start = start;
		quiet.last_end = end;
		if (!strncmp(strchr(at, '\n') - strlen("[vsyscall]"), "[vsyscall]", 10))
			continue;
		quiet.vma_end = end;
		/* all of what is not in the layout, for what is populated of it may change */
		if (start < SPOT || start >= END)
			populated_most += (end - start) / PAGE;
	}
	text_free(&text);
	if (!file_read(getpid(), "../swaps", &swaps))
		quiet.swap = text_lines(&swaps) > 1;
	text_free(&swaps);
}

/* What the kernel counts */

static const char *const counters[] = {
	"vma_walk_retry",
	"vma_walk_fallback_contended",
	"vma_walk_fallback_detached",
	"vma_walk_fallback_behind",
	"vma_walk_fallback_gap",
	"vma_walk_fallback_end",
	"vma_walk_fallback_overflow",
	"vma_walk_give_way",
};

static void counters_read(long *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		value[i] = maps_counter(counters[i]);
}

/* The events of the walk would be reported here as well. */
static void counters_print(const long *before)
{
	long after[ARRAY_SIZE(counters)];

	counters_read(after);
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		if (before[i] >= 0 && after[i] >= 0)
			ksft_print_msg("%s %ld\n", counters[i], after[i] - before[i]);
	}
}

/* The run */

static unsigned long lines_of(enum reading kind)
{
	unsigned long lines = 0;

	for (int i = 0; i < readings[kind].count; i++)
		lines += load(&readers[kind][i]->lines);
	return lines;
}

/* Without those of which only the order is known */
static unsigned long lines_checked(void)
{
	return lines_of(READ_MAPS) + lines_of(READ_SMAPS) + lines_of(READ_NUMA);
}

struct watch {
	unsigned long progress;
	double since;
};

static bool is_stuck(struct watch *w, const unsigned long *progress, const bool *done,
		     const char *what, const char *kind, int number)
{
	unsigned long progress_now = load(progress);

	if (!w->since || progress_now != w->progress || load(done)) {
		w->progress = progress_now;
		w->since = maps_now();
		return false;
	}
	if (maps_now() - w->since < STUCK)
		return false;
	is_wrong(NULL, FINISH, 0, "%s %d of %s makes no progress for %d seconds", what, number,
		 kind, STUCK);
	return true;
}

/* Returns whether somebody is stuck; @running is how many have not finished. */
static bool watch_all(int *running)
{
	static struct watch watch_readers[READINGS][MOST], watch_writers[WRITINGS][MOST];
	bool stuck = false;

	*running = 0;
	for (int kind = 0; kind < READINGS; kind++) {
		for (int i = 0; i < readings[kind].count; i++) {
			struct reader *r = readers[kind][i];

			*running += !load(&r->done);
			stuck |= is_stuck(&watch_readers[kind][i], &r->progress, &r->done,
					  "reader", readings[kind].name, i);
		}
	}
	for (int kind = 0; kind < WRITINGS; kind++) {
		for (int i = 0; i < writings[kind].count; i++) {
			struct writer *w = &shared->writers[kind][i];

			*running += !load(&w->done);
			stuck |= is_stuck(&watch_writers[kind][i], &w->progress, &w->done,
					  "writer", writings[kind].name, i);
		}
	}
	return stuck;
}

/* Of each kind one a second, but none for the time that is added for who is slow */
static double changes_wanted(double took)
{
	return took < options.seconds ? took : options.seconds;
}

static bool all_have_worked(double took)
{
	for (int kind = 0; kind < READINGS; kind++) {
		for (int i = 0; i < readings[kind].count; i++) {
			if (!load(&readers[kind][i]->passes) && !load(&readers[kind][i]->done))
				return false;
		}
	}
	for (int kind = 0; kind < WRITINGS; kind++) {
		for (int i = 0; i < writings[kind].count; i++) {
			if (!load(&shared->writers[kind][i].progress))
				return false;
		}
	}
	for (int kind = 0; kind < KINDS && writings[WRITE_CHANGE].count; kind++) {
		if (load(&shared->changes[kind]) < changes_wanted(took))
			return false;
	}
	return true;
}

/* Time is up, or enough was read. Whoever is slow gets some more time to begin with. */
static bool is_enough(double took)
{
	if (took >= options.seconds + STUCK)
		return true;
	return (took >= options.seconds ||
		(options.lines && lines_checked() >= options.lines)) && all_have_worked(took);
}

/* Returns the seconds it took; *@finished if all came to an end */
static double run(pid_t target, bool *finished)
{
	struct itimerval tick = { { .tv_usec = 100000 }, { .tv_usec = 100000 } };
	double start = maps_now(), elapsed, took = 0;
	siginfo_t info;
	int running;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	if (setitimer(ITIMER_REAL, &tick, NULL))
		ksft_exit_fail_perror("setitimer");
	for (;;) {
		int sig = sigwaitinfo(&set, &info);

		if (sig < 0 && errno != EINTR)
			ksft_exit_fail_perror("sigwaitinfo");
		*finished = false;
		if (watch_all(&running))
			break;
		info.si_pid = 0;
		if (waitid(P_PID, target, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid) {
			is_wrong(NULL, FINISH, 0, "the target died");
			break;
		}
		*finished = !running;
		if (*finished)
			break;
		elapsed = maps_now() - start;
		if (!took && is_enough(elapsed)) {
			took = elapsed;
			store(&shared->stop, true);
		}
	}
	store(&shared->stop, true);
	return took ?: maps_now() - start;
}

static void print_report(double took, const long *before)
{
	unsigned long lines = lines_checked(), gaps = 0;

	for (int kind = 0; kind < READINGS; kind++) {
		char passes[512] = "";
		int len = 0;

		if (!readings[kind].count)
			continue;
		for (int i = 0; i < readings[kind].count; i++) {
			gaps += readers[kind][i]->gaps;
			if (len < (int)sizeof(passes) - 24)
				len += sprintf(passes + len, " %lu", readers[kind][i]->passes);
		}
		ksft_print_msg("%s: %lu %s, passes%s\n", readings[kind].name, lines_of(kind),
			       readings[kind].what, passes);
	}
	ksft_print_msg("in all: %lu lines checked in %.1f s, %.0f each second\n", lines, took,
		       lines / took);
	ksft_print_msg("gaps %lu, false gaps %lu, twice %lu, backward %lu\n", gaps,
		       wrong[FALSE_GAPS].count, wrong[TWICE].count, wrong[ORDER].count);
	for (int kind = 0; kind < KINDS; kind++)
		ksft_print_msg("changes: %s %lu\n", kinds[kind].name, shared->changes[kind]);
	for (int kind = WRITE_FORK; kind < WRITINGS; kind++)
		ksft_print_msg("children: %s %lu\n", writings[kind].name, shared->children[kind]);
	counters_print(before);
}

/* Did each do something, for what else is found says nothing otherwise? */
static void check_work(double took)
{
	for (int kind = 0; kind < KINDS && writings[WRITE_CHANGE].count; kind++) {
		if (shared->changes[kind] < changes_wanted(took))
			is_wrong(NULL, CHANGES, 0, "'%s' was changed %lu times in %.0f seconds",
				 kinds[kind].name, shared->changes[kind], took);
	}
	for (int kind = WRITE_FORK; kind < WRITINGS; kind++) {
		for (int i = 0; i < writings[kind].count; i++) {
			if (!shared->writers[kind][i].progress)
				is_wrong(NULL, CHANGES, 0, "writer %d of %s had no child", i,
					 writings[kind].name);
		}
	}
	if (shared->child_status)
		is_wrong(NULL, CHANGES, 0, "a child ended with status %#x", shared->child_status);
	for (int kind = 0; kind < READINGS; kind++) {
		for (int i = 0; i < readings[kind].count; i++) {
			if (!readers[kind][i]->passes)
				is_wrong(NULL, FINISH, 0, "reader %d of %s made no pass", i,
					 readings[kind].name);
		}
	}
	if (options.lines && lines_checked() < options.lines)
		is_wrong(NULL, LINES, 0, "%lu, fewer than %lu, in %.0f seconds", lines_checked(),
			 options.lines, took);
}

static void print_results(void)
{
	for (int i = 0; i < PROPERTIES; i++) {
		const char *missing = NULL;

		if (i == SMAPS && !readings[READ_SMAPS].count)
			missing = "smaps";
		if (i == ROLLUP && !readings[READ_ROLLUP].count)
			missing = "smaps_rollup";
		if (i == NUMA && !readings[READ_NUMA].count)
			missing = "numa_maps";
		if (i == QUERIES && !readings[READ_QUERIES].count && !readings[READ_RANDOM].count)
			missing = "PROCMAP_QUERY";
		if (i == CHANGES && !writings[WRITE_CHANGE].count)
			missing = "changes";
		if (missing) {
			ksft_test_result_skip("%s: no reader or writer of %s\n", property_name[i],
					      missing);
			continue;
		}
		if (wrong[i].count) {
			ksft_print_msg("%s: wrong %lu times, first:\n", property_name[i],
				       wrong[i].count);
			print_note(&wrong[i].first);
		}
		ksft_test_result(!wrong[i].count, "%s\n", property_name[i]);
	}
}

/* The switch */

static pid_t test_pid;
static char switch_before;

static void switch_restore(void)
{
	if (switch_before && getpid() == test_pid &&
	    pwrite(maps_switch, &switch_before, 1, 0) != 1)
		_exit(KSFT_FAIL);
}

static void die_of(int sig)
{
	switch_restore();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Returns who serves */
static const char *switch_set(void)
{
	const char *cannot = maps_cannot_test();
	char value;

	test_pid = getpid();
	if (!options.impl) {
		if (cannot)
			return "the only implementation there is";
		if (pread(maps_switch, &value, 1, 0) != 1)
			ksft_exit_fail_perror(MAPS_SWITCH);
		return maps_impl_name[value == 'Y' ? MAPS_RUST : MAPS_C];
	}
	if (cannot)
		ksft_exit_fail_msg("-i %s: %s\n", options.impl, cannot);
	if (pread(maps_switch, &value, 1, 0) != 1)
		ksft_exit_fail_perror(MAPS_SWITCH);
	switch_before = value;
	signal(SIGINT, die_of);
	signal(SIGTERM, die_of);
	signal(SIGABRT, die_of);
	atexit(switch_restore);
	maps_switch_set(!strcmp(options.impl, "rust") ? 'Y' : 'N');
	return maps_impl_name[strcmp(options.impl, "rust") ? MAPS_C : MAPS_RUST];
}

/* Options */

static __noreturn __printf(1, 2) void bad_argument(const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", options.program);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	exit(KSFT_FAIL);
}

static unsigned long parse_number(int option, const char *text, unsigned long least,
				  unsigned long most)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
		bad_argument("-%c takes a number from %lu to %lu, not '%s'", option, least, most,
			     text);
	return value;
}

/* KIND=NUMBER, or NUMBER for all kinds */
static void set_counts(int option, const char *text)
{
	const char *is = strchr(text, '=');
	int count = parse_number(option, is ? is + 1 : text, 0, MOST);
	int kinds_count = option == 'r' ? (int)READINGS : (int)WRITINGS;
	bool found = !is;

	for (int i = 0; i < kinds_count; i++) {
		const char *name = option == 'r' ? readings[i].name : writings[i].name;

		if (is && (strlen(name) != (size_t)(is - text) || strncmp(name, text, is - text)))
			continue;
		found = true;
		if (option == 'r')
			readings[i].count = count;
		else
			writings[i].count = count;
	}
	if (!found)
		bad_argument("-%c: there is no kind '%.*s'", option, (int)(is - text), text);
}

static void print_usage(void)
{
	printf("Usage: %s [OPTION...]\n"
	       "Read maps and the like of a process that changes, and check each line.\n"
	       "  -l LINES       stop after so many lines of maps, smaps and numa_maps; fewer\n"
	       "                 at the end of the time is a failure\n"
	       "  -t SECONDS     stop after that time (15; with -l 3600)\n"
	       "  -r [KIND=]N    N readers of a kind, or of each (0 to %d), now",
	       options.program, MOST);
	for (int i = 0; i < READINGS; i++)
		printf("%s%s=%d", i % 4 ? " " : "\n                 ", readings[i].name,
		       readings[i].count);
	printf("\n  -w [KIND=]N    the same for writers, now\n                ");
	for (int i = 0; i < WRITINGS; i++)
		printf(" %s=%d", writings[i].name, writings[i].count);
	printf("\n  -s SEED        what readers and writers do at random is repeated\n"
	       "  -i rust|c      which implementation (as the switch is)\n"
	       "  -h, --help     this\n");
}

static void options_parse(int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'h' }, {} };
	struct timespec t;
	int option;

	clock_gettime(CLOCK_REALTIME, &t);
	options.program = argv[0];
	options.seed = t.tv_nsec ^ t.tv_sec ^ getpid();
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":l:t:r:w:s:i:h", longs, NULL)) != -1) {
		switch (option) {
		case 'l':
			options.lines = parse_number(option, optarg, 1, LONG_MAX);
			break;
		case 't':
			options.seconds = parse_number(option, optarg, 1, 7 * 86400);
			break;
		case 'r':
		case 'w':
			set_counts(option, optarg);
			break;
		case 's':
			options.seed = parse_number(option, optarg, 0, UINT_MAX);
			break;
		case 'i':
			if (strcmp(optarg, "rust") && strcmp(optarg, "c"))
				bad_argument("-i takes rust or c, not '%s'", optarg);
			options.impl = optarg;
			break;
		case 'h':
			print_usage();
			exit(KSFT_PASS);
		case ':':
			bad_argument("-%c lacks its argument", optopt);
		default:
			bad_argument("there is no option '%s', see --help", argv[optind - 1]);
		}
	}
	if (optind < argc)
		bad_argument("'%s' is not an option, see --help", argv[optind]);
	if (!options.seconds)
		options.seconds = options.lines ? 3600 : 15;
	if (options.lines && !(readings[READ_MAPS].count + readings[READ_SMAPS].count +
			       readings[READ_NUMA].count))
		bad_argument("-l needs a reader of maps, smaps or numa_maps");
	if (readings[READ_YOUNG].count && !writings[WRITE_YOUNG].count)
		bad_argument("readers of young processes need a writer of kind young");
}

static void *reader_memory(size_t size)
{
	void *p = mmap(NULL, size, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	return p;
}

static void start_readers(pid_t target)
{
	for (int kind = 0; kind < READINGS; kind++) {
		for (int i = 0; i < readings[kind].count; i++) {
			struct reader *r = reader_memory(sizeof(*r));

			r->kind = kind;
			r->number = i;
			r->target = target;
			r->random = random_seed(kind, i);
			r->text = reader_memory(TEXT_SIZE);
			readers[kind][i] = r;
			errno = pthread_create(&r->thread, NULL, read_forever, r);
			if (errno)
				ksft_exit_fail_perror("pthread_create");
		}
	}
}

/* A small process, not the target */
static void start_young(void)
{
	pid_t parent = getpid();

	for (int i = 0; i < writings[WRITE_YOUNG].count; i++) {
		pid_t pid = fork();

		if (pid < 0)
			ksft_exit_fail_perror("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			bear_children(WRITE_YOUNG, i);
		_exit(0);
	}
}

/* Readers and results of what this kernel does not have are left out. */
static void find_files(pid_t target)
{
	for (int i = 0; i < FILES; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/%s", target, file_name[i]);
		file_exists[i] = !access(path, R_OK);
	}
	if (!file_exists[SMAPS_FILE])
		readings[READ_SMAPS].count = 0;
	if (!file_exists[ROLLUP_FILE])
		readings[READ_ROLLUP].count = 0;
	if (!file_exists[NUMA_FILE])
		readings[READ_NUMA].count = 0;
}

int main(int argc, char **argv)
{
	static struct target target;
	long before[ARRAY_SIZE(counters)];
	const char *impl;
	bool finished;
	sigset_t set;
	double took;

	if (argc == 2 && !strcmp(argv[1], YOUNG_PROGRAM))
		return young_program();
	options_parse(argc, argv);
	ksft_print_header();
	if (sysconf(_SC_PAGESIZE) != PAGE)
		ksft_exit_skip("pages are not 4 KiB\n");
	impl = switch_set();
	ksft_set_plan(PROPERTIES);
	ksft_print_msg("%s, seed %u\n", impl, options.seed);

	layout_make();
	shared = mmap(NULL, sizeof(*shared), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	if (target_start(&target, build, serve, NULL))
		ksft_exit_fail_msg("cannot build the target\n");
	quiet_check(target.pid, false);
	target_do(&target, CHANGE);
	quiet_check(target.pid, true);
	target_do(&target, CHANGE_BACK);
	quiet_check(target.pid, false);

	errno = target_do(&target, PREPARE);
	if (errno)
		ksft_exit_fail_perror("threads of the target");
	find_files(target.pid);
	quiet_maps(target.pid);
	if (file_exists[SMAPS_FILE])
		quiet_smaps(target.pid);
	if (file_exists[NUMA_FILE])
		quiet_numa(target.pid);
	if (!quiet_queries(target.pid)) {
		readings[READ_QUERIES].count = 0;
		readings[READ_RANDOM].count = 0;
	}

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	counters_read(before);
	start_young();
	start_readers(target.pid);
	target_do(&target, GO);
	took = run(target.pid, &finished);

	if (finished) {
		target_do(&target, JOIN);
		quiet_check(target.pid, false);
	}
	print_report(took, before);
	check_work(took);
	print_results();
	target_stop(&target);
	ksft_finished();
}
