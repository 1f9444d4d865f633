// SPDX-License-Identifier: GPL-2.0
//! Locks and RCU sections stay with the thread that entered them.

use kernel::mm::vma_iter::{FoundVma, LockedVma, MmapVma, RcuVmaIter};

fn send<T: Send>(_: T) {}

pub fn all(iter: RcuVmaIter<'_>, found: FoundVma<'_>, at: MmapVma<'_>, locked: LockedVma<'_>) {
    send(iter); //~ ERROR E0277
    send(found); //~ ERROR E0277
    send(at); //~ ERROR E0277
    send(locked); //~ ERROR E0277
}
