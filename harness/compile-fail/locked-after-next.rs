// SPDX-License-Identifier: GPL-2.0
//! Looking for the next VMA unlocks this one, and there is no other way to look for it: neither can a
//! VMA be unlocked too early, nor used too late.

use kernel::mm::vma_iter::LockedVma;

pub fn after_next(locked: LockedVma<'_>) -> usize {
    let _next = locked.next();
    locked.end() //~ ERROR E0382
}

pub fn after_unlock(locked: LockedVma<'_>) {
    let _iter = locked.unlock();
    let _next = locked.next(); //~ ERROR E0382
}
