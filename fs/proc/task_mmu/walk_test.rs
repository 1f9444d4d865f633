// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the protocol with an address space that changes by a script.
//!
//! The script says what a writer does at which moment of the reader's, so that each branch of the
//! protocol is reached, every time. The address space counts what the reader does, and notes when
//! it does something that its states should have ruled out.

use crate::walk::{self, AddressSpace, At, LockError, Lookup, StableVma, MAX_RETRIES};
use core::{cell::Cell, marker::PhantomData, ops::Range};
use kernel::prelude::*;

/// A VMA: its identity, and the addresses that it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vma {
    id: u32,
    start: usize,
    end: usize,
}

const fn vma(id: u32, start: usize, end: usize) -> Vma {
    Vma { id, start, end }
}

/// A moment at which a writer may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Before the reader looks up the next VMA, which it does with the previous one locked.
    Find,
    /// While the reader, which looks for a VMA from an address in a gap, passes the gap.
    Pass,
    /// Before the reader tries to lock what it has found.
    TryLock,
    /// Before the reader finds out whether there was a writer.
    Verify,
    /// After the reader has unlocked a VMA.
    Unlocked,
    /// Before the reader takes `mmap_lock`.
    LockMmap,
}

/// What a writer does.
#[derive(Clone, Copy)]
enum Act {
    /// Changes the address space to this, under `mmap_lock`.
    Change(&'static [Vma]),
    /// Takes `mmap_lock` for writing, and has changed nothing yet.
    BeginWrite,
    /// Changes the identity of every VMA: all are detached, others take their places.
    ReplaceAll,
    /// Write-locks the VMA with this identity.
    WriteLock(u32),
    /// Makes the VMA with this identity have as many readers as can be counted.
    Saturate(u32),
    /// Sends the reader a fatal signal.
    Kill,
}

/// At which occasion of which moment, counted from one, a writer does something. Zero is always.
type Step = (Moment, usize, Act);

/// An address space, the script, and what the reader has done.
struct Space {
    vmas: Cell<&'static [Vma]>,
    generation: Cell<u32>,
    sequence: Cell<u32>,
    writing: Cell<bool>,
    write_locked: Cell<Option<u32>>,
    saturated: Cell<Option<u32>>,
    killed: Cell<bool>,
    script: &'static [Step],
    moments: [Cell<usize>; 6],

    finds: Cell<usize>,
    tries: Cell<usize>,
    looks_again: Cell<usize>,
    fallbacks: Cell<usize>,
    locked: Cell<Option<Vma>>,
    held_vmas: Cell<usize>,
    held_rcu: Cell<usize>,
    held_mmap: Cell<usize>,
    violations: Cell<usize>,
}

impl Space {
    fn new(vmas: &'static [Vma], script: &'static [Step]) -> Self {
        Self {
            vmas: Cell::new(vmas),
            generation: Cell::new(0),
            sequence: Cell::new(0),
            writing: Cell::new(false),
            write_locked: Cell::new(None),
            saturated: Cell::new(None),
            killed: Cell::new(false),
            script,
            moments: [const { Cell::new(0) }; 6],
            finds: Cell::new(0),
            tries: Cell::new(0),
            looks_again: Cell::new(0),
            fallbacks: Cell::new(0),
            locked: Cell::new(None),
            held_vmas: Cell::new(0),
            held_rcu: Cell::new(0),
            held_mmap: Cell::new(0),
            violations: Cell::new(0),
        }
    }

    /// Lets the writers do what the script has for this moment.
    fn moment(&self, moment: Moment) {
        let occasion = add(&self.moments[moment as usize]);
        for &(when, which, act) in self.script {
            if when == moment && (which == 0 || which == occasion) {
                self.act(act);
            }
        }
    }

    fn act(&self, act: Act) {
        match act {
            Act::Change(vmas) => {
                // A writer would have to wait for the lock on this VMA.
                if let Some(locked) = self.locked.get() {
                    self.require(vmas.contains(&locked));
                }
                self.vmas.set(vmas);
                add(&self.sequence);
            }
            Act::BeginWrite => self.writing.set(true),
            Act::ReplaceAll => {
                add(&self.generation);
                add(&self.sequence);
            }
            Act::WriteLock(id) => self.write_locked.set(Some(id)),
            Act::Saturate(id) => self.saturated.set(Some(id)),
            Act::Kill => self.killed.set(true),
        }
    }

    /// Notes a violation unless `kept`.
    fn require(&self, kept: bool) {
        if !kept {
            add(&self.violations);
        }
    }

    fn lookup(&self, pos: usize) -> Option<Vma> {
        self.vmas.get().iter().copied().find(|vma| vma.end > pos)
    }

    /// The VMA after the one that covers `last`, or the first above it.
    fn lookup_after(&self, last: usize) -> Option<Vma> {
        match self.lookup(last) {
            Some(vma) if vma.start <= last => self.lookup(vma.end),
            other => other,
        }
    }

    fn nothing_is_held(&self) -> bool {
        self.held_vmas.get() == 0 && self.held_rcu.get() == 0 && self.held_mmap.get() == 0
    }
}

/// Adds one, and returns the result.
fn add<T: Copy + core::ops::Add<Output = T> + From<u8>>(cell: &Cell<T>) -> T {
    cell.set(cell.get() + T::from(1));
    cell.get()
}

/// Something that the reader holds, counted until it is dropped.
struct Held<'a>(&'a Cell<usize>);

impl<'a> Held<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        add(count);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The position of an iterator.
#[derive(Clone, Copy)]
enum Place {
    /// It was set to this address.
    At(usize),
    /// It has found a VMA, and this is the last address of that VMA at that time.
    After(usize),
}

struct Rcu<'a> {
    space: &'a Space,
    place: Place,
    _rcu: Held<'a>,
}

struct Found<'a> {
    vma: Vma,
    generation: u32,
    rcu: Rcu<'a>,
}

struct Locked<'a> {
    vma: Vma,
    lock: VmaLock<'a>,
    rcu: Rcu<'a>,
}

/// A locked VMA, which no writer may change until this is dropped.
struct VmaLock<'a> {
    vma: Vma,
    space: &'a Space,
    _lock: Held<'a>,
}

impl<'a> VmaLock<'a> {
    fn new(vma: Vma, space: &'a Space) -> Self {
        space.require(space.locked.replace(Some(vma)).is_none());
        Self {
            vma,
            space,
            _lock: Held::new(&space.held_vmas),
        }
    }
}

impl Drop for VmaLock<'_> {
    fn drop(&mut self) {
        self.space
            .require(self.space.locked.take() == Some(self.vma));
        self.space.moment(Moment::Unlocked);
    }
}

impl<'a> Locked<'a> {
    /// Has the iterator at the VMA as it is locked.
    fn new(vma: Vma, rcu: Rcu<'a>) -> Self {
        Self {
            vma,
            lock: VmaLock::new(vma, rcu.space),
            rcu: Rcu {
                place: Place::After(vma.end - 1),
                ..rcu
            },
        }
    }
}

struct MmapLocked<'a> {
    vma: Vma,
    space: &'a Space,
    _lock: Held<'a>,
}

impl StableVma for Locked<'_> {
    fn range(&self) -> Range<usize> {
        self.vma.start..self.vma.end
    }
}

impl StableVma for MmapLocked<'_> {
    fn range(&self) -> Range<usize> {
        self.vma.start..self.vma.end
    }
}

/// Where the sequence stood, unless somebody was writing.
#[derive(Clone, Copy)]
struct Snapshot<'a>(&'a Space, Option<u32>);

impl<'a> Snapshot<'a> {
    fn new(space: &'a Space) -> Self {
        Self(space, (!space.writing.get()).then(|| space.sequence.get()))
    }
}

impl<'a, const VMA_LOCKS: bool> Lookup<Scripted<'a, VMA_LOCKS>> for Rcu<'a> {
    fn snapshot(&self) -> Snapshot<'a> {
        Snapshot::new(self.space)
    }

    fn find(self) -> Result<Found<'a>, &'a Space> {
        let space = self.space;
        space.moment(Moment::Find);
        add(&space.finds);

        let found = match self.place {
            Place::At(pos) => match space.lookup(pos) {
                Some(vma) if vma.start <= pos => Some(vma),
                next => {
                    let gap_end = next.map_or(usize::MAX, |vma| vma.start);
                    let before = space.sequence.get();
                    space.moment(Moment::Pass);
                    if space.sequence.get() == before {
                        next
                    } else {
                        space.lookup_after(gap_end - 1)
                    }
                }
            },
            Place::After(last) => space.lookup_after(last),
        };

        match found {
            Some(vma) => Ok(Found {
                vma,
                generation: space.generation.get(),
                rcu: self,
            }),
            None => Err(space),
        }
    }
}

impl<'a, const VMA_LOCKS: bool> Lookup<Scripted<'a, VMA_LOCKS>> for Locked<'a> {
    fn snapshot(&self) -> Snapshot<'a> {
        Snapshot::new(self.rcu.space)
    }

    fn find(self) -> Result<Found<'a>, &'a Space> {
        let Self { lock, rcu, .. } = self;
        let found = Lookup::<Scripted<'a, VMA_LOCKS>>::find(rcu);
        drop(lock);
        found
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Killed;

/// The reader's view of a [`Space`], whose VMAs have locks or not.
struct Scripted<'a, const VMA_LOCKS: bool>(PhantomData<&'a Space>);

impl<'a, const VMA_LOCKS: bool> AddressSpace for Scripted<'a, VMA_LOCKS> {
    type Idle = &'a Space;
    type Rcu = Rcu<'a>;
    type Found = Found<'a>;
    type Locked = Locked<'a>;
    type MmapLocked = MmapLocked<'a>;
    type Snapshot = Snapshot<'a>;
    type Error = Killed;

    fn enter_rcu(space: &'a Space, pos: usize) -> Result<Rcu<'a>, &'a Space> {
        space.require(space.nothing_is_held());
        if !VMA_LOCKS {
            return Err(space);
        }

        Ok(Rcu {
            space,
            place: Place::At(pos),
            _rcu: Held::new(&space.held_rcu),
        })
    }

    fn changed_since(Snapshot(space, sequence): Snapshot<'a>) -> bool {
        space.moment(Moment::Verify);
        sequence != Some(space.sequence.get())
    }

    fn try_lock(found: Found<'a>) -> Result<Locked<'a>, (LockError, &'a Space)> {
        let space = found.rcu.space;
        space.moment(Moment::TryLock);
        add(&space.tries);

        let id = found.vma.id;
        match space.vmas.get().iter().find(|vma| vma.id == id) {
            Some(_) if space.write_locked.get() == Some(id) => Err((LockError::Contended, space)),
            Some(&vma) if found.generation == space.generation.get() => {
                Ok(Locked::new(vma, found.rcu))
            }
            _ => Err((LockError::Detached, space)),
        }
    }

    fn is_gap_before(locked: &mut Locked<'a>, pos: usize) -> bool {
        let space = locked.rcu.space;
        add(&space.looks_again);
        space.lookup(pos) == Some(locked.vma)
    }

    fn unlock(locked: Locked<'a>) -> &'a Space {
        locked.rcu.space
    }

    fn lock_mmap(space: &'a Space, pos: usize) -> Result<Option<MmapLocked<'a>>, Killed> {
        space.require(space.nothing_is_held());
        space.moment(Moment::LockMmap);
        add(&space.fallbacks);
        if space.killed.get() {
            return Err(Killed);
        }

        // The writer has to finish before `mmap_lock` is ours.
        space.write_locked.set(None);
        space.writing.set(false);

        Ok(space.lookup(pos).map(|vma| MmapLocked {
            vma,
            space,
            _lock: Held::new(&space.held_mmap),
        }))
    }

    fn lock_vma(at: MmapLocked<'a>) -> Result<Locked<'a>, MmapLocked<'a>> {
        let MmapLocked { vma, space, .. } = at;
        if !VMA_LOCKS || space.saturated.get() == Some(vma.id) {
            return Err(at);
        }

        drop(at);
        let rcu = Rcu {
            space,
            place: Place::At(vma.end),
            _rcu: Held::new(&space.held_rcu),
        };
        Ok(Locked {
            vma,
            lock: VmaLock::new(vma, space),
            rcu,
        })
    }

    fn next_under_mmap_lock(at: MmapLocked<'a>) -> Option<MmapLocked<'a>> {
        let vma = at.space.lookup(at.vma.end)?;
        Some(MmapLocked { vma, ..at })
    }
}

/// The outcome of a walk: the identities of at most eight VMAs, in order.
#[derive(Debug, PartialEq, Eq)]
struct Walked {
    ids: [u32; 8],
    killed: bool,
}

/// What is expected of a walk that goes to the end.
fn ids<const N: usize>(expected: [u32; N]) -> Walked {
    let mut ids = [0; 8];
    ids[..N].copy_from_slice(&expected);
    Walked { ids, killed: false }
}

/// Walks from `pos` to the end, or until killed, for at most eight VMAs.
fn walk_by<const VMA_LOCKS: bool>(space: &Space, pos: usize) -> Walked {
    let mut walked = ids([]);
    let mut step = walk::first::<Scripted<'_, VMA_LOCKS>>(space, pos);

    for id in &mut walked.ids {
        match step {
            Ok(Some(at)) => {
                *id = match &at {
                    At::Vma(locked) => locked.vma.id,
                    At::Mmap(locked) => locked.vma.id,
                };
                step = walk::next(at);
            }
            Ok(None) => return walked,
            Err(Killed) => {
                walked.killed = true;
                return walked;
            }
        }
    }

    walked
}

fn walk(space: &Space) -> Walked {
    walk_by::<true>(space, 0)
}

#[kunit_tests(task_mmu_walk)]
mod tests {
    use super::{Moment::*, *};

    /// Two neighbours, then one after a gap.
    const ABC: &[Vma] = &[vma(1, 10, 20), vma(2, 20, 30), vma(3, 40, 50)];

    /// One, after a gap.
    const GAP: &[Vma] = &[vma(1, 40, 50)];

    /// Checks what must hold after every walk.
    macro_rules! finished {
        ($space:expr, finds: $finds:expr, looks_again: $again:expr, fallbacks: $fallbacks:expr) => {
            assert_eq!($space.violations.get(), 0);
            assert!($space.nothing_is_held());
            assert_eq!($space.finds.get(), $finds);
            assert_eq!($space.looks_again.get(), $again);
            assert_eq!($space.fallbacks.get(), $fallbacks);
        };
    }

    #[test]
    fn nobody_interferes() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // One lookup for each VMA, and one that finds no other.
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!(space.tries.get(), 3);
    }

    #[test]
    fn no_vmas() {
        let space = Space::new(&[], &[]);

        assert_eq!(walk(&space), ids([]));
        finished!(space, finds: 1, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn starts_within_a_vma() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk_by::<true>(&space, 25), ids([2, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_once_is_looked_up_again() {
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(MERGED))]);

        // The second is gone: the first has grown over it.
        assert_eq!(walk(&space), ids([1, 1, 3]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_as_often_as_is_retried() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::ReplaceAll),
                (TryLock, 2, Act::ReplaceAll),
                (TryLock, 3, Act::ReplaceAll),
            ],
        );

        assert_eq!(MAX_RETRIES, 3);
        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 3, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_once_more_is_the_fallback() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::ReplaceAll),
                (TryLock, 2, Act::ReplaceAll),
                (TryLock, 3, Act::ReplaceAll),
                (TryLock, 4, Act::ReplaceAll),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn a_writer_that_never_stops() {
        let space = Space::new(ABC, &[(TryLock, 0, Act::ReplaceAll)]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // Each VMA costs the lookups that are allowed and one fallback.
        finished!(space, finds: 3 * (MAX_RETRIES + 1) + 1, looks_again: 0, fallbacks: 3);
    }

    #[test]
    fn contended_is_the_fallback_at_once() {
        let space = Space::new(ABC, &[(TryLock, 2, Act::WriteLock(2))]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn a_gap_that_nobody_can_have_made() {
        let space = Space::new(GAP, &[]);

        assert_eq!(walk(&space), ids([1]));
        finished!(space, finds: 2, looks_again: 0, fallbacks: 0);
        // It was asked whether there was a writer: at the gap, and at the end.
        assert_eq!(space.moments[Verify as usize].get(), 2);
    }

    #[test]
    fn a_gap_while_something_else_changes() {
        const ELSEWHERE: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        let space = Space::new(GAP, &[(TryLock, 1, Act::Change(ELSEWHERE))]);

        assert_eq!(walk(&space), ids([1, 2]));
        // The second gap was not made by anybody.
        finished!(space, finds: 3, looks_again: 1, fallbacks: 0);
    }

    #[test]
    fn a_gap_after_the_lock() {
        const ELSEWHERE: &[Vma] = &[vma(1, 40, 50), vma(2, 50, 60)];
        let space = Space::new(GAP, &[(Verify, 1, Act::Change(ELSEWHERE))]);

        assert_eq!(walk(&space), ids([1, 2]));
        finished!(space, finds: 3, looks_again: 1, fallbacks: 0);
    }

    #[test]
    fn a_false_gap_is_the_fallback() {
        // The head of 2 is replaced by 4 before 2 is locked, as in the diagram of walk.rs.
        const HEAD_REPLACED: &[Vma] = &[vma(1, 10, 20), vma(4, 20, 25), vma(2, 25, 30)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(HEAD_REPLACED))]);

        assert_eq!(walk(&space), ids([1, 4, 2]));
        finished!(space, finds: 4, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn a_writer_between_snapshot_and_lookup_is_noticed() {
        // 2 is found when it has been shrunk already, and 4 comes only afterwards.
        const SHRUNK: &[Vma] = &[vma(1, 10, 20), vma(2, 25, 30)];
        const FILLED: &[Vma] = &[vma(1, 10, 20), vma(4, 20, 25), vma(2, 25, 30)];
        let space = Space::new(
            ABC,
            &[
                (Find, 2, Act::Change(SHRUNK)),
                (Verify, 2, Act::Change(FILLED)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 4, 2]));
        finished!(space, finds: 4, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn a_writer_at_the_snapshot_makes_every_gap_doubtful() {
        let space = Space::new(GAP, &[(Find, 0, Act::BeginWrite)]);
        space.writing.set(true);

        assert_eq!(walk(&space), ids([1]));
        // The end was doubtful too.
        finished!(space, finds: 2, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn mapped_over_the_end_of_a_gap_that_is_passed() {
        const LATER: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        const OVER: &[Vma] = &[vma(9, 30, 55), vma(2, 60, 70)];
        let space = Space::new(LATER, &[(Pass, 1, Act::Change(OVER))]);

        // 2 is what the reader finds, because 9 covers the end of the gap by then.
        assert_eq!(walk(&space), ids([9, 2]));
        finished!(space, finds: 3, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn mapped_over_the_end_of_a_gap_before_the_last() {
        const OVER: &[Vma] = &[vma(9, 30, 55)];
        let space = Space::new(GAP, &[(Pass, 1, Act::Change(OVER))]);

        // The reader finds nothing.
        assert_eq!(walk(&space), ids([9]));
        finished!(space, finds: 2, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn shrunk_to_below_the_position_is_the_fallback() {
        // 2 was found from 20 on, and has been moved to where the reader has been already.
        const MOVED: &[Vma] = &[vma(2, 2, 8), vma(1, 10, 20), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(MOVED))]);

        assert_eq!(walk(&space), ids([1, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn ending_at_the_position_is_the_fallback() {
        const SHRUNK: &[Vma] = &[vma(2, 15, 20), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(SHRUNK))]);

        assert_eq!(walk(&space), ids([1, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn grown_over_the_position_needs_no_second_lookup() {
        const GROWN: &[Vma] = &[vma(2, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(GROWN))]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn merged_once_it_was_unlocked() {
        // 1 has been shown, and grows over 2 as soon as it can.
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(Unlocked, 1, Act::Change(MERGED))]);

        assert_eq!(walk(&space), ids([1, 1, 3]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn split_before_it_was_locked() {
        // The reader locks what is left of 2, and has to find 4 although 2 covered it once.
        const SPLIT: &[Vma] = &[
            vma(1, 10, 20),
            vma(2, 20, 25),
            vma(4, 25, 30),
            vma(3, 40, 50),
        ];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(SPLIT))]);

        assert_eq!(walk(&space), ids([1, 2, 4, 3]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn the_fallback_finds_nothing() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::WriteLock(1)),
                (LockMmap, 1, Act::Change(&[])),
            ],
        );

        assert_eq!(walk(&space), ids([]));
        finished!(space, finds: 1, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn killed_in_the_fallback() {
        let space = Space::new(
            ABC,
            &[(TryLock, 2, Act::WriteLock(2)), (LockMmap, 1, Act::Kill)],
        );

        let walked = walk(&space);
        assert!(walked.killed);
        assert_eq!(walked.ids[..2], [1, 0]);
        finished!(space, finds: 2, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn too_many_readers_keeps_mmap_lock() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 2, Act::WriteLock(2)),
                (LockMmap, 1, Act::Saturate(2)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // Nothing is looked up under RCU any more.
        finished!(space, finds: 2, looks_again: 0, fallbacks: 1);
        assert_eq!(space.tries.get(), 2);
    }

    #[test]
    fn dropping_a_reader_anywhere_releases_everything() {
        for stop_at in 0..=3 {
            let space = Space::new(ABC, &[(TryLock, 2, Act::WriteLock(2))]);
            let mut step = walk::first::<Scripted<'_, true>>(&space, 0);
            for _ in 0..stop_at {
                if let Ok(Some(at)) = step {
                    assert!(!space.nothing_is_held());
                    step = walk::next(at);
                }
            }
            drop(step);

            assert_eq!(space.violations.get(), 0);
            assert!(space.nothing_is_held());
        }
    }

    #[test]
    fn without_vma_locks_all_is_under_mmap_lock() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk_by::<false>(&space, 0), ids([1, 2, 3]));
        finished!(space, finds: 0, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn without_vma_locks_killed_at_the_start() {
        let space = Space::new(ABC, &[(LockMmap, 1, Act::Kill)]);

        assert!(walk_by::<false>(&space, 0).killed);
        finished!(space, finds: 0, looks_again: 0, fallbacks: 1);
    }
}
