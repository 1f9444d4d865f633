/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_D_PATH_H
#define _LINUX_D_PATH_H

#include <linux/types.h>

struct path;

/**
 * struct d_path_seq - what the text of a path depended on at some moment
 * @rename_seq: the sequence of rename_lock
 * @mount_seq: the sequence of mount_lock
 * @unlinked: whether d_path() says that the file has been deleted
 */
struct d_path_seq {
	unsigned int rename_seq;
	unsigned int mount_seq;
	bool unlinked;
};

bool d_path_begin(const struct path *path, struct d_path_seq *seq);
bool d_path_retry(const struct path *path, const struct d_path_seq *seq);

#endif /* _LINUX_D_PATH_H */
