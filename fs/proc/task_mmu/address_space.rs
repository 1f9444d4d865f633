// SPDX-License-Identifier: GPL-2.0

//! The address spaces of the kernel, as the protocol of [`walk`](crate::walk) sees them.

use crate::{
    abstractions::{
        events,
        page_walk::{is_untouched, PageStats},
        VmaMapping, //
    },
    last_file::{LastFile, Seen},
    sums::{Mapping, Sum},
    walk::{AddressSpace, Budget, Event, LockError, StableVma},
};
use core::{marker::PhantomData, ops::Range};
use kernel::{
    mm::{
        virt::VmaRef,
        vma_iter::{MmapVma, VmaIter},
        MmWithUser,
    },
    prelude::*,
    task::cond_resched,
};

/// An address space that is pinned for `'a`.
pub(crate) struct Pinned<'a>(PhantomData<&'a MmWithUser>);

/// A reader that stands at a VMA of an address space that is pinned for `'a`.
pub(crate) type At<'a> = crate::walk::At<Pinned<'a>>;

/// A reader that has found out what a VMA of such an address space is.
pub(crate) type Next<'a> = crate::walk::Next<Pinned<'a>>;

/// A reader that has left a VMA of such an address space.
pub(crate) type Unlocked<'a> = crate::walk::Unlocked<Pinned<'a>>;

/// A reader that stands at a VMA of such an address space and may sleep.
pub(crate) type Held<'a> = crate::walk::Held<Pinned<'a>>;

/// A reader that has released a VMA of such an address space and may sleep.
pub(crate) type Released<'a> = crate::walk::Released<Pinned<'a>>;

/// Returns an error if the reader, which has pinned the address space, is its last user.
///
/// Errors: `ESRCH`, as for a reader that comes a moment later.
#[inline]
fn check_used(mm: &MmWithUser) -> Result {
    if mm.is_last_user() {
        Err(ESRCH)
    } else {
        Ok(())
    }
}

/// Returns an error if the reader is being killed.
#[inline]
fn check_alive() -> Result {
    if current!().fatal_signal_pending() {
        Err(EINTR)
    } else {
        Ok(())
    }
}

/// Lets other tasks use the CPU. Returns an error if the reader has to stop.
///
/// Errors: `EINTR` if it is being killed, or `ESRCH`.
#[inline]
fn resched(idle: VmaIter<'_>) -> Result<VmaIter<'_>> {
    cond_resched();
    check_alive()?;
    check_used(idle.address_space())?;
    Ok(idle)
}

impl<'a, S: PageStats> Sum<Pinned<'a>> for S {
    #[inline]
    fn add(&mut self, at: &At<'a>, range: Range<usize>, budget: &mut Budget) -> Option<usize> {
        if is_untouched(at.vma()) {
            return Some(range.end);
        }
        let mmap_locked = matches!(at, At::Mmap(_));
        let Budget { entries, lets_go } = budget;
        self.gather_some(at.vma(), range, *lets_go, mmap_locked, entries)
    }

    fn add_asleep(&mut self, held: &Held<'a>, range: Range<usize>) -> usize {
        match held {
            #[cfg(CONFIG_PER_VMA_LOCK)]
            Held::Vma(vma) => self.gather(vma, range),
            #[cfg(not(CONFIG_PER_VMA_LOCK))]
            Held::Vma(never) => match *never {},
            Held::Mmap(vma) => self.gather(vma, range),
        }
    }
}

impl<'a> Mapping for Pinned<'a> {
    type Mapping = VmaMapping;

    #[inline]
    fn mapping(at: &At<'a>) -> VmaMapping {
        VmaMapping::of(at.vma())
    }
}

impl<'a> At<'a> {
    /// Returns the address space.
    #[inline]
    pub(crate) fn mm(&self) -> &'a MmWithUser {
        match self {
            Self::Vma(locked) => locked.address_space(),
            Self::Mmap(at) => at.address_space(),
        }
    }

    /// Returns the VMA.
    #[inline]
    pub(crate) fn vma(&self) -> &VmaRef {
        match self {
            Self::Vma(locked) => locked,
            Self::Mmap(at) => at,
        }
    }

    /// Returns the RCU section in which the VMA is locked, if it is locked in one, and the value of
    /// `mm_lock_seq`.
    #[inline]
    pub(crate) fn seen(&self) -> Option<Seen> {
        match self {
            Self::Vma(locked) => Some(Seen {
                section: locked.section(),
                sequence: Pinned::snapshot_locked(locked).sequence(),
            }),
            Self::Mmap(_) => None,
        }
    }
}

impl<'a> Unlocked<'a> {
    /// Returns the address space.
    #[inline]
    pub(crate) fn mm(&self) -> &'a MmWithUser {
        match self {
            Self::Vma { snapshot, .. } => snapshot.address_space(),
            Self::Mmap(at) => at.address_space(),
        }
    }

    /// Returns the address from which the reader goes on.
    #[inline]
    pub(crate) fn pos(&self) -> usize {
        match self {
            Self::Vma { pos, .. } => *pos,
            Self::Mmap(at) => at.end(),
        }
    }
}

impl<'a> Released<'a> {
    /// Returns the address space.
    #[inline]
    pub(crate) fn mm(&self) -> &'a MmWithUser {
        match self {
            Self::Vma { idle, .. } => idle.address_space(),
            Self::Mmap(at) => at.address_space(),
        }
    }

    /// Returns the address from which the reader goes on.
    #[inline]
    pub(crate) fn pos(&self) -> usize {
        match self {
            Self::Vma { pos, .. } => *pos,
            Self::Mmap(at) => at.end(),
        }
    }
}

impl StableVma for MmapVma<'_> {
    #[inline]
    fn range(&self) -> Range<usize> {
        self.start()..self.end()
    }
}

/// Where VMAs have locks.
#[cfg(CONFIG_PER_VMA_LOCK)]
mod vma_locks {
    use super::*;
    use crate::abstractions::events::{FallbackReason, RetryReason};
    use crate::abstractions::name::is_initial_heap_or_stack;
    use crate::walk::Reason;
    use kernel::mm::mmap_lock::MmapLockSpeculation;
    use kernel::mm::vma_iter::{
        FoundVma, LockedVma, RcuVmaIter, SleepableVma, StartReadError, VmaCopy,
    };
    use kernel::processor::cpu_relax;
    use kernel::time::{delay::usleep_range_idle, Delta, Instant, Monotonic};

    /// How long a reader spins for a writer, which may have to be woken up first. Most system calls
    /// that change a VMA are over by then.
    const SPIN: Delta = Delta::from_micros(100);

    /// How long a reader sleeps for a writer that takes longer.
    const SLEEP: Delta = Delta::from_micros(100);

    impl StableVma for LockedVma<'_> {
        #[inline]
        fn range(&self) -> Range<usize> {
            self.start()..self.end()
        }
    }

    impl StableVma for VmaCopy {
        #[inline(always)]
        fn range(&self) -> Range<usize> {
            self.start()..self.end()
        }
    }

    impl StableVma for SleepableVma<'_> {
        #[inline]
        fn range(&self) -> Range<usize> {
            self.start()..self.end()
        }
    }

    impl From<LockError> for RetryReason {
        fn from(error: LockError) -> Self {
            match error {
                LockError::Contended => Self::Contended,
                LockError::Detached => Self::Detached,
            }
        }
    }

    impl From<Reason> for FallbackReason {
        fn from(reason: Reason) -> Self {
            match reason {
                Reason::Contended => Self::Contended,
                Reason::Detached => Self::Detached,
                Reason::Behind => Self::Behind,
                Reason::Gap => Self::Gap,
                Reason::End => Self::End,
            }
        }
    }

    impl<'a> AddressSpace for Pinned<'a> {
        type Idle = VmaIter<'a>;
        type Rcu = RcuVmaIter<'a>;
        type Found = FoundVma<'a>;
        type Fields = VmaCopy;
        type Known = LastFile;
        type Locked = LockedVma<'a>;
        type Sleepable = SleepableVma<'a>;
        type MmapLocked = MmapVma<'a>;
        type Snapshot = MmapLockSpeculation<'a>;
        type Error = Error;

        const MAX_WAITS: usize = 8;

        #[inline]
        fn enter_rcu(idle: VmaIter<'a>, pos: usize) -> Result<RcuVmaIter<'a>, VmaIter<'a>> {
            Ok(idle.enter_rcu(pos))
        }

        #[inline]
        fn snapshot(rcu: &RcuVmaIter<'a>) -> MmapLockSpeculation<'a> {
            rcu.address_space().mmap_lock_speculate_begin()
        }

        #[inline]
        fn snapshot_locked(locked: &LockedVma<'a>) -> MmapLockSpeculation<'a> {
            locked.address_space().mmap_lock_speculate_begin()
        }

        #[inline]
        fn changed_since(snapshot: &MmapLockSpeculation<'a>) -> bool {
            snapshot.retry()
        }

        #[inline]
        fn writers_since(snapshot: &MmapLockSpeculation<'a>) -> bool {
            snapshot.writers_since()
        }

        #[inline]
        fn need_resched(rcu: &RcuVmaIter<'a>) -> bool {
            rcu.need_resched()
        }

        #[inline]
        fn leave(rcu: RcuVmaIter<'a>) -> VmaIter<'a> {
            rcu.leave_rcu()
        }

        #[inline]
        fn set(rcu: &mut RcuVmaIter<'a>, pos: usize) {
            rcu.set(pos);
        }

        #[inline]
        fn find(rcu: RcuVmaIter<'a>) -> Result<FoundVma<'a>, VmaIter<'a>> {
            rcu.next()
        }

        #[inline(always)]
        fn copy(
            found: FoundVma<'a>,
            snapshot: &MmapLockSpeculation<'a>,
            known: &LastFile,
        ) -> Result<(VmaCopy, RcuVmaIter<'a>), FoundVma<'a>> {
            let now = Seen {
                section: found.section(),
                sequence: snapshot.sequence(),
            };
            found.copy(snapshot, |vma| match vma.file() {
                Some(file) => known.is_mapped(file, now),
                None => !is_initial_heap_or_stack(snapshot.address_space(), &vma.range()),
            })
        }

        #[inline]
        fn try_lock(found: FoundVma<'a>) -> Result<LockedVma<'a>, (LockError, VmaIter<'a>)> {
            found.start_read().map_err(|(error, idle)| match error {
                StartReadError::Detached => (LockError::Detached, idle),
                StartReadError::Contended => (LockError::Contended, idle),
            })
        }

        fn is_end(idle: &mut VmaIter<'a>, pos: usize) -> bool {
            idle.is_end(pos)
        }

        fn wait(idle: VmaIter<'a>) -> Result<VmaIter<'a>> {
            let mm = idle.address_space();
            let begin = Instant::<Monotonic>::now();

            while mm.mmap_lock_speculate_begin().is_beside_writer() {
                if begin.elapsed() >= SPIN {
                    usleep_range_idle(SLEEP, SLEEP + SLEEP);
                    break;
                }
                cpu_relax();
            }
            check_alive()?;
            Ok(idle)
        }

        #[inline(always)]
        fn is_gap_before(locked: &mut LockedVma<'a>, pos: usize) -> bool {
            locked.gap_from(pos)
        }

        #[inline]
        fn unlock_in_rcu(locked: LockedVma<'a>) -> RcuVmaIter<'a> {
            locked.unlock_in_rcu()
        }

        #[inline]
        fn unlock(locked: LockedVma<'a>) -> VmaIter<'a> {
            locked.unlock()
        }

        #[inline]
        fn leave_rcu(locked: LockedVma<'a>) -> SleepableVma<'a> {
            locked.leave_rcu()
        }

        #[inline]
        fn unlock_sleepable(held: SleepableVma<'a>) -> VmaIter<'a> {
            held.unlock()
        }

        #[inline]
        fn lock_mmap(idle: VmaIter<'a>, pos: usize) -> Result<Option<MmapVma<'a>>> {
            idle.find_under_mmap_lock(pos)
        }

        #[inline]
        fn lock_vma(at: MmapVma<'a>) -> Result<LockedVma<'a>, MmapVma<'a>> {
            at.start_read().inspect_err(|at| {
                events::fallback(at.address_space(), at.start(), FallbackReason::Overflow)
            })
        }

        #[inline]
        fn next_under_mmap_lock(at: MmapVma<'a>) -> Option<MmapVma<'a>> {
            at.next()
        }

        #[inline]
        fn unlock_mmap(at: MmapVma<'a>) -> VmaIter<'a> {
            at.unlock()
        }

        #[inline]
        fn is_contended(at: &At<'a>) -> bool {
            match at {
                At::Vma(locked) => locked.is_contended(),
                At::Mmap(at) => at.is_contended(),
            }
        }

        fn count(idle: &VmaIter<'a>, pos: usize, event: Event) {
            let mm = idle.address_space();
            match event {
                Event::Retry(error) => events::retry(mm, pos, error.into()),
                Event::Fallback(reason) => events::fallback(mm, pos, reason.into()),
                Event::GiveWay => events::give_way(mm, pos),
            }
        }

        #[inline]
        fn check(at: &At<'a>) -> Result {
            check_used(at.mm())
        }

        #[inline]
        fn resched(idle: VmaIter<'a>) -> Result<VmaIter<'a>> {
            resched(idle)
        }
    }
}

/// Where VMAs have no locks.
#[cfg(not(CONFIG_PER_VMA_LOCK))]
mod no_vma_locks {
    use super::*;
    use kernel::mm::vma_iter::RcuSection;

    /// A state that is never reached.
    pub(crate) enum Never {}

    impl Never {
        pub(super) fn sequence(&self) -> u32 {
            match *self {}
        }

        pub(super) fn section(&self) -> RcuSection {
            match *self {}
        }

        pub(crate) fn offset(&self) -> Option<u64> {
            match *self {}
        }

        pub(super) fn address_space(&self) -> &'static MmWithUser {
            match *self {}
        }
    }

    impl core::ops::Deref for Never {
        type Target = VmaRef;

        fn deref(&self) -> &VmaRef {
            match *self {}
        }
    }

    impl StableVma for Never {
        fn range(&self) -> Range<usize> {
            match *self {}
        }
    }

    impl<'a> AddressSpace for Pinned<'a> {
        type Idle = VmaIter<'a>;
        type Rcu = Never;
        type Found = Never;
        type Fields = Never;
        type Known = LastFile;
        type Locked = Never;
        type Sleepable = Never;
        type MmapLocked = MmapVma<'a>;
        type Snapshot = Never;
        type Error = Error;

        const MAX_WAITS: usize = 0;

        fn enter_rcu(idle: VmaIter<'a>, _pos: usize) -> Result<Never, VmaIter<'a>> {
            Err(idle)
        }

        fn snapshot(rcu: &Never) -> Never {
            match *rcu {}
        }

        fn snapshot_locked(locked: &Never) -> Never {
            match *locked {}
        }

        fn changed_since(snapshot: &Never) -> bool {
            match *snapshot {}
        }

        fn writers_since(snapshot: &Never) -> bool {
            match *snapshot {}
        }

        fn need_resched(rcu: &Never) -> bool {
            match *rcu {}
        }

        fn leave(rcu: Never) -> VmaIter<'a> {
            match rcu {}
        }

        fn set(rcu: &mut Never, _pos: usize) {
            match *rcu {}
        }

        fn find(rcu: Never) -> Result<Never, VmaIter<'a>> {
            match rcu {}
        }

        fn copy(
            found: Never,
            _snapshot: &Never,
            _known: &LastFile,
        ) -> Result<(Never, Never), Never> {
            match found {}
        }

        fn try_lock(found: Never) -> Result<Never, (LockError, VmaIter<'a>)> {
            match found {}
        }

        // Never called, as there is nothing that can be found without `mmap_lock`.
        fn is_end(_idle: &mut VmaIter<'a>, _pos: usize) -> bool {
            false
        }

        // A thread that waits for `mmap_lock` has got it before the reader queues up again.
        fn wait(idle: VmaIter<'a>) -> Result<VmaIter<'a>> {
            Ok(idle)
        }

        fn is_gap_before(locked: &mut Never, _pos: usize) -> bool {
            match *locked {}
        }

        fn unlock_in_rcu(locked: Never) -> Never {
            match locked {}
        }

        fn unlock(locked: Never) -> VmaIter<'a> {
            match locked {}
        }

        fn leave_rcu(locked: Never) -> Never {
            match locked {}
        }

        fn unlock_sleepable(held: Never) -> VmaIter<'a> {
            match held {}
        }

        fn lock_mmap(idle: VmaIter<'a>, pos: usize) -> Result<Option<MmapVma<'a>>> {
            idle.find_under_mmap_lock(pos)
        }

        fn lock_vma(at: MmapVma<'a>) -> Result<Never, MmapVma<'a>> {
            Err(at)
        }

        fn next_under_mmap_lock(at: MmapVma<'a>) -> Option<MmapVma<'a>> {
            at.next()
        }

        fn unlock_mmap(at: MmapVma<'a>) -> VmaIter<'a> {
            at.unlock()
        }

        fn is_contended(at: &At<'a>) -> bool {
            match at {
                At::Vma(never) => match *never {},
                At::Mmap(at) => at.is_contended(),
            }
        }

        fn count(idle: &VmaIter<'a>, pos: usize, event: Event) {
            match event {
                Event::GiveWay => events::give_way(idle.address_space(), pos),
                // There is nothing before `mmap_lock` that could fail.
                Event::Retry(_) | Event::Fallback(_) => (),
            }
        }

        fn check(at: &At<'a>) -> Result {
            check_used(at.mm())
        }

        #[inline]
        fn resched(idle: VmaIter<'a>) -> Result<VmaIter<'a>> {
            resched(idle)
        }
    }
}
