// SPDX-License-Identifier: GPL-2.0
//! mmap_lock cannot be taken by an iterator that has a VMA locked: a writer who holds it may be
//! waiting for the readers of that VMA.

use kernel::mm::vma_iter::LockedVma;

pub fn with_locked(locked: LockedVma<'_>) {
    let _ = locked.find_under_mmap_lock(0); //~ ERROR E0599
}
