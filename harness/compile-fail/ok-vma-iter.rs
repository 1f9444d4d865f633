// SPDX-License-Identifier: GPL-2.0
//! The uses of an iterator over VMAs that the other files get wrong.

use kernel::mm::vma_iter::{MmapVma, SleepableLock, VmaIter, VmaIterState};
use kernel::mm::MmWithUser;
use kernel::prelude::*;

pub fn lock_first(mm: &MmWithUser) -> Option<usize> {
    let mut state = VmaIterState::new();
    let found = VmaIter::new(mm, &mut state).enter_rcu(0).next().ok()?;
    let end = match found.start_read() {
        Ok(vma) => {
            let end = vma.end();
            let _found = vma.unlock_in_rcu().next();
            end
        }
        Err((_, iter)) => {
            let vma = iter.find_under_mmap_lock(0).ok()??;
            let end = vma.end();
            let _unlocked: VmaIter<'_> = vma.unlock();
            end
        }
    };
    Some(end)
}

pub fn hold(mm: &MmWithUser) -> Result<usize> {
    let mut state = VmaIterState::new();
    let vma: MmapVma<'_> = VmaIter::new(mm, &mut state)
        .find_under_mmap_lock(0)?
        .ok_or(ENOENT)?;
    Ok(vma.start())
}

fn walk_page_tables<V: SleepableLock>(vma: &V) -> usize {
    vma.end()
}

pub fn walk(mm: &MmWithUser) -> Option<usize> {
    let mut state = VmaIterState::new();
    let found = VmaIter::new(mm, &mut state).enter_rcu(0).next().ok()?;
    let vma = found.start_read().ok()?.leave_rcu();
    let end = walk_page_tables(&vma);
    let _next = vma.unlock().enter_rcu(end).next();
    Some(end)
}
