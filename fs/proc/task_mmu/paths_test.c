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

#include "../../mount.h"
#include "task_mmu.h"

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
	struct path_state before, after;

	KUNIT_EXPECT_TRUE(test, get_path_state(&file->f_path, &before));
	change(test);
	KUNIT_EXPECT_TRUE(test, get_path_state(&file->f_path, &after));

	return before.rename_seq != after.rename_seq ||
	       before.mount_seq != after.mount_seq ||
	       before.unlinked != after.unlinked;
}

static void change_nothing(struct kunit *test)
{
}

static void rename_something(struct kunit *test)
{
	struct file *file = test->priv;
	struct path_state state;
	bool told;

	write_seqlock(&rename_lock);
	told = get_path_state(&file->f_path, &state);
	write_sequnlock(&rename_lock);
	KUNIT_EXPECT_FALSE(test, told);
}

static void mount_something(struct kunit *test)
{
	struct file *file = test->priv;
	struct path_state state;
	bool told;

	write_seqlock(&mount_lock);
	told = get_path_state(&file->f_path, &state);
	write_sequnlock(&mount_lock);
	KUNIT_EXPECT_FALSE(test, told);
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
	struct path_state state;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	KUNIT_EXPECT_FALSE(test, get_path_state(&file->f_path, &state));
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
