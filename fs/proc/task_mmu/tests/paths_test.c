// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of what tells whether the text of a path is still right.
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/seqlock.h>

#include "../../../mount.h"
#include "../task_mmu.h"

static int open_root(struct kunit *test)
{
	struct file *file = filp_open("/", O_RDONLY | O_DIRECTORY, 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	test->priv = file;
	return 0;
}

static void close_root(struct kunit *test)
{
	if (test->priv)
		fput(test->priv);
}

/* Whether @change makes the state of a path another */
static bool is_noticed(struct kunit *test, void (*change)(struct kunit *test))
{
	struct file *file = test->priv;
	u64 before, after;

	before = get_path_state(&file->f_path);
	change(test);
	after = get_path_state(&file->f_path);
	KUNIT_EXPECT_NE(test, before, PATH_STATE_UNKNOWN);
	KUNIT_EXPECT_NE(test, after, PATH_STATE_UNKNOWN);

	return before != after;
}

static void change_nothing(struct kunit *test)
{
}

static void rename_something(struct kunit *test)
{
	struct file *file = test->priv;
	u64 state;

	write_seqlock(&rename_lock);
	state = get_path_state(&file->f_path);
	write_sequnlock(&rename_lock);
	KUNIT_EXPECT_EQ(test, state, PATH_STATE_UNKNOWN);
}

static void mount_something(struct kunit *test)
{
	struct file *file = test->priv;
	u64 state;

	write_seqlock(&mount_lock);
	state = get_path_state(&file->f_path);
	write_sequnlock(&mount_lock);
	KUNIT_EXPECT_EQ(test, state, PATH_STATE_UNKNOWN);
}

static void nothing_changes(struct kunit *test)
{
	/* others may rename and mount as well, but not always */
	for (int i = 0; i < 1000; i++) {
		if (!is_noticed(test, change_nothing))
			return;
	}
	KUNIT_FAIL(test, "it changes all the time");
}

static void rename_is_noticed(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, is_noticed(test, rename_something));
}

static void mount_is_noticed(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, is_noticed(test, mount_something));
}

static const struct file_operations no_operations = {};

/* The text of such a path is the file system's affair */
static void name_of_its_own(struct kunit *test)
{
	struct file *file = anon_inode_getfile("[a-test]", &no_operations, NULL, O_RDONLY);

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	KUNIT_EXPECT_EQ(test, get_path_state(&file->f_path), PATH_STATE_UNKNOWN);
	fput(file);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(nothing_changes),
	KUNIT_CASE(rename_is_noticed),
	KUNIT_CASE(mount_is_noticed),
	KUNIT_CASE(name_of_its_own),
	{}
};

static struct kunit_suite suite = {
	.name = "task_mmu_paths",
	.init = open_root,
	.exit = close_root,
	.test_cases = cases,
};

kunit_test_suite(suite);
