// SPDX-License-Identifier: GPL-2.0

//! Rust sample that goes through the VMAs of the process that loads it.

use kernel::{
    mm::{
        vma_iter::{VmaIter, VmaIterState},
        MmWithUser, //
    },
    prelude::*,
};

module! {
    type: RustVmaIter,
    name: "rust_vma_iter",
    authors: ["Rust for Linux Contributors"],
    description: "Rust sample that iterates over VMAs",
    license: "GPL",
}

struct RustVmaIter;

/// Returns how many VMAs there are, and how many bytes they cover.
fn count(mm: &MmWithUser) -> Result<(usize, usize)> {
    let mut state = VmaIterState::new();
    let mut rcu = VmaIter::new(mm, &mut state).enter_rcu(0);
    let (mut vmas, mut bytes) = (0, 0);

    loop {
        let Ok(found) = rcu.next() else {
            return Ok((vmas, bytes));
        };
        // A reader that cannot do without this VMA would look it up under `mmap_lock` now.
        let locked = found.start_read().map_err(|_| EAGAIN)?;
        let end = locked.end();
        vmas += 1;
        bytes += end - locked.start();
        rcu = locked.unlock_in_rcu();
        if rcu.need_resched() {
            rcu = rcu.leave_rcu().enter_rcu(end);
        }
    }
}

impl kernel::Module for RustVmaIter {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let task = current!();
        let Some(mm) = task.mm() else {
            pr_info!("A kernel thread has no VMAs\n");
            return Ok(Self);
        };
        let (vmas, bytes) = count(mm)?;

        pr_info!("{vmas} VMAs of {bytes} bytes\n");
        Ok(Self)
    }
}
