// SPDX-License-Identifier: GPL-2.0
//! mmap_lock, which sleeps, cannot be taken with an iterator that is in an RCU section.

use kernel::mm::vma_iter::{FoundVma, RcuVmaIter};

pub fn with_iterator(iter: RcuVmaIter<'_>) {
    let _ = iter.find_under_mmap_lock(0); //~ ERROR E0599
}

pub fn with_found(found: FoundVma<'_>) {
    let _ = found.find_under_mmap_lock(0); //~ ERROR E0599
}
