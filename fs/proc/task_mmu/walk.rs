// SPDX-License-Identifier: GPL-2.0

//! The protocol by which a reader goes from one VMA to the next.
//!
//! A reader finds the next VMA under RCU, tries to read-lock it, and then verifies that what it has
//! locked is what comes next:
//!
//! ```text
//!    find -----------------> lock ------------------> verify --------------> the next VMA
//!     |                       |                         |
//!     | nothing:              | detached: find again,   | it ends at or below pos,
//!     |   the end, unless     |   at most MAX_RETRIES   | or there is a gap before it
//!     |   a writer may have   |   times                 | that cannot be confirmed
//!     |   been there and it   | contended: wait, and    |
//!     |   cannot be           |   find again, at most   |
//!     |   confirmed           |   MAX_WAITS times       |
//!     v                       v                         v
//!    fallback              fallback                  fallback
//! ```
//!
//! The fallback takes `mmap_lock` for reading, finds the VMA, read-locks it and releases
//! `mmap_lock`. It does not depend on what writers do meanwhile: it finds a VMA that ends above
//! `pos`, or that there is none.
//!
//! # Why a reader waits before the fallback
//!
//! A writer that releases `mmap_lock` hands it to the readers at the head of the queue. They hold
//! it from then on, whether they run or not. A reader that shares its CPU with other tasks, perhaps
//! at a low priority, holds it until it is scheduled. Until then no thread can map, unmap or
//! protect memory in this address space.
//!
//! A reader that waits holds no lock of the address space, so that no writer waits for it. It spins
//! for a moment, because most system calls that change a VMA are over soon, and then sleeps. Only
//! if it still cannot lock the VMA after `MAX_WAITS` times does it queue for `mmap_lock`, so that
//! it is sure to go on.
//!
//! # Why a gap has to be verified
//!
//! There are four ways to see a gap that never was. This section and the next ones have one each.
//!
//! Between finding a VMA and locking it a writer may come. Here the reader has shown A, is at `pos`
//! and finds B. Before it has locked B, a writer unmaps the head of B and maps C in its place:
//!
//! ```text
//!                           pos
//!                            |
//!    when found       [  A   ][         B         ]
//!    when locked      [  A   ][    C    ][   B    ]
//!                             ^          ^
//!                             the reader would show a gap, though something was mapped there
//!                             before and after the change
//! ```
//!
//! A gap is therefore only believed if no writer can have changed the address space since the
//! lookup began, or if the reader looks at it once more with the VMA locked. While B is locked its
//! range cannot change. So if the tree shows now that nothing is mapped from `pos` to the start of
//! B, there was a moment at which this was so, provided that all of it is seen at one moment.
//!
//! # Why a walk that verifies a gap is verified as well
//!
//! A walk down the tree starts again if it meets a node that has been replaced. But a writer may
//! change in place where two neighbours meet, or what is mapped in a range. The walk reads where a
//! range begins and ends before it reads what is mapped there, and both may change in between:
//!
//! ```text
//!                          pos
//!                           |
//!    when found       [ W ][ X ][     B     ]
//!    range is read    [ W ][     X      ][ B ]    X has taken the head of B, which is locked now
//!                     [     W     ][  X ][ B ]    mprotect() of the head of X
//!    slot is read     [     W     ]      [ B ]    munmap() of the rest of X: nothing is there
//!                               ^        ^
//!                               the reader, to which X ends at B, would take this for a gap
//! ```
//!
//! No writer had to wait for the lock on B. So a walk counts only if no writer has begun or ended
//! during it, that is, has taken or released `mmap_lock` for writing. One writer that was at work
//! all the time does no harm: nothing that is done in one go lets a VMA grow over the head of
//! another and unmaps the rest of that one.
//!
//! The end of the list needs no such check. Nothing is mapped in the last range, and this never
//! changes: only where the range begins does. So it was true when its beginning was read.
//!
//! # Why the lookup begins before the previous VMA is unlocked
//!
//! A VMA is locked for as long as something is copied from it, and no longer, because a writer that
//! wants to change it waits for that. Then the reader goes on. An iterator goes on from the last
//! address of the entry that it found last. If the tree has changed, it first finds the entry that
//! covers this address now. A writer may have merged A with its neighbour B before that:
//!
//! ```text
//!                           pos
//!                            |
//!    when copied      [  A   ][    B    ]       [  C  ]
//!    when unlocked    [        A        ]       [  C  ]
//!                            ^                  ^
//!                            the entry that covers the last address of A is followed by C, so that
//!                            the reader would show a gap in place of B
//! ```
//!
//! The same happens if B is split off the end of A after A was found and before it was locked: the
//! iterator goes on from where A ended when it was found.
//!
//! A snapshot that is taken after the VMA was unlocked would not tell, because nothing changes
//! between this lookup and the lock on C. So it is taken while A is locked, when no writer can
//! change where A ends. If a writer may have come since, another snapshot is taken, and then the
//! iterator is set to `pos`, so that the larger A is found. A writer that comes after that makes
//! the gap before C doubtful, and the gap is verified. And if a VMA ends elsewhere when it is
//! locked than when it was found, the iterator is set to its end. `lock_next_vma()` does the same
//! in C.
//!
//! # Why a VMA need not be locked
//!
//! Many lines are made of fields of the VMA that nobody changes, nor the tree, without `mmap_lock`
//! held for writing. If no writer can have come from a snapshot until after a VMA was looked up and
//! these fields were read, all of this was there at one moment. It is what comes next, and there is
//! no gap to verify:
//!
//! ```text
//!    snapshot      find      read its fields      has a writer come?
//!       |-----------|---------------|---------------------|------- no ---> the next VMA
//!       |                                                 |
//!       | the snapshot of the VMA before serves           | yes, or the line needs more
//!       | as long as no writer comes                      v
//!                                                   lock and verify
//! ```
//!
//! So a reader of a process that does not change its address space seldom writes to memory that the
//! process uses, and seldom has a writer wait. A file or a name belongs to the VMA and may be gone
//! before it is printed, so that a VMA with one is locked. The exception is the file that the last
//! line about a file was about, if no writer has come since before its path was looked up: the VMA
//! of that line still maps it, so that its address cannot be another file's. Then the new line was
//! true when the path was looked up.
//!
//! # Where an RCU section ends
//!
//! In an RCU section the reader is not preempted, except on `PREEMPT_RT`. A reader that loses its
//! CPU there delays every grace period of the system until it runs again, which takes seconds for
//! one at a low priority beside busy tasks, and each `umount()` waits for a grace period. So the
//! reader looks after each VMA whether another task is to run on its CPU. Then it leaves the
//! section, lets that task run, and goes on from `pos` in another section.
//!
//! # Lookups are not atomic
//!
//! A lookup that does not go on from a VMA, that is, at the start of an RCU section, after a retry
//! and after the fallback, passes over the gap that begins at `pos`, and then goes on from the last
//! address of that gap. It misses a VMA that a writer maps over this address meanwhile. So what is
//! found, or that nothing is, is only believed if no writer can have changed the address space
//! meanwhile, if there is no gap, or if the reader looks at it once more in one walk down the tree.
//!
//! This file knows no type of the kernel, so that the protocol can be run against other address
//! spaces than real ones.

use core::ops::Range;

/// How often a reader looks for the next VMA again because the one it had found was detached before
/// it could be locked. Then it takes the fallback, so that no writer can keep it busy forever.
pub(crate) const MAX_RETRIES: usize = 3;

/// How often a reader verifies a gap. If writers take or release `mmap_lock` each time, it takes
/// the fallback.
pub(crate) const MAX_GAP_WALKS: usize = 3;

/// Why a VMA could not be read-locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Where VMAs have no locks, none fails to be locked.
#[cfg_attr(not(CONFIG_PER_VMA_LOCK), allow(dead_code))]
pub(crate) enum LockError {
    /// It is no longer part of the address space.
    Detached,
    /// It is being changed, has been recycled for another address space, or has too many readers.
    Contended,
}

/// What a reader does only because a writer has changed or locked what it needs, or waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(CONFIG_PER_VMA_LOCK), allow(dead_code))]
pub(crate) enum Event {
    /// It looks for the next VMA again, because the one that it had found could not be locked.
    Retry(LockError),
    /// It takes `mmap_lock` to find the next VMA.
    Fallback(Reason),
    /// It has released its lock for a thread that waits for it.
    GiveWay,
}

/// Why a reader takes the fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(CONFIG_PER_VMA_LOCK), allow(dead_code))]
pub(crate) enum Reason {
    /// The VMA that it had found was being changed, or has too many readers, and it has waited for
    /// that as often as it may.
    Contended,
    /// The VMA that it had found was detached, and it has looked again as often as it may.
    Detached,
    /// The VMA that it had locked ends at or below its position.
    Behind,
    /// There seemed to be a gap before the VMA that it had locked, which could not be confirmed.
    Gap,
    /// There seemed to be no other VMA, which could not be confirmed.
    End,
}

/// A VMA that cannot change, or what it was at one moment.
pub(crate) trait StableVma {
    /// Returns the addresses that the VMA covers.
    fn range(&self) -> Range<usize>;
}

/// The operations on an address space that the protocol is made of.
///
/// The associated types are the states of the reader. A function that leaves a state takes it by
/// value: a value of type `Rcu` exists only in the RCU section in which it was made, a `Locked`
/// only while the VMA is locked.
pub(crate) trait AddressSpace: Sized {
    /// Nothing is held.
    type Idle;
    /// In an RCU section, with an iterator at an address, or at an entry that it has found.
    type Rcu;
    /// In an RCU section. A VMA has been found. It is not locked and may be stale.
    type Found;
    /// What is read of a VMA that is not locked, enough to say what it was.
    type Fields: StableVma;
    /// What the reader knows, so that some VMAs can be copied that could not be otherwise.
    type Known;
    /// In an RCU section, with a VMA read-locked.
    type Locked: StableVma;
    /// A VMA is read-locked, outside of any RCU section, so that the reader may sleep.
    type Sleepable: StableVma;
    /// `mmap_lock` is held for reading, with an iterator that stands at a VMA.
    type MmapLocked: StableVma;
    /// A state of `mmap_lock`, to be compared with a later one.
    type Snapshot;
    /// Why the reader has to stop: it is being killed, or it is the last user of the address space,
    /// so that only the reader keeps the memory from being freed.
    type Error;

    /// How often a reader waits for a writer that has the next VMA locked, before it takes the
    /// fallback.
    const MAX_WAITS: usize;

    /// Enters an RCU section, with the iterator at `pos`. Fails where VMAs have no locks.
    fn enter_rcu(idle: Self::Idle, pos: usize) -> Result<Self::Rcu, Self::Idle>;

    /// Takes a snapshot.
    fn snapshot(rcu: &Self::Rcu) -> Self::Snapshot;

    /// Takes a snapshot, with the VMA locked.
    fn snapshot_locked(locked: &Self::Locked) -> Self::Snapshot;

    /// Returns `false` only if no writer can have changed the address space since the snapshot.
    fn changed_since(snapshot: &Self::Snapshot) -> bool;

    /// Returns `false` only if `mmap_lock` was neither taken nor released for writing since the
    /// snapshot. One writer may have held it all the time.
    fn writers_since(snapshot: &Self::Snapshot) -> bool;

    /// Returns whether another task is to run on the reader's CPU.
    fn need_resched(rcu: &Self::Rcu) -> bool;

    /// Leaves the RCU section.
    fn leave(rcu: Self::Rcu) -> Self::Idle;

    /// Sets the iterator to `pos`.
    fn set(rcu: &mut Self::Rcu, pos: usize);

    /// Finds the next VMA. If there is none, the RCU section is left.
    fn find(rcu: Self::Rcu) -> Result<Self::Found, Self::Idle>;

    /// Reads the VMA without locking it. The iterator stands at it, as it was found.
    ///
    /// Fails if that is not enough to say what it is, or if a writer can have changed the address
    /// space since the snapshot.
    fn copy(
        found: Self::Found,
        snapshot: &Self::Snapshot,
        known: &Self::Known,
    ) -> Result<(Self::Fields, Self::Rcu), Self::Found>;

    /// Tries to read-lock the VMA, without waiting. On failure the RCU section has been left.
    fn try_lock(found: Self::Found) -> Result<Self::Locked, (LockError, Self::Idle)>;

    /// Returns `true` only if there was a moment during the call at which nothing was mapped from
    /// `pos` on.
    fn is_end(idle: &mut Self::Idle, pos: usize) -> bool;

    /// Waits for a moment at most, until no writer is at work. Fails if the reader is being killed.
    fn wait(idle: Self::Idle) -> Result<Self::Idle, Self::Error>;

    /// Returns whether nothing is mapped from `pos` to the start of the VMA, which is above `pos`.
    ///
    /// If writers change the address space meanwhile, the result may combine what was mapped at
    /// different moments.
    fn is_gap_before(locked: &mut Self::Locked, pos: usize) -> bool;

    /// Unlocks the VMA. The iterator stands at it, as it was while it was locked.
    fn unlock_in_rcu(locked: Self::Locked) -> Self::Rcu;

    /// Unlocks the VMA and leaves the RCU section.
    fn unlock(locked: Self::Locked) -> Self::Idle;

    /// Leaves the RCU section, with the VMA still locked.
    fn leave_rcu(locked: Self::Locked) -> Self::Sleepable;

    /// Unlocks the VMA.
    fn unlock_sleepable(held: Self::Sleepable) -> Self::Idle;

    /// Takes `mmap_lock` for reading and finds the first VMA that ends above `pos`.
    ///
    /// Returns [`None`], with `mmap_lock` released, if there is none.
    fn lock_mmap(idle: Self::Idle, pos: usize) -> Result<Option<Self::MmapLocked>, Self::Error>;

    /// Exchanges `mmap_lock` for the read lock of the VMA that the iterator stands at. Fails if
    /// the VMA has too many readers, and where VMAs have no locks.
    fn lock_vma(at: Self::MmapLocked) -> Result<Self::Locked, Self::MmapLocked>;

    /// Goes on to the next VMA under `mmap_lock`. Returns [`None`], with `mmap_lock` released, if
    /// there is none.
    fn next_under_mmap_lock(at: Self::MmapLocked) -> Option<Self::MmapLocked>;

    /// Releases `mmap_lock`.
    fn unlock_mmap(at: Self::MmapLocked) -> Self::Idle;

    /// Returns whether a thread waits for what is locked.
    fn is_contended(at: &At<Self>) -> bool;

    /// Reports `event` of a reader at `pos` to tracepoints and counters.
    fn count(idle: &Self::Idle, pos: usize, event: Event);

    /// Fails if the reader is the last user of the address space.
    fn check(at: &At<Self>) -> Result<(), Self::Error>;

    /// Calls `cond_resched()`. Fails if the reader has to stop.
    fn resched(idle: Self::Idle) -> Result<Self::Idle, Self::Error>;
}

/// What a reader may do before it leaves RCU for a moment.
pub(crate) struct Budget {
    /// How many entries of page tables it may look at. What takes long otherwise counts as some.
    pub(crate) entries: u32,
    /// Whether it lets go within a VMA if it sees that others wait.
    pub(crate) lets_go: bool,
}

impl Budget {
    /// As many entries as a page table has on most architectures.
    const PAGE_TABLE: u32 = 512;

    /// To pass a VMA takes about as long as to look at so many entries.
    const VMA: u32 = 16;

    /// The budget of a reader that begins.
    pub(crate) const FULL: Self = Self {
        entries: 4 * Self::PAGE_TABLE,
        lets_go: true,
    };

    /// The budget of a reader that has let a writer go first. One that comes back at once must not
    /// keep it from going on.
    pub(crate) const AFTER_WRITER: Self = Self {
        entries: Self::PAGE_TABLE,
        lets_go: false,
    };
}

/// A reader that stands at a VMA. The variants tell what keeps the VMA from changing.
pub(crate) enum At<A: AddressSpace> {
    /// The VMA is read-locked.
    Vma(A::Locked),
    /// `mmap_lock` is held for reading, until the reader stops.
    Mmap(A::MmapLocked),
}

impl<A: AddressSpace> At<A> {
    /// Unlocks the VMA, and stays in the RCU section.
    #[inline(always)]
    pub(crate) fn unlock(self) -> Unlocked<A> {
        match self {
            At::Vma(locked) => {
                let pos = locked.range().end;
                let snapshot = A::snapshot_locked(&locked);
                Unlocked::Vma {
                    rcu: A::unlock_in_rcu(locked),
                    pos,
                    snapshot,
                }
            }
            At::Mmap(at) => Unlocked::Mmap(at),
        }
    }

    /// Unlocks the VMA and leaves the RCU section, to go on from `pos`.
    ///
    /// A reader that holds `mmap_lock` keeps that if `pos` is the end of the VMA.
    #[inline]
    pub(crate) fn release(self, pos: usize) -> Released<A> {
        match self {
            At::Mmap(at) if at.range().end == pos => Released::Mmap(at),
            at => Released::Vma {
                idle: at.unlock_all(),
                pos,
            },
        }
    }

    /// Releases all that is locked.
    #[inline]
    pub(crate) fn unlock_all(self) -> A::Idle {
        match self {
            At::Vma(locked) => A::unlock(locked),
            At::Mmap(at) => A::unlock_mmap(at),
        }
    }

    /// Leaves the RCU section, if there is one, with the VMA still locked. The reader may sleep
    /// then.
    #[inline(always)]
    pub(crate) fn hold(self) -> Held<A> {
        match self {
            At::Vma(locked) => Held::Vma(A::leave_rcu(locked)),
            At::Mmap(at) => Held::Mmap(at),
        }
    }
}

/// A reader that has found out what a VMA is, without locking it if that was possible.
pub(crate) enum Next<A: AddressSpace> {
    /// Nothing is locked. No writer can have changed the address space from the snapshot until the
    /// VMA had been copied.
    Copied(Copied<A>),
    /// The VMA cannot change.
    At(At<A>),
}

/// A copy of a VMA, and how to go on from it.
pub(crate) struct Copied<A: AddressSpace> {
    vma: A::Fields,
    rcu: A::Rcu,
    snapshot: A::Snapshot,
}

impl<A: AddressSpace> Copied<A> {
    /// Returns what the VMA was.
    #[inline(always)]
    pub(crate) fn vma(&self) -> &A::Fields {
        &self.vma
    }

    /// Goes on, in the RCU section.
    #[inline(always)]
    pub(crate) fn pass(self) -> Unlocked<A> {
        Unlocked::Vma {
            pos: self.vma.range().end,
            rcu: self.rcu,
            snapshot: self.snapshot,
        }
    }
}

impl<A: AddressSpace> StableVma for Next<A> {
    #[inline(always)]
    fn range(&self) -> Range<usize> {
        match self {
            Next::Copied(copied) => copied.vma.range(),
            Next::At(at) => at.range(),
        }
    }
}

/// A reader that has unlocked a VMA, or not locked it, to go on to the next one.
pub(crate) enum Unlocked<A: AddressSpace> {
    /// The VMA is not locked. It ended at `pos` when the snapshot was taken, and the iterator
    /// stands at its end as it was then.
    Vma {
        rcu: A::Rcu,
        pos: usize,
        snapshot: A::Snapshot,
    },
    /// `mmap_lock` is held for reading, until the reader stops.
    Mmap(A::MmapLocked),
}

/// A reader that stands at a VMA and may sleep. The variants tell what keeps the VMA from changing.
pub(crate) enum Held<A: AddressSpace> {
    /// The VMA is read-locked.
    Vma(A::Sleepable),
    /// `mmap_lock` is held for reading, until the reader stops.
    Mmap(A::MmapLocked),
}

impl<A: AddressSpace> Held<A> {
    /// Releases all that is locked.
    #[inline]
    pub(crate) fn unlock(self) -> A::Idle {
        match self {
            Held::Vma(held) => A::unlock_sleepable(held),
            Held::Mmap(at) => A::unlock_mmap(at),
        }
    }
}

/// A reader that has left a VMA and may sleep, to go on to the next one.
pub(crate) enum Released<A: AddressSpace> {
    /// Nothing is locked. The reader goes on from `pos`.
    Vma { idle: A::Idle, pos: usize },
    /// `mmap_lock` is held for reading, until the reader stops.
    Mmap(A::MmapLocked),
}

impl<A: AddressSpace> StableVma for Held<A> {
    #[inline]
    fn range(&self) -> Range<usize> {
        match self {
            Held::Vma(held) => held.range(),
            Held::Mmap(at) => at.range(),
        }
    }
}

impl<A: AddressSpace> StableVma for At<A> {
    #[inline]
    fn range(&self) -> Range<usize> {
        match self {
            At::Vma(locked) => locked.range(),
            At::Mmap(at) => at.range(),
        }
    }
}

/// Finds the first VMA that ends above `pos`.
#[inline]
pub(crate) fn first<A: AddressSpace>(idle: A::Idle, pos: usize) -> Result<Option<At<A>>, A::Error> {
    match A::enter_rcu(idle, pos) {
        Ok(rcu) => {
            let snapshot = A::snapshot(&rcu);
            lock(A::find(rcu), pos, snapshot)
        }
        Err(idle) => Ok(A::lock_mmap(idle, pos)?.map(At::Mmap)),
    }
}

/// Finds the first VMA that ends above the end of the one that was unlocked.
// This and what it calls run for each line. If they were not inlined, a tenth of the cost of a walk
// would be moving the states in and out of memory.
#[inline(always)]
pub(crate) fn next<A: AddressSpace>(unlocked: Unlocked<A>) -> Result<Option<At<A>>, A::Error> {
    match unlocked {
        Unlocked::Vma { rcu, pos, snapshot } => match resume::<A>(rcu, pos, snapshot) {
            Ok((rcu, snapshot)) => lock(A::find(rcu), pos, snapshot),
            Err(rcu) => let_others_run(rcu, pos).map(apart),
        },
        Unlocked::Mmap(at) => Ok(A::next_under_mmap_lock(at).map(At::Mmap)),
    }
}

/// Finds the same VMA as [`next`], and locks it only if it cannot be copied otherwise.
#[inline(always)]
pub(crate) fn next_or_copy<A: AddressSpace>(
    unlocked: Unlocked<A>,
    known: &A::Known,
) -> Result<Option<Next<A>>, A::Error> {
    let at = match unlocked {
        Unlocked::Vma { rcu, pos, snapshot } => match resume::<A>(rcu, pos, snapshot) {
            Ok((rcu, snapshot)) => {
                match A::find(rcu).map(|found| A::copy(found, &snapshot, known)) {
                    Ok(Ok((vma, rcu))) => {
                        return Ok(Some(Next::Copied(Copied { vma, rcu, snapshot })));
                    }
                    Ok(Err(found)) => lock(Ok(found), pos, snapshot)?,
                    Err(idle) => lock(Err(idle), pos, snapshot)?,
                }
            }
            Err(rcu) => let_others_run(rcu, pos).map(apart)?,
        },
        Unlocked::Mmap(at) => A::next_under_mmap_lock(at).map(At::Mmap),
    };
    Ok(at.map(Next::At))
}

/// Sets the iterator to `pos`, and takes another snapshot, if a writer may have come since the VMA
/// before `pos` was what the iterator stands at. Fails if another task is to run.
#[inline(always)]
fn resume<A: AddressSpace>(
    mut rcu: A::Rcu,
    pos: usize,
    mut snapshot: A::Snapshot,
) -> Result<(A::Rcu, A::Snapshot), A::Rcu> {
    if A::need_resched(&rcu) {
        return Err(rcu);
    }
    if A::changed_since(&snapshot) {
        snapshot = A::snapshot(&rcu);
        A::set(&mut rcu, pos);
    }
    Ok((rcu, snapshot))
}

/// Leaves the RCU section for other tasks, and finds the first VMA that ends above `pos`.
#[cold]
fn let_others_run<A: AddressSpace>(rcu: A::Rcu, pos: usize) -> Result<Option<At<A>>, A::Error> {
    first(A::resched(A::leave(rcu))?, pos)
}

/// Finds the first VMA that ends above the address from which a reader goes on that has released
/// what it had locked.
#[inline]
pub(crate) fn next_after_sleep<A: AddressSpace>(
    released: Released<A>,
) -> Result<Option<At<A>>, A::Error> {
    match released {
        Released::Vma { idle, pos } => first::<A>(idle, pos),
        Released::Mmap(at) => Ok(A::next_under_mmap_lock(at).map(At::Mmap)),
    }
}

/// Goes on like [`next`] from a VMA with which little was done, or lets go if `budget` is spent.
#[inline(always)]
pub(crate) fn next_or_let_go<A: AddressSpace>(
    at: At<A>,
    budget: &mut Budget,
) -> Result<Option<At<A>>, A::Error> {
    A::check(&at)?;
    budget.entries = budget.entries.saturating_sub(Budget::VMA);
    let lets_go = match at {
        At::Vma(_) => budget.entries == 0,
        // It is kept for all VMAs that follow.
        At::Mmap(_) => budget.entries == 0 || A::is_contended(&at),
    };
    if !lets_go {
        return next(at.unlock());
    }

    let end = at.range().end;
    let_go(at, end, budget)
}

/// Releases all that is locked, lets others go first, and finds the first VMA that ends above
/// `pos`.
#[inline]
pub(crate) fn let_go<A: AddressSpace>(
    at: At<A>,
    pos: usize,
    budget: &mut Budget,
) -> Result<Option<At<A>>, A::Error> {
    let is_contended = A::is_contended(&at);
    go_on(at.unlock_all(), pos, is_contended, budget).map(apart)
}

/// Lets other tasks run, and a thread that waited for what the reader has released, and finds the
/// first VMA that ends above `pos`.
pub(crate) fn go_on<A: AddressSpace>(
    idle: A::Idle,
    pos: usize,
    is_waited_for: bool,
    budget: &mut Budget,
) -> Result<Option<At<A>>, A::Error> {
    let mut idle = A::resched(idle)?;
    *budget = Budget::FULL;
    if is_waited_for {
        *budget = Budget::AFTER_WRITER;
        A::count(&idle, pos, Event::GiveWay);
        idle = A::wait(idle)?;
    }
    first(idle, pos)
}

/// Locks and verifies the first VMA that ends above `pos`, or verifies that there is none.
///
/// `found` is what was looked up after the snapshot was taken, with the iterator at `pos`, or at
/// the end of the VMA before `pos` as it was when the snapshot was taken.
#[inline(always)]
fn lock<A: AddressSpace>(
    found: Result<A::Found, A::Idle>,
    pos: usize,
    snapshot: A::Snapshot,
) -> Result<Option<At<A>>, A::Error> {
    let at = match attempt::<A>(found, pos, snapshot) {
        Attempt::Done(locked) => return Ok(locked.map(At::Vma)),
        Attempt::NotLocked(idle, error) => retry::<A>(idle, pos, error),
        Attempt::Failed(idle, reason) => fallback::<A>(idle, pos, reason),
    }?;

    Ok(apart(at))
}

/// Takes what a function has returned in memory apart, so that what is returned beside it without a
/// call can be in registers.
#[inline(always)]
#[expect(clippy::needless_match)]
fn apart<A: AddressSpace>(at: Option<At<A>>) -> Option<At<A>> {
    match at {
        Some(At::Vma(locked)) => Some(At::Vma(locked)),
        Some(At::Mmap(at)) => Some(At::Mmap(at)),
        None => None,
    }
}

/// How an attempt to get the next VMA without `mmap_lock` ends.
enum Attempt<A: AddressSpace> {
    /// The next VMA, or [`None`] if there is none.
    Done(Option<A::Locked>),
    /// The VMA that was found could not be locked.
    NotLocked(A::Idle, LockError),
    /// The outcome could not be confirmed without `mmap_lock`. The VMA, if there was one, has been
    /// unlocked, because a writer that holds `mmap_lock` may be waiting for its readers.
    Failed(A::Idle, Reason),
}

#[inline(always)]
fn attempt<A: AddressSpace>(
    found: Result<A::Found, A::Idle>,
    pos: usize,
    snapshot: A::Snapshot,
) -> Attempt<A> {
    let found = match found {
        Ok(found) => found,
        Err(mut idle) => {
            return if !A::changed_since(&snapshot) || A::is_end(&mut idle, pos) {
                Attempt::Done(None)
            } else {
                Attempt::Failed(idle, Reason::End)
            }
        }
    };

    match A::try_lock(found) {
        Ok(mut locked) => match verify::<A>(&mut locked, pos, &snapshot) {
            Ok(()) => Attempt::Done(Some(locked)),
            Err(reason) => Attempt::Failed(A::unlock(locked), reason),
        },
        Err((error, idle)) => Attempt::NotLocked(idle, error),
    }
}

/// Checks that `locked`, which was found from `pos`, is what comes next.
#[inline(always)]
fn verify<A: AddressSpace>(
    locked: &mut A::Locked,
    pos: usize,
    snapshot: &A::Snapshot,
) -> Result<(), Reason> {
    let Range { start, end } = locked.range();

    // Before it was locked, it may have been shrunk or moved to addresses that the reader has
    // passed.
    if end <= pos {
        return Err(Reason::Behind);
    }

    if start <= pos || !A::changed_since(snapshot) {
        return Ok(());
    }

    for _ in 0..MAX_GAP_WALKS {
        let snapshot = A::snapshot_locked(locked);
        if !A::is_gap_before(locked, pos) {
            break;
        }
        if !A::writers_since(&snapshot) {
            return Ok(());
        }
    }
    Err(Reason::Gap)
}

/// Looks for the next VMA again, from `pos`, because the one that was found could not be locked.
#[cold]
fn retry<A: AddressSpace>(
    mut idle: A::Idle,
    pos: usize,
    mut error: LockError,
) -> Result<Option<At<A>>, A::Error> {
    let (mut retries, mut waits) = (0, 0);

    loop {
        let (count, most, reason) = match error {
            LockError::Detached => (&mut retries, MAX_RETRIES, Reason::Detached),
            LockError::Contended => (&mut waits, A::MAX_WAITS, Reason::Contended),
        };
        if *count == most {
            return fallback(idle, pos, reason);
        }
        *count += 1;

        A::count(&idle, pos, Event::Retry(error));
        if error == LockError::Contended {
            idle = A::wait(idle)?;
        }
        (idle, error) = match A::enter_rcu(idle, pos) {
            Ok(rcu) => {
                let snapshot = A::snapshot(&rcu);
                match attempt::<A>(A::find(rcu), pos, snapshot) {
                    Attempt::Done(locked) => return Ok(locked.map(At::Vma)),
                    Attempt::NotLocked(idle, error) => (idle, error),
                    Attempt::Failed(idle, reason) => return fallback(idle, pos, reason),
                }
            }
            Err(idle) => return fallback(idle, pos, reason),
        };
    }
}

/// Finds and locks the first VMA that ends above `pos` with the help of `mmap_lock`, waiting for
/// the writer that holds it.
#[cold]
fn fallback<A: AddressSpace>(
    idle: A::Idle,
    pos: usize,
    reason: Reason,
) -> Result<Option<At<A>>, A::Error> {
    A::count(&idle, pos, Event::Fallback(reason));
    Ok(A::lock_mmap(idle, pos)?.map(|at| match A::lock_vma(at) {
        Ok(locked) => At::Vma(locked),
        Err(at) => At::Mmap(at),
    }))
}
