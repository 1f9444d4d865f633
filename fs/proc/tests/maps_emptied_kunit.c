// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit test of a reader of /proc/PID/maps for which the address space is
 * emptied between two VMAs.
 */

#include "maps_reader.h"

static void unmap_all(struct maps_reader *r)
{
	maps_unmap(r, 0, 8);
}

static void maps_emptied_between_vmas(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_UNLOCKED, .occasion = 2, .write = unmap_all },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 0, 2);
	maps_map(r, 4, 6);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 2));
	KUNIT_EXPECT_FALSE(test, maps_reader_shows(r, 4, 6));
}

static struct kunit_case maps_emptied_test_cases[] = {
	KUNIT_CASE(maps_emptied_between_vmas),
	{}
};

static struct kunit_suite maps_emptied_test_suite = {
	.name = "proc_maps_emptied",
	.test_cases = maps_emptied_test_cases,
};

kunit_test_suite(maps_emptied_test_suite);
