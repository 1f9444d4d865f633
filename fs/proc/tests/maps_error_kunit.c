// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of a reader of /proc/PID/maps that is killed while it waits for
 * mmap_lock.
 */

#include <linux/sched/signal.h>

#include "maps_reader.h"

/* Locks B, which has been found, and kills the reader. */
static void lock_and_kill(struct maps_reader *r)
{
	struct vm_area_struct *vma;

	mmap_write_lock(r->mm);
	vma = vma_lookup(r->mm, maps_page(2));
	if (vma)
		vma_start_write(vma);
	else
		r->error = -ENOENT;
	send_sig(SIGKILL, r->task, 1);
}

static void unlock(struct maps_reader *r)
{
	mmap_write_unlock(r->mm);
}

static const struct maps_step kill_after_first[] = {
	{ .at = MAPS_AFTER_FIND, .occasion = 2, .write = lock_and_kill },
};

static struct maps_reader *create(struct kunit *test)
{
	struct maps_reader *r = maps_reader_create(test);

	/* A, B and C */
	maps_map(r, 0, 6);
	maps_mark(r, 2, 4);

	allow_signal(SIGKILL);
	maps_reader_follow(r, kill_after_first, ARRAY_SIZE(kill_after_first));

	return r;
}

/* Unlocks what lock_and_kill() has locked, and clears the signal of the reader. */
static void revive(struct maps_reader *r)
{
	if (r->step)
		maps_reader_write(r, unlock);
	flush_signals(current);
}

/* Another task reads on by the same open file. */
static void maps_read_on_after_error(struct kunit *test)
{
	struct maps_reader *r = create(test);

	/* Only A is read, because B is locked. */
	KUNIT_EXPECT_GT(test, maps_reader_read(r, sizeof(r->buf)), 0);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 2));
	revive(r);

	maps_reader_read_all(r);
	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 6));
}

/* seq_file wants a ->next() that fails to move as well. */
static void maps_error_moves(struct kunit *test)
{
	struct maps_reader *r = create(test);
	struct seq_file *m = r->file->private_data;
	loff_t pos = 0, before;
	void *v;

	v = m->op->start(m, &pos);
	KUNIT_EXPECT_NOT_ERR_OR_NULL(test, v);
	before = pos;
	v = m->op->next(m, v, &pos);
	KUNIT_EXPECT_PTR_EQ(test, v, ERR_PTR(-EINTR));
	KUNIT_EXPECT_NE(test, pos, before);
	m->op->stop(m, v);
	revive(r);

	maps_reader_expect_followed(r);
}

static struct kunit_case maps_error_test_cases[] = {
	KUNIT_CASE(maps_read_on_after_error),
	KUNIT_CASE(maps_error_moves),
	{}
};

static struct kunit_suite maps_error_test_suite = {
	.name = "proc_maps_error",
	.test_cases = maps_error_test_cases,
};

kunit_test_suite(maps_error_test_suite);
