// SPDX-License-Identifier: GPL-2.0
//! Page tables cannot be walked after the VMA was unlocked to let a writer go first.

use kernel::fs::proc::page_walk::{MemSizeStats, PageStats};
use kernel::mm::vma_iter::SleepableVma;

pub fn walk(vma: SleepableVma<'_>) -> usize {
    let start = vma.start();
    let _iter = vma.unlock();
    MemSizeStats::new().gather(&vma, start, false) //~ ERROR E0382
}
