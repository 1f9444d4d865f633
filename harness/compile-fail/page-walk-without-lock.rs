// SPDX-License-Identifier: GPL-2.0
//! Page tables cannot be walked after the VMA was unlocked to let a writer go first.

use kernel::mm::vma_iter::{SleepableLock, SleepableVma};

fn walk_page_tables<V: SleepableLock>(_vma: &V) {}

pub fn walk(vma: SleepableVma<'_>) {
    let _iter = vma.unlock();
    walk_page_tables(&vma) //~ ERROR E0382
}
