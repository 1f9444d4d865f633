// SPDX-License-Identifier: GPL-2.0

//! An address space that changes by a script, for KUnit tests of the protocols.
//!
//! The script says what a writer does at which moment of the reader, so that each branch of the
//! protocol is reached, every time. The address space counts what the reader does, and notes when
//! it does something that its states should have ruled out.

use crate::{
    sums::Mapping,
    walk::{self, AddressSpace, Event, LockError, StableVma},
};
use core::{cell::Cell, marker::PhantomData, ops::Range};

/// A VMA: its identity, and the addresses that it covers. The last digit of the identity tells what
/// is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    pub(crate) id: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

pub(crate) const fn vma(id: u32, start: usize, end: usize) -> Vma {
    Vma { id, start, end }
}

/// The last digit of the identity of a VMA that has to be locked to be read.
pub(crate) const NAMED: u32 = 9;

/// A moment at which a writer may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the reader looks up the next VMA.
    Find,
    /// While the reader, which looks for a VMA from an address in a gap, passes the gap.
    Pass,
    /// Before the reader tries to lock what it has found.
    TryLock,
    /// Before the reader reads what it has found without locking it.
    Copy,
    /// Before the reader finds out whether there was a writer.
    Verify,
    /// Before the reader looks at a gap once more.
    Walk,
    /// After the reader has unlocked a VMA.
    Unlocked,
    /// Before the reader takes `mmap_lock`.
    LockMmap,
    /// While the reader, which has a VMA locked, is outside of RCU.
    Sleep,
    /// After the reader has added one more address to its sum.
    Added,
    /// After the reader has released its lock for a writer that waits.
    GiveWay,
    /// While the reader waits for a writer that has a VMA locked.
    Wait,
}

/// What a writer does.
#[derive(Clone, Copy)]
pub(crate) enum Act {
    /// Changes the address space to this, under `mmap_lock`.
    Change(&'static [Vma]),
    /// Takes `mmap_lock` for writing, and has changed nothing yet.
    BeginWrite,
    /// Changes the identity of every VMA: all are detached, others take their places.
    ReplaceAll,
    /// Write-locks the VMA with this identity.
    WriteLock(u32),
    /// Releases `mmap_lock`, and with it all write locks of VMAs.
    EndWrite,
    /// Makes the VMA with this identity have as many readers as can be counted.
    Saturate(u32),
    /// Waits for what the reader has locked.
    Wait,
    /// Sends the reader a fatal signal.
    Kill,
    /// Exits, so that the reader is the last user of the address space.
    Exit,
    /// Is to run on the reader's CPU.
    NeedCpu,
}

/// At which occasion of which moment, counted from one, a writer does something. Zero is always.
pub(crate) type Step = (Moment, usize, Act);

/// An address space, the script, and what the reader has done.
pub(crate) struct Space {
    pub(crate) vmas: Cell<&'static [Vma]>,
    pub(crate) generation: Cell<u32>,
    pub(crate) sequence: Cell<u32>,
    pub(crate) writing: Cell<bool>,
    pub(crate) write_locked: Cell<Option<u32>>,
    pub(crate) saturated: Cell<Option<u32>>,
    pub(crate) waiting: Cell<bool>,
    pub(crate) killed: Cell<bool>,
    pub(crate) exited: Cell<bool>,
    pub(crate) cpu_needed: Cell<bool>,
    pub(crate) script: &'static [Step],
    pub(crate) moments: [Cell<usize>; 12],

    pub(crate) finds: Cell<usize>,
    pub(crate) tries: Cell<usize>,
    /// How often it has read a VMA without locking it.
    pub(crate) copies: Cell<usize>,
    pub(crate) looks_again: Cell<usize>,
    pub(crate) fallbacks: Cell<usize>,
    pub(crate) relaxed: Cell<usize>,
    /// How often it has checked, with a VMA locked in RCU, whether it is the last user.
    pub(crate) checks: Cell<usize>,
    /// The first events that the reader has reported.
    pub(crate) events: Cell<[Option<Event>; 16]>,
    pub(crate) locked: Cell<Option<Vma>>,
    pub(crate) held_vmas: Cell<usize>,
    pub(crate) held_rcu: Cell<usize>,
    pub(crate) held_mmap: Cell<usize>,
    pub(crate) violations: Cell<usize>,
}

impl Space {
    pub(crate) fn new(vmas: &'static [Vma], script: &'static [Step]) -> Self {
        Self {
            vmas: Cell::new(vmas),
            generation: Cell::new(0),
            sequence: Cell::new(0),
            writing: Cell::new(false),
            write_locked: Cell::new(None),
            saturated: Cell::new(None),
            waiting: Cell::new(false),
            killed: Cell::new(false),
            exited: Cell::new(false),
            cpu_needed: Cell::new(false),
            script,
            moments: [const { Cell::new(0) }; 12],
            finds: Cell::new(0),
            tries: Cell::new(0),
            copies: Cell::new(0),
            looks_again: Cell::new(0),
            fallbacks: Cell::new(0),
            relaxed: Cell::new(0),
            checks: Cell::new(0),
            events: Cell::new([None; 16]),
            locked: Cell::new(None),
            held_vmas: Cell::new(0),
            held_rcu: Cell::new(0),
            held_mmap: Cell::new(0),
            violations: Cell::new(0),
        }
    }

    /// Lets the writers do what the script has for this moment.
    pub(crate) fn moment(&self, moment: Moment) {
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
            Act::EndWrite => self.end_write(),
            Act::Saturate(id) => self.saturated.set(Some(id)),
            Act::Wait => self.waiting.set(true),
            Act::Kill => self.killed.set(true),
            Act::Exit => self.exited.set(true),
            Act::NeedCpu => self.cpu_needed.set(true),
        }
    }

    fn end_write(&self) {
        self.write_locked.set(None);
        self.writing.set(false);
    }

    /// Notes a violation unless `kept`.
    pub(crate) fn require(&self, kept: bool) {
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

    pub(crate) fn check(&self) -> Result<&Self, Stopped> {
        if self.killed.get() {
            Err(Stopped::Killed)
        } else {
            self.check_used()
        }
    }

    fn check_used(&self) -> Result<&Self, Stopped> {
        if self.exited.get() {
            Err(Stopped::Last)
        } else {
            Ok(self)
        }
    }

    pub(crate) fn nothing_is_held(&self) -> bool {
        self.held_vmas.get() == 0 && self.held_rcu.get() == 0 && self.held_mmap.get() == 0
    }
}

/// Adds one, and returns the result.
pub(crate) fn add<T: Copy + core::ops::Add<Output = T> + From<u8>>(cell: &Cell<T>) -> T {
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

pub(crate) struct Rcu<'a> {
    space: &'a Space,
    place: Place,
    _rcu: Held<'a>,
}

pub(crate) struct Found<'a> {
    vma: Vma,
    generation: u32,
    rcu: Rcu<'a>,
}

/// What was read of a VMA that was not locked.
pub(crate) struct Copied(pub(crate) Vma);

impl StableVma for Copied {
    fn range(&self) -> Range<usize> {
        self.0.start..self.0.end
    }
}

pub(crate) struct Locked<'a> {
    pub(crate) vma: Vma,
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

/// A locked VMA outside of RCU.
pub(crate) struct Sleepable<'a> {
    pub(crate) vma: Vma,
    lock: VmaLock<'a>,
}

impl StableVma for Sleepable<'_> {
    fn range(&self) -> Range<usize> {
        self.vma.start..self.vma.end
    }
}

pub(crate) struct MmapLocked<'a> {
    pub(crate) vma: Vma,
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

/// Where the sequence stood, and whether a writer was at work.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    space: &'a Space,
    sequence: u32,
    writing: bool,
}

impl<'a> Snapshot<'a> {
    fn new(space: &'a Space) -> Self {
        Self {
            space,
            sequence: space.sequence.get(),
            writing: space.writing.get(),
        }
    }
}

impl<'a> Rcu<'a> {
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

/// Why a reader has stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    Killed,
    /// It was the last user of the address space.
    Last,
}

/// The reader's view of a [`Space`], whose VMAs have locks or not.
pub(crate) struct Scripted<'a, const VMA_LOCKS: bool>(PhantomData<&'a Space>);

impl<'a, const VMA_LOCKS: bool> AddressSpace for Scripted<'a, VMA_LOCKS> {
    type Idle = &'a Space;
    type Rcu = Rcu<'a>;
    type Found = Found<'a>;
    type Fields = Copied;
    type Known = ();
    type Locked = Locked<'a>;
    type Sleepable = Sleepable<'a>;
    type MmapLocked = MmapLocked<'a>;
    type Snapshot = Snapshot<'a>;
    type Error = Stopped;

    const MAX_WAITS: usize = 2;

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

    fn snapshot(rcu: &Rcu<'a>) -> Snapshot<'a> {
        Snapshot::new(rcu.space)
    }

    fn snapshot_locked(locked: &Locked<'a>) -> Snapshot<'a> {
        Snapshot::new(locked.rcu.space)
    }

    fn changed_since(snapshot: &Snapshot<'a>) -> bool {
        snapshot.space.moment(Moment::Verify);
        snapshot.writing || snapshot.sequence != snapshot.space.sequence.get()
    }

    fn writers_since(snapshot: &Snapshot<'a>) -> bool {
        let now = Snapshot::new(snapshot.space);
        (snapshot.writing, snapshot.sequence) != (now.writing, now.sequence)
    }

    fn need_resched(rcu: &Rcu<'a>) -> bool {
        rcu.space.cpu_needed.get()
    }

    fn leave(rcu: Rcu<'a>) -> &'a Space {
        rcu.space
    }

    fn set(rcu: &mut Rcu<'a>, pos: usize) {
        rcu.place = Place::At(pos);
    }

    fn find(rcu: Rcu<'a>) -> Result<Found<'a>, &'a Space> {
        rcu.find()
    }

    fn copy(
        found: Found<'a>,
        snapshot: &Snapshot<'a>,
        _known: &(),
    ) -> Result<(Copied, Rcu<'a>), Found<'a>> {
        let space = found.rcu.space;
        space.moment(Moment::Copy);

        // What it is now, or was when it was freed.
        let vmas = space.vmas.get();
        let now = vmas.iter().copied().find(|vma| vma.id == found.vma.id);
        let vma = now.unwrap_or(found.vma);
        if vma.id % 10 == NAMED || Self::changed_since(snapshot) {
            return Err(found);
        }
        add(&space.copies);
        let rcu = Rcu {
            place: Place::After(found.vma.end - 1),
            ..found.rcu
        };
        Ok((Copied(vma), rcu))
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

    fn is_end(space: &mut &'a Space, pos: usize) -> bool {
        space.require(space.nothing_is_held());
        add(&space.looks_again);
        space.lookup(pos).is_none()
    }

    fn wait(space: &'a Space) -> Result<&'a Space, Stopped> {
        space.require(space.nothing_is_held());
        space.moment(Moment::Wait);
        space.check()
    }

    fn is_gap_before(locked: &mut Locked<'a>, pos: usize) -> bool {
        let space = locked.rcu.space;
        space.moment(Moment::Walk);
        add(&space.looks_again);
        space.lookup(pos) == Some(locked.vma)
    }

    fn unlock_in_rcu(locked: Locked<'a>) -> Rcu<'a> {
        let Locked { lock, rcu, .. } = locked;
        drop(lock);
        rcu
    }

    fn unlock(locked: Locked<'a>) -> &'a Space {
        locked.rcu.space
    }

    fn leave_rcu(locked: Locked<'a>) -> Sleepable<'a> {
        let Locked { vma, lock, .. } = locked;
        lock.space.moment(Moment::Sleep);
        Sleepable { vma, lock }
    }

    fn unlock_sleepable(held: Sleepable<'a>) -> &'a Space {
        held.lock.space
    }

    fn lock_mmap(space: &'a Space, pos: usize) -> Result<Option<MmapLocked<'a>>, Stopped> {
        space.require(space.nothing_is_held());
        space.moment(Moment::LockMmap);
        add(&space.fallbacks);
        if space.killed.get() {
            return Err(Stopped::Killed);
        }

        // The writer has to finish before the reader gets `mmap_lock`.
        space.end_write();

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

    fn unlock_mmap(at: MmapLocked<'a>) -> &'a Space {
        at.space
    }

    fn is_contended(at: &walk::At<Self>) -> bool {
        of(at).0.waiting.get()
    }

    fn count(space: &&'a Space, _pos: usize, event: Event) {
        space.require(space.nothing_is_held());
        let mut events = space.events.get();
        if let Some(place) = events.iter_mut().find(|place| place.is_none()) {
            *place = Some(event);
        }
        space.events.set(events);
    }

    fn check(at: &walk::At<Self>) -> Result<(), Stopped> {
        let (space, _) = of(at);
        add(&space.checks);
        space.check_used().map(|_| ())
    }

    fn resched(space: &'a Space) -> Result<&'a Space, Stopped> {
        space.require(space.nothing_is_held());
        add(&space.relaxed);
        space.cpu_needed.set(false);
        space.check()?;
        if space.waiting.replace(false) {
            space.moment(Moment::GiveWay);
        }
        space.check()
    }
}

impl<'a, const VMA_LOCKS: bool> Mapping for Scripted<'a, VMA_LOCKS> {
    type Mapping = u32;

    fn mapping(at: &walk::At<Self>) -> u32 {
        of(at).1.id % 10
    }
}

/// Returns the address space and the VMA at which a reader stands in RCU.
pub(crate) fn of<'a, const VMA_LOCKS: bool>(
    at: &walk::At<Scripted<'a, VMA_LOCKS>>,
) -> (&'a Space, Vma) {
    match at {
        walk::At::Vma(locked) => (locked.lock.space, locked.vma),
        walk::At::Mmap(at) => (at.space, at.vma),
    }
}

/// Returns the address space and the VMA at which a reader stands.
pub(crate) fn of_held<'a, const VMA_LOCKS: bool>(
    held: &walk::Held<Scripted<'a, VMA_LOCKS>>,
) -> (&'a Space, Vma) {
    match held {
        walk::Held::Vma(held) => (held.lock.space, held.vma),
        walk::Held::Mmap(at) => (at.space, at.vma),
    }
}
