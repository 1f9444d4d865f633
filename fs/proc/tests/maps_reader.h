/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A reader of /proc/PID/maps whose address space another thread changes at a
 * chosen step, for KUnit tests.
 */
#ifndef _FS_PROC_TESTS_MAPS_READER_H
#define _FS_PROC_TESTS_MAPS_READER_H

#include <kunit/test.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/seq_file.h>

struct maps_reader;

/* What the reader is about to do when the other thread comes. */
enum maps_moment {
	MAPS_UNLOCKED,		/* look for the next VMA, the last one is unlocked */
	MAPS_IN_FIND,		/* go on from where that lookup has begun */
	MAPS_AFTER_FIND,	/* lock what the lookup has found */
};

struct maps_step {
	enum maps_moment at;
	/* Which of these moments, counted from one, since the step before. */
	unsigned int occasion;
	/* At how many of them in a row the other thread comes. Zero is one. */
	unsigned int times;
	void (*write)(struct maps_reader *r);
};

struct maps_reader {
	struct kunit *test;
	struct mm_struct *mm;
	struct task_struct *task;
	struct file *file;
	/* What was read. */
	char buf[PAGE_SIZE];
	size_t len;

	const struct maps_step *steps;
	unsigned int nr_steps;
	/* The step that comes next, and what of it is over. */
	unsigned int step;
	unsigned int occasions;
	unsigned int times;
	/* Whether the VMA that was shown last may still be locked. */
	bool has_last;

	/* How often the writer was asked to come, and how often it has. */
	struct task_struct *writer;
	void (*write)(struct maps_reader *r);
	unsigned int asked;
	unsigned int done;
	int error;

	struct kprobe lock;
	struct kprobe in_find;
	struct kprobe find;
	struct kretprobe after_find;
};

struct maps_reader *maps_reader_create(struct kunit *test);
void maps_reader_follow(struct maps_reader *r, const struct maps_step *steps,
			unsigned int nr_steps);
void maps_reader_expect_followed(struct maps_reader *r);
void maps_reader_write(struct maps_reader *r, void (*write)(struct maps_reader *r));

ssize_t maps_reader_read(struct maps_reader *r, size_t size);
void maps_reader_read_all(struct maps_reader *r);
void maps_reader_expect_order(struct maps_reader *r);
bool maps_reader_shows(struct maps_reader *r, unsigned int from, unsigned int to);

/* Pages of the address space are counted from the same address in all tests. */
unsigned long maps_page(unsigned int page);
void maps_map(struct maps_reader *r, unsigned int from, unsigned int to);
void maps_map_read_only(struct maps_reader *r, unsigned int from, unsigned int to);
void maps_unmap(struct maps_reader *r, unsigned int from, unsigned int to);
void maps_mark(struct maps_reader *r, unsigned int from, unsigned int to);
void maps_unmark(struct maps_reader *r, unsigned int from, unsigned int to);

#endif /* _FS_PROC_TESTS_MAPS_READER_H */
