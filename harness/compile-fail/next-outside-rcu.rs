// SPDX-License-Identifier: GPL-2.0
//! The next VMA cannot be looked up outside of RCU.

use kernel::mm::vma_iter::LockedVma;

pub fn next(locked: LockedVma<'_>) {
    let vma = locked.leave_rcu();
    let _ = vma.next(); //~ ERROR E0599
}
