// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of a reader of /proc/PID/maps that sees a gap, or the end of the
 * list, where something is mapped.
 */

#include "maps_reader.h"

static void grow_down(struct maps_reader *r)
{
	/* Splits and merges, so that the nodes of the tree are replaced. */
	maps_mark(r, 11, 12);
	maps_unmark(r, 11, 12);
	maps_map(r, 8, 10);
}

/*
 *   pos
 *    |
 *    |   gap      [  C  ]	the lookup goes on from the end of the gap
 *    |   gap [      C   ]	where C is by now
 */
static void maps_end_that_is_none(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_IN_FIND, .occasion = 1, .write = grow_down },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 10, 12);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 10, 12));
}

static void merge(struct maps_reader *r)
{
	maps_unmark(r, 2, 4);
}

/*
 *                      pos
 *                       |
 *   shown         [  A  ]
 *   before        [  A  ][  B  ]
 *   looked up in  [      A     ]	after which there is nothing
 */
static void maps_end_after_a_merge(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_UNLOCKED, .occasion = 2, .write = merge },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 0, 4);
	maps_mark(r, 2, 4);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_followed(r);
	maps_reader_expect_order(r);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 4));
}

static void cut(struct maps_reader *r)
{
	/* B goes on to exist as the part that is marked. */
	maps_mark(r, 6, 8);
	maps_unmap(r, 2, 4);
}

static void fill(struct maps_reader *r)
{
	maps_map(r, 2, 4);
}

/*
 *                         pos
 *                          |
 *   found            [  A  ][         B        ]
 *   locked           [  A  ]      [  C  ][  B  ]
 *   looked up again  [  A  ][     C     ][  B  ]
 */
static void maps_gap_that_is_none(struct kunit *test)
{
	static const struct maps_step steps[] = {
		{ .at = MAPS_AFTER_FIND, .occasion = 2, .write = cut },
		{ .at = MAPS_IN_FIND, .occasion = 1, .write = fill },
	};
	struct maps_reader *r = maps_reader_create(test);

	maps_map(r, 0, 8);
	maps_mark(r, 0, 2);

	maps_reader_follow(r, steps, ARRAY_SIZE(steps));
	maps_reader_read_all(r);

	maps_reader_expect_order(r);
	KUNIT_EXPECT_EQ(test, r->error, 0);
	KUNIT_EXPECT_GE(test, r->step, 1);
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 0, 2));
	KUNIT_EXPECT_TRUE(test, maps_reader_shows(r, 4, 8));
}

static struct kunit_case maps_gap_test_cases[] = {
	KUNIT_CASE(maps_end_that_is_none),
	KUNIT_CASE(maps_end_after_a_merge),
	KUNIT_CASE(maps_gap_that_is_none),
	{}
};

static struct kunit_suite maps_gap_test_suite = {
	.name = "proc_maps_gap",
	.test_cases = maps_gap_test_cases,
};

kunit_test_suite(maps_gap_test_suite);
