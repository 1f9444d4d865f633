// SPDX-License-Identifier: GPL-2.0
/*
 * What readers of /proc/PID/maps and its family meet: counters in /proc/vmstat
 * and tracepoints. Nothing here is called for a reader that nobody interferes
 * with.
 */
#include <linux/mm.h>
#include <linux/vmstat.h>

#include "task_mmu.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/*
 * A VMA could not be locked, what is at @addr is looked up again. @reason is that
 * of the fallback that follows if none can be locked in the end, CONTENDED or
 * DETACHED.
 */
void count_vma_walk_retry(struct mm_struct *mm, unsigned long addr,
			 enum vm_event_item reason)
{
	count_vm_event(VMA_WALK_RETRY);
	trace_vma_walk_retry(mm, addr, reason);
}

/* mmap_lock is needed at @addr. @reason is one of VMA_WALK_FALLBACK_*. */
void count_vma_walk_fallback(struct mm_struct *mm, unsigned long addr,
			    enum vm_event_item reason)
{
	count_vm_event(reason);
	trace_vma_walk_fallback(mm, addr, reason);
}

/* What was locked has been let go for a writer who waits. The reader goes on from @addr. */
void count_vma_walk_give_way(struct mm_struct *mm, unsigned long addr)
{
	count_vm_event(VMA_WALK_GIVE_WAY);
	trace_vma_walk_give_way(mm, addr);
}
