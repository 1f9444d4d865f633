// SPDX-License-Identifier: GPL-2.0
//! To walk page tables may sleep, so it takes a VMA that is locked outside of RCU.

use kernel::fs::proc::page_walk::{MemSizeStats, PageStats};
use kernel::mm::vma_iter::LockedVma;

pub fn walk(locked: LockedVma<'_>) -> usize {
    MemSizeStats::new().gather(&locked, locked.start(), false) //~ ERROR E0277
}
