// SPDX-License-Identifier: GPL-2.0
//! To walk page tables may sleep, so it takes a VMA that is locked outside of RCU.

use kernel::mm::vma_iter::{LockedVma, SleepableLock};

fn walk_page_tables<V: SleepableLock>(_vma: &V) {}

pub fn walk(locked: LockedVma<'_>) {
    walk_page_tables(&locked) //~ ERROR E0277
}
