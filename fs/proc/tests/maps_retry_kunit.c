// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test of a reader of /proc/PID/maps for which each VMA that it finds is
 * gone before it can be locked.
 */

#include "maps_reader.h"

#define MANY	100

static void replace(struct maps_reader *r)
{
	maps_map(r, 0, 2);
}

static void maps_replaced_each_time(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_AFTER_FIND, .occasion = 1, .times = MANY, .write = replace },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 0, 2);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	KUNIT_EXPECT_EQ(test, r->error, 0);
	KUNIT_EXPECT_GE(test, r->done, 1);
	/* The reader gives up before the writer does. */
	KUNIT_EXPECT_LT(test, r->done, MANY);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 2));
}

static struct kunit_case maps_retry_test_cases[] = {
	KUNIT_CASE(maps_replaced_each_time),
	{}
};

static struct kunit_suite maps_retry_test_suite = {
	.name = "proc_maps_retry",
	.test_cases = maps_retry_test_cases,
};

kunit_test_suite(maps_retry_test_suite);
