/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM task_mmu

#if !defined(_FS_PROC_TASK_MMU_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _FS_PROC_TASK_MMU_TRACE_H

#include <linux/tracepoint.h>

#include "task_mmu.h"

TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_CONTENDED);
TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_DETACHED);
TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_BEHIND);
TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_GAP);
TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_END);
TRACE_DEFINE_ENUM(VMA_WALK_FALLBACK_OVERFLOW);

DECLARE_EVENT_CLASS(vma_walk_reason,
		    TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned int reason),
		    TP_ARGS(mm, addr, reason),
		    TP_STRUCT__entry(__field(struct mm_struct *, mm)
				     __field(unsigned long, addr)
				     __field(unsigned int, reason)),
		    TP_fast_assign(__entry->mm = mm;
				   __entry->addr = addr;
				   __entry->reason = reason;),
		    TP_printk("mm=%p addr=0x%lx reason=%s", __entry->mm, __entry->addr,
			      __print_symbolic(__entry->reason,
					       { VMA_WALK_FALLBACK_CONTENDED, "contended" },
					       { VMA_WALK_FALLBACK_DETACHED, "detached" },
					       { VMA_WALK_FALLBACK_BEHIND, "behind" },
					       { VMA_WALK_FALLBACK_GAP, "gap" },
					       { VMA_WALK_FALLBACK_END, "end" },
					       { VMA_WALK_FALLBACK_OVERFLOW, "overflow" }))
);

DEFINE_EVENT(vma_walk_reason, vma_walk_retry,
	     TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned int reason),
	     TP_ARGS(mm, addr, reason)
);

DEFINE_EVENT(vma_walk_reason, vma_walk_fallback,
	     TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned int reason),
	     TP_ARGS(mm, addr, reason)
);

TRACE_EVENT(vma_walk_give_way,
	    TP_PROTO(struct mm_struct *mm, unsigned long addr),
	    TP_ARGS(mm, addr),
	    TP_STRUCT__entry(__field(struct mm_struct *, mm)
			     __field(unsigned long, addr)),
	    TP_fast_assign(__entry->mm = mm;
			   __entry->addr = addr;),
	    TP_printk("mm=%p addr=0x%lx", __entry->mm, __entry->addr)
);

#endif /* _FS_PROC_TASK_MMU_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
