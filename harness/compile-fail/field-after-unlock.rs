// SPDX-License-Identifier: GPL-2.0
//! What a lock gives access to cannot be used after the lock was released.

use kernel::mm::{virt::VmaRef, vma_iter::LockedVma, vma_iter::MmapVma};

pub fn after_vma_lock(guard: LockedVma<'_>) -> usize {
    let vma: &VmaRef = &guard;
    let _iter = guard.unlock(); //~ ERROR E0505
    vma.end()
}

pub fn after_mmap_lock(at: MmapVma<'_>) -> usize {
    let vma: &VmaRef = &at;
    let _iter = at.unlock(); //~ ERROR E0505
    vma.end()
}

pub fn after_next(at: MmapVma<'_>) -> usize {
    let vma: &VmaRef = &at;
    let _next = at.next(); //~ ERROR E0505
    vma.end()
}
