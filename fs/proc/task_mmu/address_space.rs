// SPDX-License-Identifier: GPL-2.0

//! The address spaces of the kernel, as the protocol of [`walk`](crate::walk) sees them.

use crate::walk::{AddressSpace, StableVma};
use core::{marker::PhantomData, ops::Range};
use kernel::{
    mm::{
        virt::VmaRef,
        vma_iter::{MmapVma, VmaIter},
        MmWithUser,
    },
    prelude::*,
};

#[cfg(CONFIG_PER_VMA_LOCK)]
use crate::walk::LockError;
#[cfg(CONFIG_PER_VMA_LOCK)]
use kernel::mm::{
    vma_iter::{FoundVma, MmapLockSpeculation, RcuVmaIter, StartReadError},
    VmaReadGuard,
};

/// An address space that is pinned for `'a`.
pub(crate) struct Pinned<'a>(PhantomData<&'a ()>);

/// A reader that stands at a VMA of an address space that is pinned for `'a`.
pub(crate) type At<'a> = crate::walk::At<Pinned<'a>>;

impl<'a> At<'a> {
    /// Returns the address space.
    #[inline]
    pub(crate) fn mm(&self) -> &'a MmWithUser {
        match self {
            Self::Vma(_, rcu) => rcu.address_space(),
            Self::Mmap(at) => at.address_space(),
        }
    }

    /// Returns the VMA.
    #[inline]
    pub(crate) fn vma(&self) -> &VmaRef {
        match self {
            Self::Vma(locked, _) => locked,
            Self::Mmap(at) => at,
        }
    }
}

impl StableVma for MmapVma<'_> {
    #[inline]
    fn range(&self) -> Range<usize> {
        self.start()..self.end()
    }
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl StableVma for VmaReadGuard<'_> {
    #[inline]
    fn range(&self) -> Range<usize> {
        self.start()..self.end()
    }
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> AddressSpace for Pinned<'a> {
    type Idle = VmaIter<'a>;
    type Rcu = RcuVmaIter<'a>;
    type Found = FoundVma<'a>;
    type Locked = VmaReadGuard<'a>;
    type MmapLocked = MmapVma<'a>;
    type Snapshot = Option<MmapLockSpeculation<'a>>;
    type Error = Error;

    const VMA_LOCKS: bool = true;

    #[inline]
    fn enter_rcu(idle: VmaIter<'a>, pos: usize) -> RcuVmaIter<'a> {
        idle.enter_rcu(pos)
    }

    #[inline]
    fn exit_rcu(rcu: RcuVmaIter<'a>) -> VmaIter<'a> {
        rcu.exit()
    }

    #[inline]
    fn snapshot(rcu: &RcuVmaIter<'a>) -> Self::Snapshot {
        rcu.address_space().mmap_lock_speculate_try_begin()
    }

    #[inline]
    fn changed_since(_rcu: &RcuVmaIter<'a>, snapshot: Self::Snapshot) -> bool {
        // A writer who was at it when the snapshot was taken may have gone on since.
        snapshot.is_none_or(|speculation| speculation.retry())
    }

    #[inline]
    fn find(rcu: RcuVmaIter<'a>) -> Option<FoundVma<'a>> {
        rcu.next()
    }

    #[inline]
    fn try_lock(
        found: FoundVma<'a>,
    ) -> Result<(VmaReadGuard<'a>, RcuVmaIter<'a>), (LockError, VmaIter<'a>)> {
        found.start_read().map_err(|(error, idle)| match error {
            StartReadError::Detached => (LockError::Detached, idle),
            StartReadError::Contended => (LockError::Contended, idle),
        })
    }

    #[inline]
    fn finds_again(rcu: &mut RcuVmaIter<'a>, pos: usize, locked: &VmaReadGuard<'a>) -> bool {
        rcu.set(pos);
        rcu.next_is(locked)
    }

    #[inline]
    fn lock_mmap(idle: VmaIter<'a>, pos: usize) -> Result<Option<MmapVma<'a>>> {
        idle.find_under_mmap_lock(pos)
    }

    #[inline]
    fn lock_vma(at: MmapVma<'a>) -> Result<(VmaReadGuard<'a>, VmaIter<'a>), MmapVma<'a>> {
        at.start_read()
    }

    #[inline]
    fn next_under_mmap_lock(at: MmapVma<'a>) -> Option<MmapVma<'a>> {
        at.next()
    }
}

/// A state that is never reached, because VMAs have no locks.
#[cfg(not(CONFIG_PER_VMA_LOCK))]
pub(crate) enum Never {}

#[cfg(not(CONFIG_PER_VMA_LOCK))]
impl StableVma for Never {
    fn range(&self) -> Range<usize> {
        match *self {}
    }
}

#[cfg(not(CONFIG_PER_VMA_LOCK))]
impl Never {
    fn address_space(&self) -> &'static MmWithUser {
        match *self {}
    }
}

#[cfg(not(CONFIG_PER_VMA_LOCK))]
impl core::ops::Deref for Never {
    type Target = VmaRef;

    fn deref(&self) -> &VmaRef {
        match *self {}
    }
}

#[cfg(not(CONFIG_PER_VMA_LOCK))]
impl<'a> AddressSpace for Pinned<'a> {
    type Idle = VmaIter<'a>;
    type Rcu = Never;
    type Found = Never;
    type Locked = Never;
    type MmapLocked = MmapVma<'a>;
    type Snapshot = Never;
    type Error = Error;

    const VMA_LOCKS: bool = false;

    #[inline(always)]
    fn enter_rcu(_idle: VmaIter<'a>, _pos: usize) -> Never {
        build_error!("there are no VMA locks")
    }

    fn exit_rcu(rcu: Never) -> VmaIter<'a> {
        match rcu {}
    }

    fn snapshot(rcu: &Never) -> Never {
        match *rcu {}
    }

    fn changed_since(rcu: &Never, _snapshot: Never) -> bool {
        match *rcu {}
    }

    fn find(rcu: Never) -> Option<Never> {
        match rcu {}
    }

    fn try_lock(found: Never) -> Result<(Never, Never), (crate::walk::LockError, VmaIter<'a>)> {
        match found {}
    }

    fn finds_again(rcu: &mut Never, _pos: usize, _locked: &Never) -> bool {
        match *rcu {}
    }

    #[inline]
    fn lock_mmap(idle: VmaIter<'a>, pos: usize) -> Result<Option<MmapVma<'a>>> {
        idle.find_under_mmap_lock(pos)
    }

    fn lock_vma(at: MmapVma<'a>) -> Result<(Never, VmaIter<'a>), MmapVma<'a>> {
        Err(at)
    }

    #[inline]
    fn next_under_mmap_lock(at: MmapVma<'a>) -> Option<MmapVma<'a>> {
        at.next()
    }
}
