/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What fs/proc/task_mmu.c and the Rust implementation of its files offer to
 * each other. fs/proc/internal.h cannot be read by the tools that generate the
 * Rust bindings, because they also do so for modules.
 */
#ifndef _FS_PROC_TASK_MMU_H
#define _FS_PROC_TASK_MMU_H

#include <linux/d_path.h>
#include <linux/mm_types.h>
#include <linux/numa.h>
#include <linux/types.h>

struct file_operations;
struct inode;
struct mm_struct;
struct path;
struct pid;
struct seq_file;
struct task_struct;
struct vm_area_struct;

struct mm_struct *proc_mem_open(struct inode *inode, unsigned int mode);
struct pid *proc_inode_pid(const struct inode *inode);

void get_vma_name(struct vm_area_struct *vma, const struct path **path,
		  const char **name, const char **name_fmt);
void show_map_vma(struct seq_file *m, struct vm_area_struct *vma);

/* A walk of page tables that can be broken off and continued later. */
struct walk_stop {
	/*
	 * Break off where a writer waits for the lock that is held, or the caller, who
	 * has a reference, is the last user of the mm?
	 */
	bool may_stop;
	/* Break off after a part of a page table where others wait? */
	bool lets_go;
	/* Is it mmap_lock that they may wait for then, or the lock of the VMA? */
	bool mmap_locked;
	/* Where the walk has ended. */
	unsigned long addr;
};

#ifdef CONFIG_PROC_PAGE_MONITOR
/*
 * Proportional Set Size(PSS): my share of RSS.
 *
 * PSS of a process is the count of pages it has in memory, where each
 * page is divided by the number of processes sharing it.  So if a
 * process has 1000 pages all to itself, and 1000 shared with one other
 * process, its PSS will be 1500.
 *
 * To keep (accumulated) division errors low, we adopt a 64bit
 * fixed-point pss counter to minimize division errors. So (pss >>
 * PSS_SHIFT) would be the real byte count.
 *
 * A shift of 12 before division means (assuming 4K page size):
 *	- 1M 3-user-pages add up to 8KB errors;
 *	- supports mapcount up to 2^24, or 16M;
 *	- supports PSS up to 2^52 bytes, or 4PB.
 */
#define PSS_SHIFT 12

/* Kinds of pages, as Pss_Anon, Pss_Shmem and Pss_File tell them apart. */
enum smaps_kind {
	SMAPS_SHMEM,
	SMAPS_FILE,
	SMAPS_ANON,
	NR_SMAPS_KINDS
};

/*
 * Pages that page tables map, by what they have in common. Most of most processes
 * are anonymous, dirty and mapped once. That is what is left when the others are
 * subtracted, so that they are not counted.
 */
struct smaps_pages {
	/* How many have not been added up. */
	unsigned long nr;
	/* Pages that are mapped once: those that are not anonymous, those that are clean. */
	unsigned long private[SMAPS_ANON];
	unsigned long private_clean;
	/* Pages that have @more mappings beside one. */
	int more;
	/* Are all of these pages in VMAs with VM_LOCKED, or none? */
	bool locked;
	struct {
		unsigned long clean;
		unsigned long dirty;
	} shared[NR_SMAPS_KINDS];
};

struct mem_size_stats {
	struct walk_stop stop;
	/* What the sums lack until smaps_add_pages() is called. */
	struct smaps_pages pages;
	unsigned long resident;
	unsigned long shared_clean;
	unsigned long shared_dirty;
	unsigned long private_clean;
	unsigned long private_dirty;
	unsigned long referenced;
	unsigned long anonymous;
	unsigned long lazyfree;
	unsigned long anonymous_thp;
	unsigned long shmem_thp;
	unsigned long file_thp;
	unsigned long swap;
	unsigned long shared_hugetlb;
	unsigned long private_hugetlb;
	unsigned long ksm;
	u64 pss;
	u64 pss_anon;
	u64 pss_file;
	u64 pss_shmem;
	u64 pss_dirty;
	u64 pss_locked;
	u64 swap_pss;
};

unsigned long smaps_gather(struct vm_area_struct *vma,
			   struct mem_size_stats *mss, unsigned long start,
			   unsigned long end, bool mmap_locked);
unsigned long smaps_gather_some(struct vm_area_struct *vma,
				struct mem_size_stats *mss, unsigned long start,
				unsigned long end, unsigned int *left);
void smaps_add_pages(struct mem_size_stats *mss);

/* What an entry of smaps says of a VMA beside its first line and the sums. */
struct smap_vma {
	unsigned long size;
	unsigned long kernel_page_size;
	unsigned long mmu_page_size;
	vm_flags_t vm_flags;
	/* Negative where there are none. */
	int pkey;
	bool thp_eligible;
};

void get_smap_vma(struct smap_vma *values, struct vm_area_struct *vma);
const char *smap_vma_flag(unsigned int bit);
#endif

#ifdef CONFIG_NUMA
struct numa_maps {
	struct walk_stop stop;
	unsigned long pages;
	unsigned long anon;
	unsigned long active;
	unsigned long writeback;
	unsigned long mapcount_max;
	unsigned long dirty;
	unsigned long swapcache;
	unsigned long node[MAX_NUMNODES];
};

void task_mempolicy_to_str(char *buffer, int maxlen, struct task_struct *task);
bool vma_mempolicy_to_str(char *buffer, int maxlen, struct vm_area_struct *vma);
unsigned long numa_maps_gather(struct vm_area_struct *vma, struct numa_maps *md,
			       unsigned long start, unsigned long end, bool mmap_locked);
unsigned long numa_maps_gather_some(struct vm_area_struct *vma, struct numa_maps *md,
				    unsigned long start, unsigned long end,
				    unsigned int *left);
#endif

/* What a reader may meet. */
enum vma_walk_event {
	VMA_WALK_RETRY,
	VMA_WALK_FALLBACK_CONTENDED,
	VMA_WALK_FALLBACK_DETACHED,
	VMA_WALK_FALLBACK_BEHIND,
	VMA_WALK_FALLBACK_GAP,
	VMA_WALK_FALLBACK_END,
	VMA_WALK_FALLBACK_OVERFLOW,
	VMA_WALK_GIVE_WAY,
	NR_VMA_WALK_EVENTS,
};

void count_vma_walk_retry(struct mm_struct *mm, unsigned long addr,
			  enum vma_walk_event reason);
void count_vma_walk_fallback(struct mm_struct *mm, unsigned long addr,
			     enum vma_walk_event reason);
void count_vma_walk_give_way(struct mm_struct *mm, unsigned long addr);

extern const struct file_operations proc_pid_maps_rust_operations;
extern const struct file_operations proc_pid_smaps_rust_operations;
extern const struct file_operations proc_pid_smaps_rollup_rust_operations;
extern const struct file_operations proc_pid_numa_maps_rust_operations;

#endif /* _FS_PROC_TASK_MMU_H */
