// SPDX-License-Identifier: GPL-2.0

//! The objects of the kernel that readers and writers share, and the reader's side of them.
//!
//! Each object is one of `loom`'s, so that steps on different objects are not permuted. A step is
//! one atomic access of the kernel's. The order of steps in a thread is the kernel's, and all
//! threads see them in one order: weaker memory orders are not modelled.

use crate::{
    history::{Area, History, Who},
    sums::Mapping,
    walk::{self, AddressSpace, Event, LockError, StableVma},
};
use loom::{
    cell::UnsafeCell,
    sync::{Condvar, Mutex},
};
use std::{cell::Cell, cell::RefCell, convert::Infallible, marker::PhantomData, ops::Range};

/// How many `struct vm_area_struct` there are.
pub(crate) const SLOTS: usize = 8;

/// `VM_REFCNT_EXCLUDE_READERS_FLAG`.
const EXCLUDE_READERS: u32 = 1 << 16;

/// `VM_REFCNT_LIMIT`, small enough to be reached.
const LIMIT: u32 = 8;

/// The address space that is read, and another one.
const MM: usize = 0;
const OTHER_MM: usize = 1;

/// `mm_lock_seq` of the other address space while its writer has it.
const OTHER_SEQ: u32 = 101;

/// An object on which every step is atomic.
struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn step<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

/// An object on which every step is atomic, and for whose state threads can wait.
struct Monitor<T> {
    /// The state, and how many threads sleep.
    state: Mutex<(T, usize)>,
    changed: Condvar,
}

impl<T> Monitor<T> {
    fn new(value: T) -> Self {
        Self {
            state: Mutex::new((value, 0)),
            changed: Condvar::new(),
        }
    }

    /// One step. Wakes those that wait.
    fn step<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.state.lock().unwrap();
        let result = f(&mut state.0);
        if state.1 > 0 {
            self.changed.notify_all();
        }
        result
    }

    /// Waits, and then does one step. Before it sleeps it calls `queue` once, and once it is awake
    /// `f` is told that.
    fn step_when<R>(
        &self,
        ready: impl Fn(&T) -> bool,
        queue: impl FnOnce(&mut T),
        f: impl FnOnce(&mut T, bool) -> R,
    ) -> R {
        let mut state = self.state.lock().unwrap();
        let sleeps = !ready(&state.0);
        if sleeps {
            queue(&mut state.0);
        }
        while !ready(&state.0) {
            state.1 += 1;
            state = self.changed.wait(state).unwrap();
            state.1 -= 1;
        }
        f(&mut state.0, sleeps)
    }
}

/// `mmap_lock`.
#[derive(Default)]
struct MmapLock {
    writer: bool,
    readers: usize,
    waiting: usize,
}

/// An entry of the maple tree.
#[derive(Clone, Copy)]
struct Entry {
    start: usize,
    end: usize,
    vma: usize,
}

/// The maple tree, which has one node. A store is one step.
struct Tree {
    entries: Vec<Entry>,
    /// Which node it is.
    node: usize,
}

impl Tree {
    /// The first entry that ends above an address.
    fn above(&self, pos: usize) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.end > pos).copied()
    }

    /// The ranges that the node has slots for: where each ends, and whether something is there.
    fn ranges(&self) -> Vec<(usize, bool)> {
        let mut ranges = Vec::new();
        let mut last = 0;
        for entry in &self.entries {
            if entry.start > last {
                ranges.push((entry.start, false));
            }
            ranges.push((entry.end, true));
            last = entry.end;
        }
        ranges.push((usize::MAX, false));
        ranges
    }

    /// As long as there are as many ranges as before, a store changes the node in place.
    fn store(&mut self, entries: Vec<Entry>) {
        let before = self.ranges().len();
        self.entries = entries;
        self.node += usize::from(self.ranges().len() != before);
    }
}

/// What a walk down the tree, `mas_walk`, sees at an address if it is one step: the entry, or the
/// end of the gap.
fn mas_walk(tree: &Tree, pos: usize) -> Result<Entry, usize> {
    match tree.above(pos) {
        Some(entry) if entry.start <= pos => Ok(entry),
        next => Err(next.map_or(usize::MAX, |entry| entry.start)),
    }
}

/// What `mas_next_slot` finds after the entry, or gap, that covers `last` now.
fn mas_next(tree: &Tree, last: usize) -> Option<Entry> {
    let from = match mas_walk(tree, last) {
        Ok(entry) => entry.end,
        Err(end_of_gap) => end_of_gap,
    };
    tree.above(from)
}

/// A `struct vm_area_struct`.
///
/// What is not for lockless access is in a cell for which `loom` checks that no access can be
/// concurrent with a change.
struct Vma {
    vm_refcnt: Monitor<u32>,
    vm_lock_seq: Shared<u32>,
    vm_mm: UnsafeCell<usize>,
    /// `vm_start`, `vm_end`, and something that stands for `vm_flags`.
    fields: UnsafeCell<(Range<usize>, u8)>,
    /// The same, for a reader that reads them without a lock.
    lockless: Option<Lockless>,
}

/// Fields that are read and written one by one.
struct Lockless {
    start: Shared<usize>,
    end: Shared<usize>,
    kind: Shared<u8>,
}

impl Lockless {
    fn new(range: Range<usize>, kind: u8) -> Self {
        Self {
            start: Shared::new(range.start),
            end: Shared::new(range.end),
            kind: Shared::new(kind),
        }
    }
}

impl Vma {
    fn vm_mm(&self) -> usize {
        // SAFETY: `loom` panics if the cell can be written to meanwhile.
        self.vm_mm.with(|mm| unsafe { *mm })
    }

    fn set_mm(&self, mm: usize) {
        // SAFETY: `loom` panics if the cell can be used meanwhile.
        self.vm_mm.with_mut(|vm_mm| unsafe { *vm_mm = mm });
    }

    fn fields(&self) -> (Range<usize>, u8) {
        // SAFETY: `loom` panics if the cell can be written to meanwhile.
        self.fields.with(|fields| unsafe { (*fields).clone() })
    }

    fn set(&self, range: Range<usize>, kind: u8) {
        // SAFETY: `loom` panics if the cell can be used meanwhile.
        self.fields
            .with_mut(|fields| unsafe { *fields = (range.clone(), kind) });
        if let Some(lockless) = &self.lockless {
            lockless.start.step(|start| *start = range.start);
            lockless.end.step(|end| *end = range.end);
            lockless.kind.step(|it| *it = kind);
        }
    }
}

/// An address space, and what has happened to it.
pub(crate) struct Space {
    mm_lock_seq: Shared<u32>,
    mm_mt: Shared<Tree>,
    mmap_lock: Monitor<MmapLock>,
    /// The VMAs that are free. The last one is taken first, as from a slab cache.
    slab: Shared<Vec<usize>>,
    vmas: Vec<Vma>,
    pub(crate) history: std::sync::Arc<History>,
}

// SAFETY: The cells in it are checked by `loom`, everything else may be shared.
unsafe impl Sync for Space {}

impl Space {
    /// Makes an address space. The VMA at `full` has as many readers as can be counted. If it
    /// `has_copies`, VMAs can be read without a lock, for which a writer needs more steps.
    pub(crate) fn new(
        areas: &[Area],
        full: Option<usize>,
        has_copies: bool,
        history: std::sync::Arc<History>,
    ) -> Self {
        let vma = |slot| {
            let area = areas.iter().find(|area| area.vma == slot);
            let refcnt = match area {
                Some(area) if full == Some(area.start) => LIMIT,
                Some(_) => 1,
                None => 0,
            };
            let (range, kind) = area.map_or((0..0, 0), |a| (a.start..a.end, a.kind));
            Vma {
                vm_refcnt: Monitor::new(refcnt),
                vm_lock_seq: Shared::new(u32::MAX),
                vm_mm: UnsafeCell::new(MM),
                fields: UnsafeCell::new((range.clone(), kind)),
                lockless: has_copies.then(|| Lockless::new(range, kind)),
            }
        };

        history.commit(areas);
        Self {
            mm_lock_seq: Shared::new(0),
            mm_mt: Shared::new(Tree {
                entries: entries(areas),
                node: 0,
            }),
            mmap_lock: Monitor::new(MmapLock::default()),
            slab: Shared::new((areas.len()..SLOTS).rev().collect()),
            vmas: (0..SLOTS).map(vma).collect(),
            history,
        }
    }

    /// `down_read`.
    fn mmap_read_lock(&self, who: Who) {
        self.mmap_lock.step_when(
            |lock| !lock.writer,
            |lock| {
                self.history.step(who, "waits for mmap_lock, to read", &[]);
                lock.waiting += 1;
            },
            |lock, has_waited| {
                self.history.step(who, "takes mmap_lock for reading", &[]);
                lock.waiting -= usize::from(has_waited);
                lock.readers += 1;
            },
        );
    }

    /// `up_read`.
    pub(crate) fn mmap_read_unlock(&self, who: Who) {
        self.mmap_lock.step(|lock| {
            self.history.step(who, "releases mmap_lock", &[]);
            lock.readers -= 1;
        });
    }

    /// `vma_refcount_put`.
    fn vma_refcount_put(&self, who: Who, vma: usize) {
        self.vmas[vma].vm_refcnt.step(|refcnt| {
            self.history.step(who, "drops its reference to VMA", &[vma]);
            *refcnt -= 1;
        });
    }
}

fn entries(areas: &[Area]) -> Vec<Entry> {
    let entry = |area: &Area| Entry {
        start: area.start,
        end: area.end,
        vma: area.vma,
    };
    areas.iter().map(entry).collect()
}

/// The steps of a writer.
impl Space {
    /// `mmap_write_lock`.
    pub(crate) fn mmap_write_lock(&self, who: Who) {
        self.mmap_lock.step_when(
            |lock| !lock.writer && lock.readers == 0,
            |lock| {
                self.history.step(who, "waits for mmap_lock, to write", &[]);
                lock.waiting += 1;
            },
            |lock, has_waited| {
                self.history.step(who, "takes mmap_lock for writing", &[]);
                lock.waiting -= usize::from(has_waited);
                lock.writer = true;
            },
        );
        self.mm_lock_seq.step(|seq| {
            self.history.step(who, "makes mm_lock_seq odd", &[]);
            self.history.begin();
            *seq += 1;
        });
    }

    /// `vma_end_write_all`, after which everybody can see `areas`.
    fn vma_end_write_all(&self, who: Who, areas: &[Area]) {
        self.mm_lock_seq.step(|seq| {
            self.history.step(who, "makes mm_lock_seq even", &[]);
            self.history.commit(areas);
            *seq += 1;
        });
    }

    pub(crate) fn mmap_write_unlock(&self, who: Who, areas: &[Area]) {
        self.vma_end_write_all(who, areas);
        self.mmap_lock.step(|lock| {
            self.history.step(who, "releases mmap_lock", &[]);
            lock.writer = false;
        });
    }

    pub(crate) fn mmap_write_downgrade(&self, who: Who, areas: &[Area]) {
        self.vma_end_write_all(who, areas);
        self.mmap_lock.step(|lock| {
            self.history.step(who, "keeps mmap_lock for reading", &[]);
            lock.writer = false;
            lock.readers += 1;
        });
    }

    /// `__vma_start_exclude_readers`. Returns `false` if the VMA is detached.
    fn exclude_readers(&self, who: Who, vma: usize, target: u32) -> bool {
        let refcnt = &self.vmas[vma].vm_refcnt;
        let attached = refcnt.step(|refcnt| {
            if *refcnt != 0 {
                self.history.step(who, "excludes readers of VMA", &[vma]);
                *refcnt += EXCLUDE_READERS;
            }
            *refcnt != 0
        });
        if attached {
            refcnt.step_when(
                |refcnt| *refcnt == target,
                |_| self.history.step(who, "waits for readers of VMA", &[vma]),
                |_, _| (),
            );
        }
        attached
    }

    /// `__vma_end_exclude_readers`.
    fn end_exclude_readers(&self, vma: usize) {
        let refcnt = &self.vmas[vma].vm_refcnt;
        refcnt.step(|refcnt| *refcnt -= EXCLUDE_READERS);
    }

    fn start_write(&self, who: Who, vma: usize, seq: u32) {
        let exclusive = self.exclude_readers(who, vma, EXCLUDE_READERS + 1);
        self.vmas[vma].vm_lock_seq.step(|lock_seq| {
            self.history.step(who, "write-locks VMA", &[vma]);
            *lock_seq = seq;
        });
        if exclusive {
            self.end_exclude_readers(vma);
        }
    }

    /// `__vma_start_write`.
    pub(crate) fn vma_start_write(&self, who: Who, vma: usize) {
        // Only the writer changes the number, so for it to read that is not a step.
        self.start_write(who, vma, self.history.seq());
    }

    /// `vma_mark_attached`.
    pub(crate) fn vma_mark_attached(&self, who: Who, vma: usize) {
        self.vmas[vma].vm_refcnt.step(|refcnt| {
            self.history.step(who, "attaches VMA", &[vma]);
            *refcnt = 1;
        });
    }

    /// `vma_mark_detached`.
    pub(crate) fn vma_mark_detached(&self, who: Who, vma: usize) {
        let rest = self.vmas[vma].vm_refcnt.step(|refcnt| {
            self.history.step(who, "detaches VMA", &[vma]);
            *refcnt -= 1;
            *refcnt
        });
        if rest != 0 && self.exclude_readers(who, vma, EXCLUDE_READERS) {
            self.end_exclude_readers(vma);
        }
    }

    /// `vm_area_alloc` or `vm_area_dup`.
    pub(crate) fn vm_area_alloc(&self, who: Who, range: Range<usize>, kind: u8) -> usize {
        self.alloc(who, MM, range, kind)
    }

    fn alloc(&self, who: Who, mm: usize, range: Range<usize>, kind: u8) -> usize {
        let vma = self.slab.step(|free| free.pop().expect("no VMA is free"));
        self.vmas[vma]
            .vm_lock_seq
            .step(|lock_seq| *lock_seq = u32::MAX);
        self.history
            .step(who, "allocates VMA, range", &[vma, range.start, range.end]);
        self.vmas[vma].set_mm(mm);
        self.vmas[vma].set(range, kind);
        vma
    }

    /// `vm_area_free`. A VMA can be had again at once, though readers in RCU know it.
    pub(crate) fn vm_area_free(&self, who: Who, vma: usize) {
        self.slab.step(|free| {
            self.history.step(who, "frees VMA", &[vma]);
            free.push(vma);
        });
    }

    /// Maps something in another address space, which gets the VMA that was freed last.
    pub(crate) fn mmap_elsewhere(&self, who: Who) {
        let vma = self.alloc(who, OTHER_MM, 0..2, 1);
        self.start_write(who, vma, OTHER_SEQ);
        self.vma_mark_attached(who, vma);
    }

    /// Sets `vm_start`, `vm_end` and `vm_flags`.
    pub(crate) fn vma_set(&self, who: Who, area: Area) {
        self.history
            .step(who, "sets VMA to", &[area.vma, area.start, area.end]);
        self.vmas[area.vma].set(area.start..area.end, area.kind);
    }

    /// `vma_iter_store_overwrite`, `vma_iter_clear`.
    pub(crate) fn store(&self, who: Who, areas: &[Area]) {
        self.mm_mt.step(|tree| {
            self.history.step(who, "stores to the tree", &[]);
            tree.store(entries(areas));
        });
    }
}

/// An error that is made on purpose in the steps of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The previous VMA is unlocked before the snapshot is taken.
    UnlockEarly,
    /// The iterator goes on from the entry that it has found, whoever was there since.
    NoSet,
    /// The iterator goes on from the last address that the VMA had when it was found.
    StaleIterator,
    /// Whether the VMA is write-locked is not looked at again once there is a reference to it.
    NoLockSeq,
    /// The VMA's address space is not looked at.
    NoMm,
    /// The gap is not looked at.
    AnyGap,
    /// Whether there is another VMA is not looked at again.
    AnyEnd,
    /// Whether a writer has come is not looked at again once a VMA has been copied.
    AnyCopy,
}

pub(crate) const FAULTS: &[(&str, Fault)] = &[
    ("unlock-early", Fault::UnlockEarly),
    ("no-set", Fault::NoSet),
    ("stale-iterator", Fault::StaleIterator),
    ("no-lock-seq", Fault::NoLockSeq),
    ("no-mm", Fault::NoMm),
    ("any-gap", Fault::AnyGap),
    ("any-end", Fault::AnyEnd),
    ("any-copy", Fault::AnyCopy),
];

/// How often a reader has looked for a VMA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) under_rcu: usize,
    pub(crate) to_verify: usize,
    pub(crate) under_mmap_lock: usize,
}

impl Lookups {
    pub(crate) fn max_of_each(self, other: Self) -> Self {
        Self {
            under_rcu: self.under_rcu.max(other.under_rcu),
            to_verify: self.to_verify.max(other.to_verify),
            under_mmap_lock: self.under_mmap_lock.max(other.under_mmap_lock),
        }
    }
}

/// A reader, by what it holds and has done.
pub(crate) struct Reader<'a> {
    pub(crate) space: &'a Space,
    pub(crate) fault: Option<Fault>,
    held_rcu: Cell<usize>,
    held_vmas: Cell<usize>,
    held_mmap: Cell<usize>,
    lookups: Cell<Lookups>,
    /// The most that it took to get to one VMA, or to the end.
    pub(crate) worst: Cell<Lookups>,
    pub(crate) events: RefCell<Vec<Event>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(space: &'a Space, fault: Option<Fault>) -> Self {
        Self {
            space,
            fault,
            held_rcu: Cell::new(0),
            held_vmas: Cell::new(0),
            held_mmap: Cell::new(0),
            lookups: Cell::default(),
            worst: Cell::default(),
            events: RefCell::default(),
        }
    }

    fn step(&self, what: &'static str, numbers: &[usize]) {
        self.space.history.step(Who::Reader, what, numbers);
    }

    fn require(&self, kept: bool, what: &str) {
        if !kept {
            self.space.history.violation(what.into());
        }
    }

    /// Nothing is held.
    pub(crate) fn require_idle(&self, when: &str) {
        let held = (
            self.held_rcu.get(),
            self.held_vmas.get(),
            self.held_mmap.get(),
        );
        self.require(
            held == (0, 0, 0),
            &format!("RCU, VMA and mmap_lock are held {held:?} times {when}"),
        );
    }

    fn count(&self, add: impl FnOnce(&mut Lookups)) {
        let mut lookups = self.lookups.get();
        add(&mut lookups);
        self.lookups.set(lookups);

        self.worst.set(self.worst.get().max_of_each(lookups));
    }

    /// `mas_walk`, as two steps: it reads the ranges of a node, and then what is in the one that
    /// covers `pos`. It starts again if the node has been replaced. Returns where that range ends,
    /// if nothing is mapped there.
    fn gap_at(&self, pos: usize) -> Option<usize> {
        let tree = &self.space.mm_mt;
        loop {
            let (node, slot, end) = tree.step(|tree| {
                let ranges = tree.ranges();
                let slot = ranges.partition_point(|&(end, _)| end <= pos);
                let end = ranges[slot].0;
                self.step("looks again at", &[pos]);
                (tree.node, slot, end)
            });
            let is_mapped = tree.step(|tree| {
                self.step("looks what is in the range up to", &[end]);
                (tree.node == node).then(|| tree.ranges()[slot].1)
            });
            if let Some(is_mapped) = is_mapped {
                return (!is_mapped).then_some(end);
            }
        }
    }

    /// The reader has got to a VMA.
    pub(crate) fn arrived(&self) {
        self.lookups.set(Lookups::default());
    }

    /// `vma_start_read`, but for its first check, which is made without a reference and only saves
    /// taking one: whom it keeps from the VMA, the second check or the reference count does too,
    /// or the VMA is detached by then.
    fn vma_start_read(&'a self, vma: usize) -> Result<VmaLock<'a>, LockError> {
        let space = self.space;
        let object = &space.vmas[vma];
        let is_write_locked = || {
            let lock_seq = object.vm_lock_seq.step(|lock_seq| {
                self.step("reads vm_lock_seq of VMA", &[vma]);
                *lock_seq
            });
            lock_seq
                == space.mm_lock_seq.step(|seq| {
                    self.step("reads mm_lock_seq, which is", &[*seq as usize]);
                    *seq
                })
        };

        let old = object.vm_refcnt.step(|refcnt| {
            let old = *refcnt;
            if old != 0 && old < LIMIT {
                self.step("gets a reference to VMA", &[vma]);
                *refcnt += 1;
            } else {
                self.step("gets no reference to VMA", &[vma]);
            }
            old
        });
        if old == 0 {
            return Err(LockError::Detached);
        }
        if old >= LIMIT {
            return Err(LockError::Contended);
        }
        if (self.fault != Some(Fault::NoMm) && object.vm_mm() != MM)
            || (self.fault != Some(Fault::NoLockSeq) && is_write_locked())
        {
            space.vma_refcount_put(Who::Reader, vma);
            return Err(LockError::Contended);
        }
        Ok(VmaLock::new(self, vma))
    }

    /// `vma_start_read_locked`.
    fn vma_start_read_locked(&'a self, vma: usize) -> Option<VmaLock<'a>> {
        self.space.vmas[vma].vm_refcnt.step(|refcnt| {
            let room = *refcnt != 0 && *refcnt < LIMIT;
            if room {
                self.step("gets a reference to VMA", &[vma]);
                *refcnt += 1;
            } else {
                self.step("gets no reference to VMA", &[vma]);
            }
            room.then(|| VmaLock::new(self, vma))
        })
    }
}

/// An RCU section.
struct Rcu<'a>(&'a Reader<'a>);

impl<'a> Rcu<'a> {
    fn new(reader: &'a Reader<'a>) -> Self {
        reader.held_rcu.set(reader.held_rcu.get() + 1);
        Self(reader)
    }
}

impl Drop for Rcu<'_> {
    fn drop(&mut self) {
        self.0.held_rcu.set(self.0.held_rcu.get() - 1);
    }
}

/// The read lock of a VMA.
struct VmaLock<'a> {
    reader: &'a Reader<'a>,
    vma: usize,
    /// It has been unlocked already, by [`Fault::UnlockEarly`].
    is_gone: Cell<bool>,
}

impl<'a> VmaLock<'a> {
    fn new(reader: &'a Reader<'a>, vma: usize) -> Self {
        reader.held_vmas.set(reader.held_vmas.get() + 1);
        Self {
            reader,
            vma,
            is_gone: Cell::new(false),
        }
    }

    fn area(&self) -> Area {
        let (range, kind) = self.reader.space.vmas[self.vma].fields();
        Area::new(self.vma, range, kind)
    }
}

impl Drop for VmaLock<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let held = &self.reader.held_vmas;
        held.set(held.get() - 1);
        if !self.is_gone.get() {
            self.reader.space.vma_refcount_put(Who::Reader, self.vma);
        }
    }
}

/// `mmap_lock`, held for reading.
struct MmapGuard<'a>(&'a Reader<'a>);

impl Drop for MmapGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.0.held_mmap.set(self.0.held_mmap.get() - 1);
        self.0.space.mmap_read_unlock(Who::Reader);
    }
}

/// Where an iterator is.
#[derive(Clone, Copy)]
enum Place {
    /// It was set to this address.
    At(usize),
    /// It has found an entry, and this is its last address.
    After(usize),
}

pub(crate) struct RcuIter<'a> {
    place: Place,
    rcu: Rcu<'a>,
}

pub(crate) struct Found<'a> {
    entry: Entry,
    rcu: Rcu<'a>,
}

/// What was read of a VMA without a lock.
pub(crate) struct Copied(Area);

impl Copied {
    pub(crate) fn area(&self) -> Area {
        self.0
    }
}

pub(crate) struct Locked<'a> {
    lock: VmaLock<'a>,
    iter: RcuIter<'a>,
}

pub(crate) struct Sleepable<'a>(VmaLock<'a>);

pub(crate) struct MmapLocked<'a> {
    entry: Entry,
    guard: MmapGuard<'a>,
}

/// Where `mm_lock_seq` stood. It is odd if a writer was there.
pub(crate) struct Snapshot<'a>(&'a Reader<'a>, u32);

impl<'a> Snapshot<'a> {
    /// `mmap_lock_speculate_try_begin`.
    fn new(reader: &'a Reader<'a>) -> Self {
        let seq = reader.space.mm_lock_seq.step(|seq| {
            reader.step("takes a snapshot, mm_lock_seq is", &[*seq as usize]);
            *seq
        });
        Self(reader, seq)
    }

    /// `mmap_lock_speculate_retry`, for a sequence that may be odd.
    fn retry(&self) -> bool {
        let Self(reader, snapshot) = self;
        reader.space.mm_lock_seq.step(|seq| {
            reader.step("compares mm_lock_seq, which is", &[*seq as usize]);
            seq != snapshot
        })
    }
}

impl<'a> RcuIter<'a> {
    /// `vma_next`.
    ///
    /// A search from an address in a gap is two steps: the one walks to the gap, the other goes on
    /// from its last address.
    fn next(self) -> Result<Found<'a>, &'a Reader<'a>> {
        let Self { place, rcu } = self;
        let reader = rcu.0;
        let tree = &reader.space.mm_mt;
        reader.count(|lookups| lookups.under_rcu += 1);

        let tell = |entry: Option<Entry>| {
            match entry {
                Some(Entry { start, end, vma }) => reader.step("finds VMA", &[vma, start, end]),
                None => reader.step("finds no VMA", &[]),
            }
            entry
        };
        let last = match place {
            Place::After(last) => Err(last),
            Place::At(pos) => tree.step(|tree| match mas_walk(tree, pos) {
                Ok(entry) => Ok(tell(Some(entry))),
                Err(usize::MAX) => Ok(tell(None)),
                Err(end_of_gap) => {
                    reader.step("passes a gap up to", &[end_of_gap]);
                    Err(end_of_gap - 1)
                }
            }),
        };
        let found = match last {
            Ok(found) => found,
            Err(last) => tree.step(|tree| tell(mas_next(tree, last))),
        };

        match found {
            Some(entry) => Ok(Found { entry, rcu }),
            None => Err(reader),
        }
    }
}

impl StableVma for Copied {
    fn range(&self) -> Range<usize> {
        self.0.range()
    }
}

impl StableVma for Locked<'_> {
    fn range(&self) -> Range<usize> {
        self.lock.area().range()
    }
}

impl StableVma for Sleepable<'_> {
    fn range(&self) -> Range<usize> {
        self.0.area().range()
    }
}

impl MmapLocked<'_> {
    fn area(&self) -> Area {
        let vma = self.entry.vma;
        let (range, kind) = self.guard.0.space.vmas[vma].fields();
        Area::new(vma, range, kind)
    }
}

impl StableVma for MmapLocked<'_> {
    fn range(&self) -> Range<usize> {
        self.area().range()
    }
}

/// The reader's view of a [`Space`].
pub(crate) struct Model<'a>(PhantomData<&'a Space>);

impl<'a> AddressSpace for Model<'a> {
    type Idle = &'a Reader<'a>;
    type Rcu = RcuIter<'a>;
    type Found = Found<'a>;
    type Fields = Copied;
    type Known = ();
    type Locked = Locked<'a>;
    type Sleepable = Sleepable<'a>;
    type MmapLocked = MmapLocked<'a>;
    type Snapshot = Snapshot<'a>;
    type Error = Infallible;

    const MAX_WAITS: usize = 1;

    fn enter_rcu(reader: &'a Reader<'a>, pos: usize) -> Result<RcuIter<'a>, &'a Reader<'a>> {
        reader.require_idle("when RCU is entered");
        Ok(RcuIter {
            place: Place::At(pos),
            rcu: Rcu::new(reader),
        })
    }

    fn snapshot(iter: &RcuIter<'a>) -> Snapshot<'a> {
        Snapshot::new(iter.rcu.0)
    }

    fn snapshot_locked(locked: &Locked<'a>) -> Snapshot<'a> {
        let reader = locked.lock.reader;
        if reader.fault == Some(Fault::UnlockEarly) {
            reader.space.vma_refcount_put(Who::Reader, locked.lock.vma);
            locked.lock.is_gone.set(true);
        }
        Snapshot::new(reader)
    }

    fn changed_since(snapshot: &Snapshot<'a>) -> bool {
        snapshot.1 % 2 != 0 || snapshot.retry()
    }

    fn writers_since(snapshot: &Snapshot<'a>) -> bool {
        snapshot.retry()
    }

    // To leave RCU is what the reader `sleep` does.
    fn need_resched(_iter: &RcuIter<'a>) -> bool {
        false
    }

    fn leave(iter: RcuIter<'a>) -> &'a Reader<'a> {
        iter.rcu.0
    }

    fn set(iter: &mut RcuIter<'a>, pos: usize) {
        if iter.rcu.0.fault != Some(Fault::NoSet) {
            iter.place = Place::At(pos);
        }
    }

    fn find(iter: RcuIter<'a>) -> Result<Found<'a>, &'a Reader<'a>> {
        iter.next()
    }

    fn copy(
        found: Found<'a>,
        snapshot: &Snapshot<'a>,
        _known: &(),
    ) -> Result<(Copied, RcuIter<'a>), Found<'a>> {
        let entry = found.entry;
        let reader = found.rcu.0;
        let Some(lockless) = &reader.space.vmas[entry.vma].lockless else {
            return Err(found);
        };

        let start = lockless.start.step(|start| *start);
        let end = lockless.end.step(|end| *end);
        let kind = lockless.kind.step(|kind| *kind);
        reader.step("reads of VMA that it is", &[entry.vma, start, end]);

        if Self::changed_since(snapshot) && reader.fault != Some(Fault::AnyCopy) {
            return Err(found);
        }
        let iter = RcuIter {
            place: Place::After(entry.end - 1),
            rcu: found.rcu,
        };
        Ok((Copied(Area::new(entry.vma, start..end, kind)), iter))
    }

    fn try_lock(found: Found<'a>) -> Result<Locked<'a>, (LockError, &'a Reader<'a>)> {
        let Found { entry, rcu } = found;
        let reader = rcu.0;
        let lock = reader
            .vma_start_read(entry.vma)
            .map_err(|error| (error, reader))?;

        let end = lock.area().end;
        let place = if end == entry.end || reader.fault == Some(Fault::StaleIterator) {
            Place::After(entry.end - 1)
        } else {
            Place::At(end)
        };
        Ok(Locked {
            lock,
            iter: RcuIter { place, rcu },
        })
    }

    fn is_end(reader: &mut &'a Reader<'a>, pos: usize) -> bool {
        reader.require_idle("when the end is verified");
        reader.count(|lookups| lookups.to_verify += 1);
        reader.gap_at(pos) == Some(usize::MAX) || reader.fault == Some(Fault::AnyEnd)
    }

    fn wait(reader: &'a Reader<'a>) -> Result<&'a Reader<'a>, Infallible> {
        reader.require_idle("when the reader waits");
        loom::thread::yield_now();
        Ok(reader)
    }

    fn is_gap_before(locked: &mut Locked<'a>, pos: usize) -> bool {
        let reader = locked.lock.reader;
        let area = locked.lock.area();
        reader.count(|lookups| lookups.to_verify += 1);

        let seen = reader.gap_at(pos);
        locked.iter.place = Place::At(area.end);
        seen == Some(area.start) || reader.fault == Some(Fault::AnyGap)
    }

    fn unlock_in_rcu(locked: Locked<'a>) -> RcuIter<'a> {
        let Locked { lock, iter } = locked;
        drop(lock);
        iter
    }

    fn unlock(locked: Locked<'a>) -> &'a Reader<'a> {
        locked.lock.reader
    }

    fn leave_rcu(locked: Locked<'a>) -> Sleepable<'a> {
        Sleepable(locked.lock)
    }

    fn unlock_sleepable(held: Sleepable<'a>) -> &'a Reader<'a> {
        held.0.reader
    }

    fn lock_mmap(reader: &'a Reader<'a>, pos: usize) -> Result<Option<MmapLocked<'a>>, Infallible> {
        reader.require_idle("when mmap_lock is taken");
        reader.space.mmap_read_lock(Who::Reader);
        reader.held_mmap.set(reader.held_mmap.get() + 1);
        Ok(find_under_mmap_lock(MmapGuard(reader), pos))
    }

    fn lock_vma(at: MmapLocked<'a>) -> Result<Locked<'a>, MmapLocked<'a>> {
        let reader = at.guard.0;
        let Some(lock) = reader.vma_start_read_locked(at.entry.vma) else {
            return Err(at);
        };
        drop(at);
        let place = Place::At(lock.area().end);
        let rcu = Rcu::new(reader);
        Ok(Locked {
            lock,
            iter: RcuIter { place, rcu },
        })
    }

    fn next_under_mmap_lock(at: MmapLocked<'a>) -> Option<MmapLocked<'a>> {
        find_under_mmap_lock(at.guard, at.entry.end)
    }

    fn unlock_mmap(at: MmapLocked<'a>) -> &'a Reader<'a> {
        at.guard.0
    }

    fn is_contended(at: &walk::At<Self>) -> bool {
        match at {
            walk::At::Vma(locked) => locked.lock.is_waited_for(),
            walk::At::Mmap(at) => at.guard.is_waited_for(),
        }
    }

    fn count(reader: &&'a Reader<'a>, _pos: usize, event: Event) {
        reader.require_idle("when an event is noted");
        reader.events.borrow_mut().push(event);
    }

    fn check(_at: &walk::At<Self>) -> Result<(), Infallible> {
        Ok(())
    }

    fn resched(reader: &'a Reader<'a>) -> Result<&'a Reader<'a>, Infallible> {
        reader.require_idle("when others may run");
        Ok(reader)
    }
}

/// Whatever is mapped is the same mapping.
impl<'a> Mapping for Model<'a> {
    type Mapping = ();

    fn mapping(_at: &walk::At<Self>) {}
}

fn find_under_mmap_lock(guard: MmapGuard<'_>, pos: usize) -> Option<MmapLocked<'_>> {
    let reader = guard.0;
    reader.count(|lookups| lookups.under_mmap_lock += 1);
    let entry = reader.space.mm_mt.step(|tree| tree.above(pos))?;
    reader.step(
        "finds VMA under mmap_lock",
        &[entry.vma, entry.start, entry.end],
    );
    Some(MmapLocked { entry, guard })
}

/// The VMA at which a reader stands in RCU.
pub(crate) fn area_at(at: &walk::At<Model<'_>>) -> Area {
    match at {
        walk::At::Vma(locked) => locked.lock.area(),
        walk::At::Mmap(at) => at.area(),
    }
}

impl VmaLock<'_> {
    /// Whether a writer waits for it.
    fn is_waited_for(&self) -> bool {
        self.reader.space.vmas[self.vma].vm_refcnt.step(|refcnt| {
            let contended = *refcnt & EXCLUDE_READERS != 0;
            if contended {
                self.reader.step("sees that a writer waits", &[]);
            }
            contended
        })
    }
}

impl MmapGuard<'_> {
    /// Whether anybody waits for it.
    fn is_waited_for(&self) -> bool {
        let waiting = |lock: &mut MmapLock| lock.waiting > 0;
        self.0.space.mmap_lock.step(waiting)
    }
}

/// Whether somebody waits for what a reader holds.
pub(crate) fn is_waited_for(held: &walk::Held<Model<'_>>) -> bool {
    match held {
        walk::Held::Vma(held) => held.0.is_waited_for(),
        walk::Held::Mmap(at) => at.guard.is_waited_for(),
    }
}

/// The reader has got to the VMA at which it stands in RCU.
pub(crate) fn arrived_at(at: &walk::At<Model<'_>>) {
    match at {
        walk::At::Vma(locked) => locked.lock.reader.arrived(),
        walk::At::Mmap(at) => at.guard.0.arrived(),
    }
}
