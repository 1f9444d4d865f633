/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests share that read /proc/PID/maps while it changes: cells of an
 * address space, each for one kind of change.
 *
 *	page	0	1 .. 8
 *		fixed	what changes
 *
 * The fixed page cannot be accessed, pages 1 and 8 always can be where they are
 * mapped, so that no change merges with a fixed page. Another one that cannot be
 * accessed has to follow page 8.
 */
#ifndef PROC_MAPS_CELLS_H
#define PROC_MAPS_CELLS_H

#include "proc-maps.h"

#define CELL_PAGES	9

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

struct cell {
	enum kind kind;
	char *base;	/* page 0 */
	char *away;	/* pages 3 and 4 are moved to those of a cell that were here */
	bool advise;	/* split and merge by madvise() instead of mprotect() */
	int flags;	/* of mmap() for what is mapped first */
};

#define RO	PROT_READ
#define RW	(PROT_READ | PROT_WRITE)

static inline void must(int failed, const char *what)
{
	if (failed)
		maps_die(what);
}

static inline char *cell_page(const struct cell *c, int page)
{
	return c->base + page * PAGE;
}

/* Advice tells mappings apart as rights do, of which there are three here */
static inline void protect(const struct cell *c, int page, int count, int prot)
{
	int advice = prot == RW ? MADV_NORMAL : prot == RO ? MADV_RANDOM : MADV_SEQUENTIAL;

	if (c->advise)
		must(madvise(cell_page(c, page), count * PAGE, advice), "madvise");
	else
		must(mprotect(cell_page(c, page), count * PAGE, prot), "mprotect");
}

static inline void map_flags(const struct cell *c, int page, int count, int prot, int flags)
{
	must(mmap(cell_page(c, page), count * PAGE, prot,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flags, -1, 0) == MAP_FAILED,
	     "mmap");
}

static inline void map(const struct cell *c, int page, int count, int prot)
{
	map_flags(c, page, count, prot, 0);
}

static inline void unmap(const struct cell *c, int page, int count)
{
	must(munmap(cell_page(c, page), count * PAGE), "munmap");
}

static inline void move(char *from, char *to)
{
	must(mremap(from, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    to) == MAP_FAILED, "mremap");
}

/* All is mapped to be written first: that sets flags which hinder merging */
static inline void cell_set_up(const struct cell *c)
{
	map(c, 0, 1, PROT_NONE);
	map_flags(c, 1, 8, RW, c->flags);
	switch (c->kind) {
	case MERGE_BOTH:
		protect(c, 4, 2, RO);
		break;
	case MERGE_LEFT_FULL:
	case MERGE_RIGHT_FULL:
		protect(c, 1, 3, RO);
		protect(c, 4, 2, PROT_NONE);
		break;
	case MERGE_LEFT_PART:
	case MERGE_RIGHT_PART:
		protect(c, 1, 4, RO);
		break;
	case INSERT_BOTH:
		unmap(c, 4, 2);
		break;
	case INSERT_LEFT:
		unmap(c, 4, 5);
		break;
	case INSERT_RIGHT:
		unmap(c, 1, 5);
		break;
	case UNMAP:
	case MOVE:
		unmap(c, 2, 6);
		map(c, 3, 2, RO);
		if (c->kind == UNMAP)
			map(c, 6, 1, RW);
		break;
	case STACK:
		unmap(c, 1, 8);
		map_flags(c, 8, 1, RW, MAP_GROWSDOWN);
		break;
	default:
		break;
	}
}

static inline void cell_change(const struct cell *c)
{
	switch (c->kind) {
	case MERGE_BOTH:
		protect(c, 4, 2, RW);
		break;
	case MERGE_LEFT_FULL:
		protect(c, 4, 2, RO);
		break;
	case MERGE_LEFT_PART:
		protect(c, 5, 2, RO);
		break;
	case MERGE_RIGHT_FULL:
		protect(c, 4, 2, RW);
		break;
	case MERGE_RIGHT_PART:
		protect(c, 3, 2, RW);
		break;
	case INSERT_BOTH:
	case INSERT_LEFT:
	case INSERT_RIGHT:
		map(c, 4, 2, RW);
		break;
	case SPLIT_LOW:
		protect(c, 1, 4, RO);
		break;
	case SPLIT_HIGH:
		protect(c, 5, 4, RO);
		break;
	case REPLACE:
		map(c, 3, 3, RO);
		break;
	case UNMAP:
		unmap(c, 2, 6);
		break;
	case MOVE:
		move(cell_page(c, 3), c->away + 3 * PAGE);
		break;
	case STACK:
		for (int page = 7; page > 2; page--)
			__atomic_store_n(cell_page(c, page), 1, __ATOMIC_RELAXED);
		break;
	default:
		break;
	}
}

static inline void cell_change_back(const struct cell *c)
{
	switch (c->kind) {
	case MERGE_BOTH:
		protect(c, 4, 2, RO);
		break;
	case MERGE_LEFT_FULL:
	case MERGE_RIGHT_FULL:
		protect(c, 4, 2, PROT_NONE);
		break;
	case MERGE_LEFT_PART:
		protect(c, 5, 2, RW);
		break;
	case MERGE_RIGHT_PART:
		protect(c, 3, 2, RO);
		break;
	case INSERT_BOTH:
	case INSERT_LEFT:
	case INSERT_RIGHT:
		unmap(c, 4, 2);
		break;
	case SPLIT_LOW:
		protect(c, 1, 4, RW);
		break;
	case SPLIT_HIGH:
		protect(c, 5, 4, RW);
		break;
	case REPLACE:
		map(c, 1, 8, RW);
		break;
	case UNMAP:
		map(c, 3, 2, RO);
		map(c, 6, 1, RW);
		break;
	case MOVE:
		move(c->away + 3 * PAGE, cell_page(c, 3));
		break;
	case STACK:
		unmap(c, 1, 7);
		break;
	default:
		break;
	}
}

#endif /* PROC_MAPS_CELLS_H */
