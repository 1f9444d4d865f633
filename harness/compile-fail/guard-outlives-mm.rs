// SPDX-License-Identifier: GPL-2.0
//! mmput() comes after the locks are gone, and the iterator cannot outlive its memory.

use kernel::mm::vma_iter::{MmapVma, RcuVmaIter, VmaIter, VmaIterState};
use kernel::mm::MmWithUser;
use kernel::sync::aref::ARef;

pub fn outlive<'a>(mm: ARef<MmWithUser>, state: &'a mut VmaIterState) {
    let iter = VmaIter::new(&mm, state);
    let at: Option<MmapVma<'_>> = iter.find_under_mmap_lock(0).unwrap_or(None);
    drop(mm); //~ ERROR E0505
    drop(at);
}

pub fn outlive_memory(mm: &MmWithUser) {
    let iter: RcuVmaIter<'_>;
    {
        let mut state = VmaIterState::new();
        iter = VmaIter::new(mm, &mut state).enter_rcu(0); //~ ERROR E0597
    }
    drop(iter);
}
