// SPDX-License-Identifier: GPL-2.0

//! The protocol by which a reader sums up what is mapped, in one VMA or in all.
//!
//! To look at page tables takes long where much is mapped. A reader that keeps a VMA locked for all
//! of that time keeps a writer waiting, and with the writer, who has `mmap_lock`, everybody that
//! wants that. So a sum is made in pieces:
//!
//! ```text
//!    start                          pos                                         end
//!      [############################|                    VMA                     ]
//!       added, with the VMA locked  ^
//!                                   a writer waits: unlock, let him go first, find the VMA
//!                                   that is there now, and go on
//! ```
//!
//! # All VMAs
//!
//! The sum over all VMAs is one over addresses, each of which is looked at once. What is found at
//! `pos` after a break is gone on with from `pos`, whatever has been split, merged or mapped
//! meanwhile: what the part before `pos` has become is not added again, and nothing after it is
//! left out. Only a huge page that has been put together around `pos` is added whole. A VMA in
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
//! only gone on with if the VMA looks the same as before the break. This is what happens when the
//! writer was `fork`, or has changed the VMA and back. If not, all that has been added is
//! forgotten, and the VMA that is there now is begun with. After [`MAX_RESTARTS`] of this a writer
//! has to wait, so that no writer can keep a reader busy forever.
//!
//! # After the process
//!
//! A process that is killed gets its memory back when the last user of the address space is gone.
//! So before each VMA and after each piece a reader looks whether that is itself, and stops.

use crate::walk::{self, AddressSpace, At, Event, Held, StableVma};
use core::ops::Range;

/// How often a reader begins again with a VMA because it was changed during a break.
pub(crate) const MAX_RESTARTS: usize = 3;

/// To look at how many pages takes as long as to pass a VMA, or less.
const PAGES_PASSED: usize = 4;

/// What is summed up.
pub(crate) trait Sum<A: AddressSpace> {
    /// Forgets what has been added.
    fn clear(&mut self);

    /// Adds all that is mapped in the VMA, if that takes neither long nor sleep.
    ///
    /// Returns how many pages were looked at for that. Otherwise nothing is added.
    fn add_in_rcu(&mut self, at: &At<A>) -> Option<usize>;

    /// Adds what is mapped in the VMA from `pos` on. Returns up to where.
    ///
    /// That is the end of the VMA. It can be another address after `pos` only if nobody else uses
    /// the address space any more, or if it `may_stop`: where it was when somebody began to wait
    /// for the lock.
    fn add(&mut self, held: &Held<A>, pos: usize, may_stop: bool) -> Result<usize, A::Error>;
}

/// Sums up all VMAs. Returns the range from the start of the first to the end of the last.
pub(crate) fn sum_all<A: AddressSpace, S: Sum<A>>(
    idle: A::Idle,
    sum: &mut S,
) -> Result<Range<usize>, A::Error> {
    let mut at = walk::first::<A>(idle, 0)?;
    let start = at.as_ref().map_or(0, |at| at.range().start);
    let mut pos = start;
    let mut passed = 0;

    while let Some(here) = at {
        let range = here.range();

        // What has been added in part is gone on with.
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

/// Sums up the first VMA that ends above `pos`, which is where `held` stands.
///
/// Returns the VMA that the sum is about. It is another one if that has changed meanwhile, and
/// [`None`] if there is none any more.
pub(crate) fn sum_one<A: AddressSpace, S: Sum<A>>(
    mut held: Held<A>,
    pos: usize,
    sum: &mut S,
) -> Result<Option<Held<A>>, A::Error> {
    let mut restarts = 0;

    loop {
        let identity = held.identity();
        let Range { start, end } = held.range();
        let mut done = start;
        sum.clear();

        loop {
            done = sum.add(&held, done, restarts < MAX_RESTARTS)?;
            if done == end {
                return Ok(Some(held));
            }

            match walk::first::<A>(give_way(held, done)?, pos)? {
                Some(at) => held = at.hold(),
                None => return Ok(None),
            }
            if held.identity() != identity {
                break;
            }
        }
        restarts += 1;
    }
}

/// Lets a writer go first who waits for what `held` has locked. The reader has got to `pos`.
fn give_way<A: AddressSpace>(held: Held<A>, pos: usize) -> Result<A::Idle, A::Error> {
    let idle = A::give_way(held)?;
    A::count(&idle, pos, Event::GiveWay);
    Ok(idle)
}
