// SPDX-License-Identifier: GPL-2.0

//! Address spaces of the kernel whose readers meet a writer at a chosen step, for KUnit tests.
//!
//! The reader is the one that serves files. At a step that the test has chosen it waits until
//! another thread has made a change to the address space, or waits for what the reader has locked:
//!
//! ```text
//!    reader                       writer
//!      |                            |
//!      | reaches the moment         | sleeps
//!      | -------------------------> |
//!      | spins                      | changes the address space
//!      | <------ done, or waits ----|
//!      | goes on                    |
//!      | has unlocked it            |
//!      | spins                      | goes on
//!      | <------ done --------------|
//! ```

use crate::{
    address_space::Pinned,
    last_file::LastFile,
    tests::scripted::add,
    walk::{self, AddressSpace, Event, LockError, StableVma},
};
use core::{cell::Cell, marker::PhantomData, ops::Range};
use kernel::{
    mm::{
        mmap_lock::MmapLockSpeculation,
        test_mm::Writer,
        vma_iter::{
            FoundVma,
            LockedVma,
            MmapVma,
            RcuVmaIter,
            SleepableVma,
            VmaCopy,
            VmaIter, //
        },
    },
    prelude::*,
    processor::cpu_relax,
    time::{Delta, Instant, Monotonic},
};

/// A moment at which a writer may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After a VMA has been unlocked, before the reader goes on.
    Unlocked,
    /// Before the next VMA is looked up. Nothing is locked.
    Find,
    /// After it has been found, before it is read without locking it.
    Copy,
    /// Before it is locked. Nothing is locked.
    Lock,
    /// After it has been locked, before it is verified. Or, with nothing locked, before it is
    /// verified that there is none.
    Verify,
    /// Before the gap in front of a VMA, which is locked, is looked at once more.
    Walk,
}

/// At which occasion of which moment, counted from one, a writer comes.
pub(crate) struct Step {
    pub(crate) moment: Moment,
    pub(crate) occasion: usize,
    pub(crate) writer: Cell<Option<Writer>>,
}

/// What happens to a reader, and what it has done.
pub(crate) struct Script<'b> {
    steps: KVec<Step>,
    /// A writer that waits for what the reader has locked.
    pending: Cell<Option<Writer>>,
    /// A VMA that a writer cannot get past until the reader takes the fallback, or has waited
    /// `release_at` times.
    barrier: Cell<Option<SleepableVma<'b>>>,
    moments: [Cell<usize>; 6],
    /// The events that the reader has reported.
    pub(crate) events: Cell<[Option<Event>; 8]>,
    /// How often it has searched the tree.
    pub(crate) lookups: Cell<usize>,
    /// How often it has waited for a writer.
    waits: Cell<usize>,
    /// At which of these waits, counted from one, the writer gets past the barrier. Zero is none.
    pub(crate) release_at: Cell<usize>,
    /// How many writers have failed, or have not reached what they should.
    pub(crate) failures: Cell<usize>,
}

impl<'b> Script<'b> {
    pub(crate) fn new(steps: KVec<Step>, barrier: Option<SleepableVma<'b>>) -> Self {
        Self {
            steps,
            pending: Cell::new(None),
            barrier: Cell::new(barrier),
            moments: [const { Cell::new(0) }; 6],
            events: Cell::new([None; 8]),
            lookups: Cell::new(0),
            waits: Cell::new(0),
            release_at: Cell::new(0),
            failures: Cell::new(0),
        }
    }

    /// Returns whether all writers have come.
    pub(crate) fn is_over(&self) -> bool {
        self.steps.iter().all(|step| {
            let writer = step.writer.take();
            let came = writer.is_none();
            step.writer.set(writer);
            came
        })
    }

    fn reach(&self, moment: Moment, locked: Option<&LockedVma<'_>>) {
        if locked.is_none() {
            self.finish();
        }

        let occasion = add(&self.moments[moment as usize]);
        for step in &self.steps {
            if step.moment == moment && step.occasion == occasion {
                if let Some(writer) = step.writer.take() {
                    writer.start();
                    self.meet(writer, locked);
                }
            }
        }
    }

    /// Waits until the writer is done, or waits for a VMA that is locked.
    fn meet(&self, writer: Writer, locked: Option<&LockedVma<'_>>) {
        let barrier = self.barrier.take();
        let begin = Instant::<Monotonic>::now();

        while !writer.is_finished()
            && !locked.is_some_and(|vma| vma.is_contended())
            && !barrier.as_ref().is_some_and(|vma| vma.is_contended())
        {
            if begin.elapsed() > Delta::from_secs(5) {
                // The reader does not wait for it, since it may not come at all.
                add(&self.failures);
                self.barrier.set(barrier);
                return;
            }
            cpu_relax();
        }

        self.barrier.set(barrier);
        if let Some(other) = self.pending.replace(Some(writer)) {
            self.check(other.finish());
        }
    }

    /// Waits until the writer that waits for what the reader had locked is done.
    fn finish(&self) {
        let barrier = self.barrier.take();
        if barrier.is_none() {
            if let Some(writer) = self.pending.take() {
                self.check(writer.finish());
            }
        }
        self.barrier.set(barrier);
    }

    /// Lets the writer past the barrier, and waits until it is done. The reader holds nothing.
    pub(crate) fn release(&self) {
        drop(self.barrier.take());
        self.finish();
    }

    fn check(&self, result: Result) {
        if result.is_err() {
            add(&self.failures);
        }
    }
}

/// A state of the reader, and what happens to it.
pub(crate) struct With<'s, 'b, T> {
    inner: T,
    script: &'s Script<'b>,
}

impl<'s, 'b, T> With<'s, 'b, T> {
    pub(crate) fn new(inner: T, script: &'s Script<'b>) -> Self {
        Self { inner, script }
    }
}

impl<T: StableVma> StableVma for With<'_, '_, T> {
    fn range(&self) -> Range<usize> {
        self.inner.range()
    }
}

/// The address space of a reader that a script interferes with.
pub(crate) struct Forced<'s, 'b, 'a>(PhantomData<(&'s Script<'b>, &'a ())>);

impl<'s, 'b: 's, 'a> AddressSpace for Forced<'s, 'b, 'a> {
    type Idle = With<'s, 'b, VmaIter<'a>>;
    type Rcu = With<'s, 'b, RcuVmaIter<'a>>;
    type Found = With<'s, 'b, FoundVma<'a>>;
    type Fields = VmaCopy;
    type Known = LastFile;
    type Locked = With<'s, 'b, LockedVma<'a>>;
    type Sleepable = With<'s, 'b, SleepableVma<'a>>;
    type MmapLocked = With<'s, 'b, MmapVma<'a>>;
    type Snapshot = MmapLockSpeculation<'a>;
    type Error = Error;

    const MAX_WAITS: usize = 2;

    fn enter_rcu(idle: Self::Idle, pos: usize) -> Result<Self::Rcu, Self::Idle> {
        match Pinned::enter_rcu(idle.inner, pos) {
            Ok(rcu) => Ok(With::new(rcu, idle.script)),
            Err(inner) => Err(With::new(inner, idle.script)),
        }
    }

    fn snapshot(rcu: &Self::Rcu) -> Self::Snapshot {
        Pinned::snapshot(&rcu.inner)
    }

    fn snapshot_locked(locked: &Self::Locked) -> Self::Snapshot {
        Pinned::snapshot_locked(&locked.inner)
    }

    fn changed_since(snapshot: &Self::Snapshot) -> bool {
        Pinned::changed_since(snapshot)
    }

    fn writers_since(snapshot: &Self::Snapshot) -> bool {
        Pinned::writers_since(snapshot)
    }

    // What the reader does next is up to the script.
    fn need_resched(_rcu: &Self::Rcu) -> bool {
        false
    }

    fn leave(rcu: Self::Rcu) -> Self::Idle {
        With::new(Pinned::leave(rcu.inner), rcu.script)
    }

    fn set(rcu: &mut Self::Rcu, pos: usize) {
        Pinned::set(&mut rcu.inner, pos);
    }

    fn find(rcu: Self::Rcu) -> Result<Self::Found, Self::Idle> {
        let With { inner, script } = rcu;
        script.reach(Moment::Find, None);
        add(&script.lookups);
        match Pinned::find(inner) {
            Ok(inner) => Ok(With::new(inner, script)),
            Err(inner) => Err(With::new(inner, script)),
        }
    }

    fn copy(
        found: Self::Found,
        snapshot: &Self::Snapshot,
        known: &LastFile,
    ) -> Result<(VmaCopy, Self::Rcu), Self::Found> {
        let With { inner, script } = found;
        script.reach(Moment::Copy, None);
        match Pinned::copy(inner, snapshot, known) {
            Ok((vma, rcu)) => Ok((vma, With::new(rcu, script))),
            Err(inner) => Err(With::new(inner, script)),
        }
    }

    fn try_lock(found: Self::Found) -> Result<Self::Locked, (LockError, Self::Idle)> {
        let With { inner, script } = found;
        script.reach(Moment::Lock, None);
        match Pinned::try_lock(inner) {
            Ok(locked) => {
                script.reach(Moment::Verify, Some(&locked));
                Ok(With::new(locked, script))
            }
            Err((error, idle)) => Err((error, With::new(idle, script))),
        }
    }

    fn is_end(idle: &mut Self::Idle, pos: usize) -> bool {
        idle.script.reach(Moment::Verify, None);
        add(&idle.script.lookups);
        Pinned::is_end(&mut idle.inner, pos)
    }

    fn wait(idle: Self::Idle) -> Result<Self::Idle> {
        let With { inner, script } = idle;
        if add(&script.waits) == script.release_at.get() {
            script.release();
        }
        Ok(With::new(Pinned::wait(inner)?, script))
    }

    fn is_gap_before(locked: &mut Self::Locked, pos: usize) -> bool {
        locked.script.reach(Moment::Walk, Some(&locked.inner));
        add(&locked.script.lookups);
        Pinned::is_gap_before(&mut locked.inner, pos)
    }

    fn unlock_in_rcu(locked: Self::Locked) -> Self::Rcu {
        let With { inner, script } = locked;
        let rcu = Pinned::unlock_in_rcu(inner);
        script.reach(Moment::Unlocked, None);
        With::new(rcu, script)
    }

    fn unlock(locked: Self::Locked) -> Self::Idle {
        With::new(Pinned::unlock(locked.inner), locked.script)
    }

    fn leave_rcu(locked: Self::Locked) -> Self::Sleepable {
        With::new(Pinned::leave_rcu(locked.inner), locked.script)
    }

    fn unlock_sleepable(held: Self::Sleepable) -> Self::Idle {
        With::new(Pinned::unlock_sleepable(held.inner), held.script)
    }

    fn lock_mmap(idle: Self::Idle, pos: usize) -> Result<Option<Self::MmapLocked>> {
        let With { inner, script } = idle;
        script.release();
        add(&script.lookups);
        Ok(Pinned::lock_mmap(inner, pos)?.map(|at| With::new(at, script)))
    }

    fn lock_vma(at: Self::MmapLocked) -> Result<Self::Locked, Self::MmapLocked> {
        match Pinned::lock_vma(at.inner) {
            Ok(locked) => Ok(With::new(locked, at.script)),
            Err(inner) => Err(With::new(inner, at.script)),
        }
    }

    fn next_under_mmap_lock(at: Self::MmapLocked) -> Option<Self::MmapLocked> {
        let With { inner, script } = at;
        Pinned::next_under_mmap_lock(inner).map(|at| With::new(at, script))
    }

    fn unlock_mmap(at: Self::MmapLocked) -> Self::Idle {
        With::new(Pinned::unlock_mmap(at.inner), at.script)
    }

    fn is_contended(at: &walk::At<Self>) -> bool {
        match at {
            walk::At::Vma(locked) => locked.inner.is_contended(),
            walk::At::Mmap(at) => at.inner.is_contended(),
        }
    }

    fn count(idle: &Self::Idle, pos: usize, event: Event) {
        let mut events = idle.script.events.get();
        match events.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(event),
            None => drop(add(&idle.script.failures)),
        }
        idle.script.events.set(events);
        Pinned::count(&idle.inner, pos, event);
    }

    fn check(_at: &walk::At<Self>) -> Result {
        Ok(())
    }

    fn resched(idle: Self::Idle) -> Result<Self::Idle> {
        Ok(idle)
    }
}
