// SPDX-License-Identifier: GPL-2.0
/*
 * What readers of /proc/PID/maps and its family meet: tracepoints, and how often
 * since boot, in debugfs. Nothing here is called for a reader that no writer
 * interferes with.
 */
#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/percpu.h>
#include <linux/seq_file.h>

#include "task_mmu.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static const char *const names[NR_VMA_WALK_EVENTS] = {
	[VMA_WALK_RETRY]		= "vma_walk_retry",
	[VMA_WALK_FALLBACK_CONTENDED]	= "vma_walk_fallback_contended",
	[VMA_WALK_FALLBACK_DETACHED]	= "vma_walk_fallback_detached",
	[VMA_WALK_FALLBACK_BEHIND]	= "vma_walk_fallback_behind",
	[VMA_WALK_FALLBACK_GAP]		= "vma_walk_fallback_gap",
	[VMA_WALK_FALLBACK_END]		= "vma_walk_fallback_end",
	[VMA_WALK_FALLBACK_OVERFLOW]	= "vma_walk_fallback_overflow",
	[VMA_WALK_GIVE_WAY]		= "vma_walk_give_way",
};

static DEFINE_PER_CPU(unsigned long [NR_VMA_WALK_EVENTS], counts);

/*
 * A VMA could not be locked, and the reader looks up @addr again. @reason is that
 * of the fallback that follows if no VMA can be locked in the end: CONTENDED or
 * DETACHED.
 */
void count_vma_walk_retry(struct mm_struct *mm, unsigned long addr,
			  enum vma_walk_event reason)
{
	this_cpu_inc(counts[VMA_WALK_RETRY]);
	trace_vma_walk_retry(mm, addr, reason);
}

/* mmap_lock is needed at @addr. @reason is one of VMA_WALK_FALLBACK_*. */
void count_vma_walk_fallback(struct mm_struct *mm, unsigned long addr,
			     enum vma_walk_event reason)
{
	this_cpu_inc(counts[reason]);
	trace_vma_walk_fallback(mm, addr, reason);
}

/* The reader has released its lock for a writer that waits, and goes on from @addr. */
void count_vma_walk_give_way(struct mm_struct *mm, unsigned long addr)
{
	this_cpu_inc(counts[VMA_WALK_GIVE_WAY]);
	trace_vma_walk_give_way(mm, addr);
}

static int events_show(struct seq_file *m, void *v)
{
	for (int event = 0; event < NR_VMA_WALK_EVENTS; event++) {
		unsigned long sum = 0;
		int cpu;

		for_each_possible_cpu(cpu)
			sum += per_cpu(counts, cpu)[event];
		seq_printf(m, "%s %lu\n", names[event], sum);
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(events);

static int __init events_init(void)
{
	debugfs_create_file("events", 0444, debugfs_create_dir("task_mmu", NULL),
			    NULL, &events_fops);

	return 0;
}
fs_initcall(events_init);
