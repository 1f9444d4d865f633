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
 * @state: where to put it
 *
 * If it is the same before d_path() and later, d_path() would give the same
 * text again, apart from changes of the root directory of the caller.
 *
 * Return: false if something is being renamed or mounted, or if the file system
 * makes the text.
 */
bool get_path_state(const struct path *path, struct path_state *state)
{
	const struct dentry *dentry = path->dentry;

	if (dentry->d_op && dentry->d_op->d_dname)
		return false;

	state->rename_seq = raw_read_seqcount(&rename_lock.seqcount);
	state->mount_seq = raw_read_seqcount(&mount_lock.seqcount);
	/* d_path() does not lock it either, and a rename is seen by its sequence */
	state->unlinked = data_race(d_unlinked(dentry));

	return !((state->rename_seq | state->mount_seq) & 1);
}
