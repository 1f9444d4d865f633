/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fs/proc/task_mmu.c and the Rust implementation of its files offer to
 * each other. fs/proc/internal.h cannot be read by the tools that generate the
 * Rust bindings, because they also do so for modules.
 */
#ifndef _FS_PROC_TASK_MMU_H
#define _FS_PROC_TASK_MMU_H

#include <linux/compiler_types.h>

struct file_operations;
struct inode;
struct mm_struct;
struct pid;
struct seq_file;
struct vm_area_struct;

struct mm_struct *proc_mem_open(struct inode *inode, unsigned int mode);
struct pid *proc_inode_pid(const struct inode *inode);

void show_map_vma(struct seq_file *m, struct vm_area_struct *vma);
int do_procmap_query(struct mm_struct *mm, void __user *uarg);

extern const struct file_operations proc_pid_maps_rust_operations;

#endif /* _FS_PROC_TASK_MMU_H */
