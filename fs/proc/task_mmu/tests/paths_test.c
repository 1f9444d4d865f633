// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of what tells whether the text of a path is still right.
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/d_path.h>
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/seqlock.h>

#include "../../../internal.h"
#include "../../../mount.h"

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

/* Is @change, after which nothing is going on, noticed? */
static bool is_noticed(struct kunit *test, void (*change)(struct kunit *test))
{
	struct file *file = test->priv;
	struct d_path_seq seq;

	/* another task may be renaming or mounting something */
	for (int i = 0; !d_path_begin(&file->f_path, &seq); i++)
		KUNIT_ASSERT_LT(test, i, 1000);
	change(test);
	return d_path_retry(&file->f_path, &seq);
}

static void change_nothing(struct kunit *test)
{
}

/* While @lock is held, d_path_begin() fails and d_path_retry() asks for another try. */
static void change_under(struct kunit *test, seqlock_t *lock)
{
	struct file *file = test->priv;
	struct d_path_seq seq, meanwhile;
	bool begun, again, retry;

	begun = d_path_begin(&file->f_path, &seq);
	write_seqlock(lock);
	again = d_path_begin(&file->f_path, &meanwhile);
	retry = d_path_retry(&file->f_path, &seq);
	write_sequnlock(lock);
	KUNIT_EXPECT_FALSE(test, again);
	KUNIT_EXPECT_TRUE(test, !begun || retry);
}

static void rename_something(struct kunit *test)
{
	change_under(test, &rename_lock);
}

static void mount_something(struct kunit *test)
{
	change_under(test, &mount_lock);
}

static void nothing_changes(struct kunit *test)
{
	/* other tasks may rename and mount as well, but not always */
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

/* An unhashed dentry is taken for one that was unlinked, unless it is a root. */
static void unlink_is_noticed(struct kunit *test)
{
	struct file *file = test->priv;
	struct dentry *dentry;
	struct d_path_seq seq;
	struct path path;

	dentry = d_alloc_name(file->f_path.dentry, "task_mmu_paths_test");
	KUNIT_ASSERT_NOT_NULL(test, dentry);
	path.mnt = file->f_path.mnt;
	path.dentry = dentry;

	for (int i = 0; !d_path_begin(&path, &seq) || d_path_retry(&path, &seq); i++)
		KUNIT_EXPECT_LT(test, i, 1000);
	d_rehash(dentry);
	KUNIT_EXPECT_TRUE(test, d_path_retry(&path, &seq));
	d_drop(dentry);
	dput(dentry);
}

static const struct file_operations no_operations = {};

/* The filesystem makes up the text of such a path. */
static void name_of_its_own(struct kunit *test)
{
	struct file *file = anon_inode_getfile("[a-test]", &no_operations, NULL, O_RDONLY);
	struct d_path_seq seq;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
	KUNIT_EXPECT_FALSE(test, d_path_begin(&file->f_path, &seq));
	fput(file);
}

/* The memory of such a dentry may be used for another one at once. */
static void freed_without_rcu(struct kunit *test)
{
	struct file *file = test->priv;
	struct d_path_seq seq;
	struct path path;

	path.mnt = file->f_path.mnt;
	path.dentry = d_alloc_cursor(file->f_path.dentry);
	KUNIT_ASSERT_NOT_NULL(test, path.dentry);
	KUNIT_EXPECT_FALSE(test, d_path_begin(&path, &seq));
	dput(path.dentry);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(nothing_changes),
	KUNIT_CASE(rename_is_noticed),
	KUNIT_CASE(mount_is_noticed),
	KUNIT_CASE(unlink_is_noticed),
	KUNIT_CASE(name_of_its_own),
	KUNIT_CASE(freed_without_rcu),
	{}
};

static struct kunit_suite suite = {
	.name = "task_mmu_paths",
	.init = open_root,
	.exit = close_root,
	.test_cases = cases,
};

kunit_test_suite(suite);
