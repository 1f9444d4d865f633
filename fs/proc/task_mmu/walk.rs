// SPDX-License-Identifier: GPL-2.0

//! The protocol by which a reader goes from one VMA to the next.
//!
//! A reader finds the next VMA under RCU, tries to read-lock it, and then verifies that what it has
//! locked is what comes next:
//!
//! ```text
//!          +--------------------- detached, at most MAX_RETRIES times -----+
//!          v                                                               |
//!    +----------+ none                +-------+ contended                  |
//!    |   find   |------> the end      |       |----------> fallback        |
//!    | from pos |-------------------->|  lock |----------------------------+
//!    +----------+                     +-------+
//!                                         |
//!                                         v
//!                                    +--------+ ends at or below pos, or there is a gap before it
//!                                    | verify |-----> fallback           that cannot be confirmed
//!                                    +--------+
//!                                         |
//!                                         v
//!                                    the next VMA
//! ```
//!
//! The fallback takes `mmap_lock` for reading, finds the VMA, read-locks it and releases
//! `mmap_lock`. It does not depend on what writers do meanwhile: it finds a VMA that ends above
//! `pos`, or that there is none.
//!
//! # Why a gap has to be verified
//!
//! Between finding a VMA and locking it a writer may come. Here the reader is at `pos`, finds B, and
//! before it has locked it a writer unmaps the head of B and maps C in its place:
//!
//! ```text
//!                pos
//!                 |
//!    found        [ A ][       B      ]
//!    locked       [ A ][   C   ][  B  ]
//!                      ^
//!                      the reader would show a gap from here to the start of B, though there was
//!                      a VMA before and there is one after
//! ```
//!
//! A gap is therefore only believed if nobody can have changed the address space since the lookup,
//! or if a second lookup, made with the VMA locked, finds the same VMA. While it is locked its range
//! cannot change, so that nothing stands between `pos` and its start at that moment.
//!
//! # Why the previous VMA stays locked during the lookup
//!
//! An iterator goes on from the entry that it found last. If that VMA has been unlocked, a writer
//! may come before the lookup and merge it with its neighbour:
//!
//! ```text
//!                     pos
//!                      |
//!    found and shown   [  A  ][  B  ]       [  C  ]
//!    A unlocked        [      A     ]       [  C  ]
//!                             ^
//!                             the entry that covers the last address of A is followed by C, so
//!                             that the reader would show a gap in place of B
//! ```
//!
//! No second lookup would notice, because nothing changes between this lookup and the lock on C. So
//! the next VMA is looked up with A still locked, when nobody can change where A ends.
//!
//! This file knows no type of the kernel, so that the protocol can be run against other address
//! spaces than real ones.

use core::ops::Range;

/// How often a reader looks for the next VMA again because the one it had found was detached before
/// it could be locked. Then it takes the fallback, so that no writer can keep it busy forever.
pub(crate) const MAX_RETRIES: usize = 3;

/// Why a VMA could not be read-locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockError {
    /// It is no longer part of the address space.
    Detached,
    /// It is being changed.
    Contended,
}

/// A VMA that cannot change.
pub(crate) trait StableVma {
    /// Returns the addresses that the VMA covers.
    fn range(&self) -> Range<usize>;
}

/// The operations on an address space that the protocol is made of.
///
/// The associated types are the states of the reader. A function that leaves a state takes it by
/// value: whoever has a `Rcu` is in the RCU section that it was made in, and whoever has a `Locked`
/// has the VMA locked.
pub(crate) trait AddressSpace: Sized {
    /// Nothing is held.
    type Idle;
    /// In an RCU section, with an iterator over the VMAs. It has a position: an address, or the VMA
    /// that it found last.
    type Rcu;
    /// Like `Rcu`, and the iterator has found a VMA. It is not locked and may be stale.
    type Found;
    /// A VMA is read-locked.
    type Locked: StableVma;
    /// `mmap_lock` is held for reading, with an iterator that stands at a VMA.
    type MmapLocked: StableVma;
    /// A moment in the history of the address space.
    type Snapshot;
    /// Why `mmap_lock` could not be taken.
    type Error;

    /// Whether VMAs have locks. If not, all is done under `mmap_lock`.
    const VMA_LOCKS: bool;

    /// Enters an RCU section, with the iterator at `pos`.
    fn enter_rcu(idle: Self::Idle, pos: usize) -> Self::Rcu;

    /// Leaves the RCU section.
    fn exit_rcu(rcu: Self::Rcu) -> Self::Idle;

    /// Takes a snapshot, for [`AddressSpace::changed_since`].
    fn snapshot(rcu: &Self::Rcu) -> Self::Snapshot;

    /// Returns `false` only if no writer can have changed the address space since the snapshot.
    fn changed_since(rcu: &Self::Rcu, snapshot: Self::Snapshot) -> bool;

    /// Finds the next VMA. Returns [`None`], with the RCU section left, if there is none.
    ///
    /// If the position of the iterator is a VMA that has been unlocked, this may miss what that VMA
    /// has grown over since.
    fn find(rcu: Self::Rcu) -> Option<Self::Found>;

    /// Tries to read-lock the VMA, without waiting. The position of the iterator is the VMA as it
    /// has been locked. On failure the RCU section has been left.
    #[expect(clippy::type_complexity)]
    fn try_lock(found: Self::Found) -> Result<(Self::Locked, Self::Rcu), (LockError, Self::Idle)>;

    /// Sets the iterator to `pos`, and returns whether the next VMA from there is `locked`.
    fn finds_again(rcu: &mut Self::Rcu, pos: usize, locked: &Self::Locked) -> bool;

    /// Takes `mmap_lock` for reading and finds the first VMA that ends above `pos`.
    ///
    /// Returns [`None`], with `mmap_lock` released, if there is none.
    fn lock_mmap(idle: Self::Idle, pos: usize) -> Result<Option<Self::MmapLocked>, Self::Error>;

    /// Exchanges `mmap_lock` for the read lock of the VMA that the iterator stands at. Fails if
    /// the VMA has too many readers.
    fn lock_vma(at: Self::MmapLocked) -> Result<(Self::Locked, Self::Idle), Self::MmapLocked>;

    /// Goes on to the next VMA under `mmap_lock`. Returns [`None`], with `mmap_lock` released, if
    /// there is none.
    fn next_under_mmap_lock(at: Self::MmapLocked) -> Option<Self::MmapLocked>;
}

/// A reader that stands at a VMA, by what keeps the VMA from changing.
pub(crate) enum At<A: AddressSpace> {
    /// The VMA is read-locked, in an RCU section. They are dropped in this order.
    Vma(A::Locked, A::Rcu),
    /// `mmap_lock` is held for reading, until the reader stops.
    Mmap(A::MmapLocked),
}

impl<A: AddressSpace> StableVma for At<A> {
    #[inline]
    fn range(&self) -> Range<usize> {
        match self {
            At::Vma(locked, _) => locked.range(),
            At::Mmap(at) => at.range(),
        }
    }
}

/// Finds the first VMA that ends above `pos`.
#[inline]
pub(crate) fn first<A: AddressSpace>(idle: A::Idle, pos: usize) -> Result<Option<At<A>>, A::Error> {
    if A::VMA_LOCKS {
        find_and_lock(A::enter_rcu(idle, pos), pos, None)
    } else {
        Ok(A::lock_mmap(idle, pos)?.map(At::Mmap))
    }
}

/// Finds the first VMA that ends above the end of the one that `at` stands at.
#[inline(always)]
pub(crate) fn next<A: AddressSpace>(at: At<A>) -> Result<Option<At<A>>, A::Error> {
    match at {
        At::Vma(locked, rcu) => {
            let pos = locked.range().end;
            find_and_lock(rcu, pos, Some(locked))
        }
        At::Mmap(at) => Ok(A::next_under_mmap_lock(at).map(At::Mmap)),
    }
}

/// Finds, locks and verifies the first VMA that ends above `pos`, where the iterator has to be.
///
/// `previous` is the VMA that ends at `pos`, if the iterator found it. It stays locked until the
/// next one has been found: as long as it cannot grow, nothing between the two can be missed.
// Called once for each line. Out of line, a tenth of its cost is moving the states in and out.
#[inline(always)]
fn find_and_lock<A: AddressSpace>(
    mut rcu: A::Rcu,
    pos: usize,
    mut previous: Option<A::Locked>,
) -> Result<Option<At<A>>, A::Error> {
    let mut retries = 0;

    let idle = loop {
        // This comes before the lookup, so that a writer who comes between the two is noticed.
        let snapshot = A::snapshot(&rcu);

        let found = A::find(rcu);
        drop(previous.take());
        let Some(found) = found else {
            return Ok(None);
        };

        match A::try_lock(found) {
            Ok((locked, mut rcu)) => {
                if comes_next::<A>(&locked, &mut rcu, pos, snapshot) {
                    return Ok(Some(At::Vma(locked, rcu)));
                }

                // `mmap_lock` must not be taken with a VMA locked: a writer who holds it may be
                // waiting for the readers of that VMA.
                drop(locked);
                break A::exit_rcu(rcu);
            }
            Err((LockError::Detached, idle)) if retries < MAX_RETRIES => {
                retries += 1;
                rcu = A::enter_rcu(idle, pos);
            }
            Err((_, idle)) => break idle,
        }
    };

    fallback(idle, pos)
}

/// Returns whether `locked`, which was found from `pos` after `snapshot`, is what comes next.
#[inline]
fn comes_next<A: AddressSpace>(
    locked: &A::Locked,
    rcu: &mut A::Rcu,
    pos: usize,
    snapshot: A::Snapshot,
) -> bool {
    let Range { start, end } = locked.range();

    // It may have been shrunk or moved, before it was locked, to where the reader has been already.
    if end <= pos {
        return false;
    }

    start <= pos || !A::changed_since(rcu, snapshot) || A::finds_again(rcu, pos, locked)
}

/// Finds and locks the first VMA that ends above `pos` with the help of `mmap_lock`, waiting for
/// the writer who holds it.
#[cold]
fn fallback<A: AddressSpace>(idle: A::Idle, pos: usize) -> Result<Option<At<A>>, A::Error> {
    let Some(at) = A::lock_mmap(idle, pos)? else {
        return Ok(None);
    };

    Ok(Some(match A::lock_vma(at) {
        Ok((locked, idle)) => {
            let end = locked.range().end;
            At::Vma(locked, A::enter_rcu(idle, end))
        }
        Err(at) => At::Mmap(at),
    }))
}
