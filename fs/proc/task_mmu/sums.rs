// SPDX-License-Identifier: GPL-2.0

//! The protocol by which a reader sums up what is mapped, in one VMA or in all.
//!
//! To look at page tables takes long where much is mapped. A writer that waits for a VMA lock holds
//! `mmap_lock` for writing, so that some page faults and all other changes to the address space
//! wait as well. So a reader does not keep a VMA locked for all of that time, but makes a sum in
//! pieces:
//!
//! ```text
//!    start                          pos                                         end
//!      [############################|                    VMA                     ]
//!       added, with the VMA locked  ^
//!                                   a writer waits: unlock, let it go first, find the VMA
//!                                   that is there now, and go on
//! ```
//!
//! # Where a sum stops, and for how long
//!
//! A sum stops only between two page tables. A huge page is in one of them. If the reader stopped
//! at an address within a huge page, it would count it before the break and again after it.
//!
//! After it has unlocked a VMA, the reader sleeps for a moment. Otherwise it would have the VMA
//! locked again by the time the writer comes back, and would delay it once more. It does not sleep
//! after it has released `mmap_lock`: that lock is handed over in the order of its queue, so that
//! the writer gets it before this reader does.
//!
//! Between two stops at least one page table is added. So a sum comes to an end whatever writers
//! do.
//!
//! # All VMAs
//!
//! The sum over all VMAs is one over addresses, each of which is looked at once. What is found at
//! `pos` after a break is gone on with from `pos`, whatever has been split, merged or mapped
//! meanwhile: what the part before `pos` has become is not added again, and nothing after it is
//! left out. Only a huge page that has been put together around `pos` is added whole, and so is a
//! huge page of a `shmem` object that is swapped out and was added up to `pos` before. A VMA in
//! which there is little to look at is added without a break, in the RCU section in which it was
//! locked, unless a part of it has been added before.
//!
//! ```text
//!                      pos                              pos
//!    [        A        |########]     [     A     ][    |  B    ]
//!                                                       ^
//!                                                       B is added from here
//! ```
//!
//! # One VMA
//!
//! What is said of one VMA, its range, its flags and its sums, has to fit together. So a sum is
//! only gone on with if the VMA looks the same as before the break. It does after `fork`, which
//! locks all VMAs of the parent, after khugepaged has put together a huge page, after a change that
//! has been undone, and if something else that looks the same has been mapped in its place. If not,
//! all that has been added is forgotten, and the VMA that is there now is begun with. After
//! [`MAX_RESTARTS`] of this the reader does not stop any more and a writer has to wait, so that no
//! writer can keep a reader busy forever.
//!
//! # After the process
//!
//! A process that is killed gets its memory back when the last user of the address space is gone.
//! So before each VMA and after each piece a reader looks whether that is itself, and stops.

use crate::walk::{self, AddressSpace, At, Event, Held, StableVma};
use core::ops::Range;

/// How often a reader begins a sum over one VMA again because the VMA was changed during a break.
pub(crate) const MAX_RESTARTS: usize = 3;

/// How many pages count as one VMA in `passed`.
const PAGES_PASSED: usize = 4;

/// What a sum in pieces needs of an address space in addition to the walk.
pub(crate) trait GiveWay: AddressSpace {
    /// What a reader can see of a VMA, to recognise it after a break.
    type Identity: PartialEq;

    /// Releases what is locked and, if that is a VMA, sleeps for a moment, so that a waiting writer
    /// gets it. Fails if the reader has to stop.
    fn give_way(held: Held<Self>) -> Result<Self::Idle, Self::Error>;

    /// Returns what the reader can see of the VMA.
    fn identity(held: &Held<Self>) -> Self::Identity;
}

/// What is summed up.
pub(crate) trait Sum<A: AddressSpace> {
    /// Forgets what has been added.
    fn clear(&mut self);

    /// Adds all that is mapped in the VMA, if this is short and does not sleep.
    ///
    /// Returns how many pages were looked at, or [`None`] if nothing was added.
    fn add_in_rcu(&mut self, at: &At<A>) -> Option<usize>;

    /// Adds what is mapped in the VMA from `pos` on. Returns the address up to which it has added.
    ///
    /// That is the end of the VMA. It is less, but above `pos`, if the reader is the last user of
    /// the address space, or if it `may_stop` and a thread waits for the lock or the reader is
    /// being killed.
    fn add(&mut self, held: &Held<A>, pos: usize, may_stop: bool) -> Result<usize, A::Error>;
}

/// Sums up all VMAs. Returns the range from the start of the first to the end of the last.
pub(crate) fn sum_all<A: GiveWay, S: Sum<A>>(
    idle: A::Idle,
    sum: &mut S,
) -> Result<Range<usize>, A::Error> {
    let mut at = walk::first::<A>(idle, 0)?;
    let start = at.as_ref().map_or(0, |at| at.range().start);
    let mut pos = start;
    let mut passed = 0;

    while let Some(here) = at {
        let range = here.range();

        // A VMA of which a part has been added is continued below.
        if matches!(here, At::Vma(_)) && pos <= range.start {
            if let Some(pages) = sum.add_in_rcu(&here) {
                pos = range.end;
                passed += pages / PAGES_PASSED;
                at = walk::next_or_resched(here, &mut passed)?;
                continue;
            }
        }

        let held = here.hold();
        A::check_and_resched(&held)?;
        pos = sum.add(&held, pos.max(range.start), true)?;
        at = if pos < range.end || held.is_contended() {
            walk::first::<A>(give_way(held, pos)?, pos)?
        } else {
            walk::next_after_sleep(held.release())?
        };
    }

    Ok(start..pos)
}

/// Sums up the VMA at which `held` stands. It is the first one that ends above `pos`. `sum` must be
/// empty.
///
/// Returns the VMA that the sum is about: another one if that VMA has changed meanwhile, or
/// [`None`] if there is none above `pos` any more.
pub(crate) fn sum_one<A: GiveWay, S: Sum<A>>(
    mut held: Held<A>,
    pos: usize,
    sum: &mut S,
) -> Result<Option<Held<A>>, A::Error> {
    let mut restarts = 0;

    loop {
        let identity = A::identity(&held);
        let Range { start, end } = held.range();
        let mut done = start;

        loop {
            done = sum.add(&held, done, restarts < MAX_RESTARTS)?;
            if done == end {
                return Ok(Some(held));
            }

            match walk::first::<A>(give_way(held, done)?, pos)? {
                Some(at) => held = at.hold(),
                None => return Ok(None),
            }
            if A::identity(&held) != identity {
                break;
            }
        }
        sum.clear();
        restarts += 1;
    }
}

/// Releases what `held` has locked, for a writer that waits for it. The reader has reached `pos`.
fn give_way<A: GiveWay>(held: Held<A>, pos: usize) -> Result<A::Idle, A::Error> {
    let idle = A::give_way(held)?;
    A::count(&idle, pos, Event::GiveWay);
    Ok(idle)
}
