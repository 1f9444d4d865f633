// SPDX-License-Identifier: GPL-2.0

//! Events of readers of VMAs, for tracing and statistics.
//!
//! Each event is a tracepoint `task_mmu:vma_walk_*` with the address space and an address, and is
//! counted in `/sys/kernel/debug/task_mmu/events`.
//!
//! Context of all functions: Any. None of them is called for a reader that no writer interferes
//! with.
//!
//! C header: `fs/proc/task_mmu/task_mmu.h`

// Where VMAs have no locks, a walk of page tables that gives way is all that can happen.
#![cfg_attr(not(CONFIG_PER_VMA_LOCK), allow(dead_code))]

use kernel::{bindings, mm::MmWithUser};

/// Why a reader looks for a VMA again.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum RetryReason {
    /// What was found is being changed, has been recycled for another address space, or has too
    /// many readers. The reader waits for a moment first.
    Contended = bindings::vma_walk_event_VMA_WALK_FALLBACK_CONTENDED,
    /// What was found was detached before it could be locked.
    Detached = bindings::vma_walk_event_VMA_WALK_FALLBACK_DETACHED,
}

/// Why a reader of VMAs needs `mmap_lock`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum FallbackReason {
    /// A VMA was being changed, or has too many readers, and has been waited for.
    Contended = bindings::vma_walk_event_VMA_WALK_FALLBACK_CONTENDED,
    /// A VMA was detached before it could be locked, once more after some retries.
    Detached = bindings::vma_walk_event_VMA_WALK_FALLBACK_DETACHED,
    /// A VMA was found that turned out to end at or below the address.
    Behind = bindings::vma_walk_event_VMA_WALK_FALLBACK_BEHIND,
    /// A gap at the address could not be confirmed.
    Gap = bindings::vma_walk_event_VMA_WALK_FALLBACK_GAP,
    /// That there is no VMA above the address could not be confirmed.
    End = bindings::vma_walk_event_VMA_WALK_FALLBACK_END,
    /// A VMA has too many readers, `mmap_lock` is kept.
    Overflow = bindings::vma_walk_event_VMA_WALK_FALLBACK_OVERFLOW,
}

/// A VMA could not be locked, and what is mapped from `addr` on is looked up again.
#[inline]
pub(crate) fn retry(mm: &MmWithUser, addr: usize, reason: RetryReason) {
    // SAFETY: The pointer is valid since it comes from a reference.
    unsafe { bindings::count_vma_walk_retry(mm.as_raw(), addr, reason as u32) };
}

/// `mmap_lock` is needed to find what is mapped from `addr` on.
#[inline]
pub(crate) fn fallback(mm: &MmWithUser, addr: usize, reason: FallbackReason) {
    // SAFETY: The pointer is valid since it comes from a reference. The reason is one of
    // `enum vma_walk_event`, for each of which there is a counter.
    unsafe { bindings::count_vma_walk_fallback(mm.as_raw(), addr, reason as u32) };
}

/// The reader has released its lock for a writer that waits, and goes on from `addr`.
#[inline]
pub(crate) fn give_way(mm: &MmWithUser, addr: usize) {
    // SAFETY: The pointer is valid since it comes from a reference.
    unsafe { bindings::count_vma_walk_give_way(mm.as_raw(), addr) };
}
