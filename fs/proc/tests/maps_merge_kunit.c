// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of a reader of /proc/PID/maps whose VMA is merged or split after
 * it was shown.
 */

#include "maps_reader.h"

static void merge(struct maps_reader *r)
{
	maps_unmark(r, 2, 4);
}

/*
 *                      pos
 *                       |
 *   shown         [  A  ]
 *   before        [  A  ][  B  ]     [  C  ]
 *   looked up in  [      A     ]     [  C  ]
 */
static void maps_merged_after_shown(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_UNLOCKED, .occasion = 2, .write = merge },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 0, 4);
	maps_mark(r, 2, 4);
	maps_map(r, 6, 8);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 4));
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 6, 8));
}

static void split_off(struct maps_reader *r)
{
	maps_mark(r, 2, 4);
}

/*
 *                            iterator
 *                                |
 *   found    [  Z  ][      A     ]     [  C  ]
 *   locked   [  Z  ][  A  ][  B  ]     [  C  ]
 *                         |
 *                        pos, when A has been shown
 */
static void maps_split_before_locked(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_AFTER_FIND, .occasion = 2, .write = split_off },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map_read_only(r, 0, 2);
	maps_map(r, 2, 6);
	maps_map(r, 8, 10);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 6));
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 8, 10));
}

static struct kunit_case maps_merge_test_cases[] = {
	KUNIT_CASE(maps_merged_after_shown),
	KUNIT_CASE(maps_split_before_locked),
	{}
};

static struct kunit_suite maps_merge_test_suite = {
	.name = "proc_maps_merge",
	.test_cases = maps_merge_test_cases,
};

kunit_test_suite(maps_merge_test_suite);
