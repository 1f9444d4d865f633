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
//!       added, with the VMA         ^
//!       locked                      unlock, let others go first, find the VMA that is there now,
//!                                   lock it, and go on
//! ```
//!
//! # How long a VMA is locked
//!
//! A piece is what a few page tables map at most, or as many small VMAs as take as long to look at.
//! From the lock of a VMA to its unlock the reader is in an RCU section, where it does not lose its
//! CPU, except on `PREEMPT_RT`. After each part of a page table it looks whether a writer waits for
//! the VMA, or another task for the CPU, and lets go of both if so. So each of them waits for the
//! look at one part, or as much as a page table, whatever the priority of the reader is, and
//! whatever other tasks do.
//!
//! Beside a writer that comes back at once the reader would get on by one part each time. So after
//! a writer that it has let go first it may look at as many entries as a page table has before it
//! sees that others wait.
//!
//! A reader that had locked what a writer waits for goes on when the writer is done. Where VMAs
//! have no locks it need not wait: `mmap_lock` is handed over in the order of its queue, so that
//! the writer gets it before this reader does.
//!
//! Each piece is a step ahead. So a sum comes to an end whatever writers do.
//!
//! Where more has to be looked at than page tables, hugetlb and objects of `shmem` of which a part
//! is swapped out, the reader may sleep with the VMA locked. There it stops between two page tables
//! if a writer waits.
//!
//! # What is summed up
//!
//! A sum is one over addresses, each of which is looked at once. What is found at `pos` is gone on
//! with from `pos`, whatever has been split, merged or mapped meanwhile: what the part before `pos`
//! has become is not added again, and nothing after it is left out. Of a huge page that has been
//! put together around `pos` the part after `pos` is added. Only a huge page of a `shmem` object
//! that is swapped out is added whole where it was added up to `pos` before.
//!
//! ```text
//!                      pos                              pos
//!    [        A        |########]     [     A     ][    |  B    ]
//!                                                       ^
//!                                                       B is added from here
//! ```
//!
//! A sum over all VMAs ends with the last of them. What is said of one VMA is what it was when the
//! sum was begun, and the sum is that over the addresses that it had then. It does not matter what
//! becomes of it: a part that was split off, got other flags or was merged with a neighbour is
//! added where it is. But it has to be the same mapping: what maps another file, or another part of
//! the file, there is left out.
//!
//! ```text
//!      start                            end
//!        [                A              ]                what is said of A: start, end, flags
//!        [##########|
//!                  pos
//!        [  A  ][     A'     ]   [   B   ][   C   ]       A was split, a part of it was unmapped,
//!                   |########|                            B is another file
//! ```
//!
//! # After the process
//!
//! A process that is killed gets its memory back when the last user of the address space is gone.
//! So before each VMA and after each piece a reader looks whether that is itself, and stops.

use crate::walk::{self, AddressSpace, At, Budget, Held, Released, StableVma};
use core::ops::Range;

/// What a sum over one VMA needs of an address space in addition to the walk.
pub(crate) trait Mapping: AddressSpace {
    /// What a VMA has in common with all that is split off it.
    type Mapping: PartialEq;

    /// Returns what is mapped by the VMA.
    fn mapping(at: &At<Self>) -> Self::Mapping;
}

/// What is summed up.
pub(crate) trait Sum<A: AddressSpace> {
    /// Adds what is mapped from the start of `range`, which is in the VMA, on: as much as `budget`
    /// allows, which is reduced, or less if somebody waits for what is locked or for the CPU. Does
    /// not sleep.
    ///
    /// Returns the address up to which it has added, above the start of `range`, or [`None`] if
    /// [`Sum::add_asleep`] has to be called.
    fn add(&mut self, at: &At<A>, range: Range<usize>, budget: &mut Budget) -> Option<usize>;

    /// Adds what is mapped in `range`, which is in the VMA.
    ///
    /// Returns the address up to which it has added. That is less than the end of `range`, but
    /// above its start, if the reader is the last user of the address space, if a thread waits for
    /// the lock, or if the reader is being killed.
    fn add_asleep(&mut self, held: &Held<A>, range: Range<usize>) -> usize;
}

/// Sums up all VMAs. Returns the range from the start of the first to the end of the last.
pub(crate) fn sum_all<A: AddressSpace, S: Sum<A>>(
    idle: A::Idle,
    sum: &mut S,
) -> Result<Range<usize>, A::Error> {
    let at = walk::first::<A>(idle, 0)?;
    let start = at.as_ref().map_or(0, |at| at.range().start);
    let (_, end) = add_up(at, start..usize::MAX, |_| true, sum)?;

    Ok(start..end)
}

/// Sums up what the VMA that is locked now has mapped.
///
/// Returns a reader that goes on from its end, or [`None`] if nothing is mapped there and above.
pub(crate) fn sum_one<A: Mapping, S: Sum<A>>(
    at: At<A>,
    sum: &mut S,
) -> Result<Option<Released<A>>, A::Error> {
    let range = at.range();
    let mapping = A::mapping(&at);
    let (released, _) = add_up(Some(at), range, |at| A::mapping(at) == mapping, sum)?;

    Ok(released)
}

/// Adds what is mapped in `range` by VMAs that are a part of what is summed up, from `at`, which is
/// the first that ends above the start of `range`, on.
///
/// Returns a reader that goes on from the end of `range`, or [`None`] if nothing is mapped there
/// and above, and where the last VMA that it has found in `range` ends.
#[inline]
fn add_up<A: AddressSpace, S: Sum<A>>(
    mut at: Option<At<A>>,
    range: Range<usize>,
    is_part: impl Fn(&At<A>) -> bool,
    sum: &mut S,
) -> Result<(Option<Released<A>>, usize), A::Error> {
    let Range {
        start: mut pos,
        end,
    } = range;
    let mut budget = Budget::FULL;

    while let Some(here) = at {
        let vma = here.range();
        let part = pos.max(vma.start)..vma.end.min(end);
        if part.is_empty() {
            return Ok((Some(here.release(end)), pos));
        }

        let added = match is_part(&here) {
            true => sum.add(&here, part.clone(), &mut budget),
            false => Some(part.end),
        };
        at = if let Some(added) = added {
            pos = added;
            if pos == end {
                return Ok((Some(here.release(end)), pos));
            }
            if pos == vma.end {
                walk::next_or_let_go(here, &mut budget)?
            } else {
                walk::let_go(here, pos, &mut budget)?
            }
        } else {
            let held = here.hold();
            pos = sum.add_asleep(&held, part.clone());
            let idle = held.unlock();
            if pos == end {
                return Ok((Some(Released::Vma { idle, pos }), pos));
            }
            walk::go_on(idle, pos, pos < part.end, &mut budget)?
        };
    }

    Ok((None, pos))
}
