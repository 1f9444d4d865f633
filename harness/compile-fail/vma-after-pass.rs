// SPDX-License-Identifier: GPL-2.0
//! A VMA cannot be used after it was passed, and what was unlocked outside of RCU leaves no iterator
//! to go on with.

use kernel::mm::vma_iter::LockedVma;

pub fn after_pass(locked: LockedVma<'_>) -> usize {
    let _next = locked.unlock_in_rcu();
    locked.end() //~ ERROR E0382
}

pub fn after_unlock(locked: LockedVma<'_>) {
    let _iter = locked.unlock();
    let _next = locked.unlock_in_rcu(); //~ ERROR E0382
}
