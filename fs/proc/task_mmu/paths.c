// SPDX-License-Identifier: GPL-2.0

#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/path.h>
#include <linux/seqlock.h>

#include "../../mount.h"
#include "task_mmu.h"

/**
 * get_path_state - Tell what the text of a path depends on
 * @path: the path, to which the caller has a reference
 *
 * If it is the same before d_path() and later, d_path() would give the same
 * text again, apart from changes of the root directory of the caller.
 *
 * Return: a number that stands for all of that, or PATH_STATE_UNKNOWN if
 * something is being renamed or mounted, or if the file system makes the text.
 */
u64 get_path_state(const struct path *path)
{
	const struct dentry *dentry = path->dentry;
	unsigned int rename_seq, mount_seq;

	if (dentry->d_op && dentry->d_op->d_dname)
		return PATH_STATE_UNKNOWN;

	rename_seq = raw_read_seqcount(&rename_lock.seqcount);
	mount_seq = raw_read_seqcount(&mount_lock.seqcount);
	if ((rename_seq | mount_seq) & 1)
		return PATH_STATE_UNKNOWN;

	/*
	 * Both are even. d_path() does not lock the dentry either, and a rename
	 * is seen by its sequence.
	 */
	rename_seq |= data_race(d_unlinked(dentry));

	return (u64)rename_seq << 32 | mount_seq;
}
