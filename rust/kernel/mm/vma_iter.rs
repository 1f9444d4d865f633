// SPDX-License-Identifier: GPL-2.0

//! Iterating over the VMAs of an address space.
//!
//! There are two ways to walk the VMAs of an address space that is in use. Under RCU, a VMA is
//! found without any lock, may be gone a moment later, and can be used once it is read-locked.
//! Under `mmap_lock`, what is found stays. The usual walk tries the first and falls back to the
//! second. Each state of such a walk is a type here, and each step consumes the state that it
//! leaves:
//!
//! ```text
//!              enter_rcu(addr)              next()             start_read()
//!   VmaIter --------------------> RcuVmaIter -----> FoundVma ----------------> LockedVma
//!    ^ ^ |                           ^               |                          |   | ^
//!    | | |                           +---------------|---- unlock_in_rcu() -----+   | |
//!    | | +-- nothing held ------------- on failure --+                              | |
//!    | | +---------------------------------------------- unlock() ------------------+ |
//!    | |                                                                              |
//!    | | find_under_mmap_lock(addr)        start_read(), mmap_lock released           |
//!    | +---------------------------> MmapVma -----------------------------------------+
//!    |                               |    ^
//!    +---------- unlock() -----------+    |
//!                                    +----+ next()
//! ```
//!
//! What makes up most lines of a list of VMAs can be read without locking the VMA, if no writer
//! comes meanwhile ([`FoundVma::copy`]). The walk goes on from there:
//!
//! ```text
//!                 next()               copy()
//!   RcuVmaIter ------------> FoundVma --------> RcuVmaIter
//! ```
//!
//! A walk that has to sleep leaves the RCU section, with a VMA locked or without:
//!
//! ```text
//!                 leave_rcu()                      unlock()
//!   LockedVma --------------------> SleepableVma --------------> VmaIter
//!                                  leave_rcu()                     ^
//!   RcuVmaIter ----------------------------------------------------+
//! ```
//!
//! So no other field of a VMA can be read before it is locked, a position in the tree cannot be
//! used after the RCU section that it belongs to, and an iterator that has a VMA locked or is in an
//! RCU section cannot take `mmap_lock`.
//!
//! A writer that wants to change a VMA waits for its readers, and whoever waits for a grace period
//! waits for the RCU sections of all tasks. So preemption is off in an RCU section, except on
//! `PREEMPT_RT`, and a reader cannot lose its CPU there, with or without a VMA locked. A walk that
//! takes long asks [`RcuVmaIter::need_resched`].
//!
//! C headers: [`include/linux/mm.h`](srctree/include/linux/mm.h),
//! [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)
//!
//! Reference: <https://docs.kernel.org/mm/process_addrs.html>

use super::{virt::VmaRef, MmWithUser, MmapReadGuard};
use crate::{
    bindings, container_of,
    error::Result,
    sync::atomic::{Atomic, Relaxed},
    types::Opaque,
};
use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::{addr_of_mut, NonNull},
};

#[cfg(CONFIG_PER_VMA_LOCK)]
use super::{mmap_lock::MmapLockSpeculation, virt::vm_flags_t, VmaReadGuard};
#[cfg(CONFIG_PER_VMA_LOCK)]
use crate::page::PAGE_SHIFT;
#[cfg(CONFIG_PER_VMA_LOCK)]
use crate::{preempt, sync::rcu, types::NotThreadSafe};

/// The memory that a [`VmaIter`] works in: a C `struct vma_iterator`.
///
/// It is separate from the iterator, so that the iterator is small and cheap to move. [`VmaIter`]
/// has an example.
pub struct VmaIterState {
    iter: Opaque<bindings::vma_iterator>,
    /// How many RCU sections have been entered.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    sections: u32,
}

impl VmaIterState {
    /// Makes the memory for an iterator. It is initialised when the iterator is made.
    #[inline]
    pub const fn new() -> Self {
        Self {
            iter: Opaque::uninit(),
            #[cfg(CONFIG_PER_VMA_LOCK)]
            sections: 0,
        }
    }
}

/// What an RCU section consists of.
#[cfg(CONFIG_PER_VMA_LOCK)]
struct RcuGuard {
    // Dropped first, so that the caller cannot lose its CPU in the section.
    read_lock: rcu::Guard,
    preempt: preempt::Guard,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl RcuGuard {
    #[inline]
    fn enter() -> Self {
        let preempt = preempt::disable_unless_rt();
        let read_lock = rcu::read_lock();

        Self { read_lock, preempt }
    }
}

/// Identifies an RCU section among those that the iterators of one [`VmaIterState`] have entered.
///
/// If it is the same at two moments, RCU was not left between them, and no memory that is freed
/// after a grace period has been used for something else. [`LockedVma`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcuSection(u32);

impl Default for VmaIterState {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

/// An iterator over the VMAs of an address space that has no position and holds no lock.
///
/// # Examples
///
/// Counting the VMAs of an address space, with `mmap_lock` held throughout:
///
/// ```
/// use kernel::mm::{vma_iter::{VmaIter, VmaIterState}, MmWithUser};
///
/// fn count(mm: &MmWithUser) -> Result<usize> {
///     let mut state = VmaIterState::new();
///     let mut at = VmaIter::new(mm, &mut state).find_under_mmap_lock(0)?;
///     let mut count = 0;
///     while let Some(vma) = at {
///         count += 1;
///         at = vma.next();
///     }
///     Ok(count)
/// }
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// assert_eq!(count(&mm)?, 1);
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// `state` has been initialised for an address space that is borrowed for `'a`. Its tree never
/// changes.
#[must_use]
pub struct VmaIter<'a> {
    // A walk moves its iterator with each step. This is cheaper if the iterator is a single word.
    state: &'a mut VmaIterState,
    _mm: PhantomData<&'a MmWithUser>,
}

impl<'a> VmaIter<'a> {
    /// Makes an iterator over the VMAs of `mm`.
    #[inline]
    pub fn new(mm: &'a MmWithUser, state: &'a mut VmaIterState) -> Self {
        // SAFETY: The memory is valid and exclusively ours, the mm is borrowed for as long.
        unsafe { bindings::vma_iter_init(state.iter.get(), mm.as_raw(), 0) };

        // INVARIANT: The iterator was initialised for `mm` just now.
        Self {
            state,
            _mm: PhantomData,
        }
    }

    #[inline]
    fn as_raw(&mut self) -> *mut bindings::vma_iterator {
        self.state.iter.get()
    }

    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        // SAFETY: By the type invariants the tree is the field `mm_mt` of an `mm_struct` that is
        // borrowed for `'a`.
        unsafe {
            let tree = (*self.state.iter.get()).mas.tree;
            MmWithUser::from_raw(container_of!(
                tree,
                bindings::mm_struct,
                __bindgen_anon_1.mm_mt
            ))
        }
    }

    /// Enters an RCU section with the iterator at `addr`.
    ///
    /// Context: Any. Until the section is left the caller must not sleep, and is not preempted,
    /// except on `PREEMPT_RT`.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[inline]
    pub fn enter_rcu(mut self, addr: usize) -> RcuVmaIter<'a> {
        let rcu = RcuGuard::enter();
        self.state.sections = self.state.sections.wrapping_add(1);

        // SAFETY: The iterator's memory is valid and exclusively ours, and was initialised.
        unsafe { bindings::vma_iter_set(self.as_raw(), addr) };

        // INVARIANT: The position was set in the RCU section that `rcu` holds open.
        RcuVmaIter { iter: self, rcu }
    }

    /// Returns `true` only if there was a moment during the call at which nothing was mapped from
    /// `addr` on.
    ///
    /// Context: Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::vma_iter::{VmaIter, VmaIterState};
    ///
    /// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
    /// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
    /// # let mm = TestMm::attach()?;
    /// # mm.map(start..end, PROT_READ)?;
    /// let mut state = VmaIterState::new();
    /// let mut iter = VmaIter::new(&mm, &mut state);
    /// assert!(!iter.is_end(start));
    /// assert!(iter.is_end(end));
    /// # Ok::<(), Error>(())
    /// ```
    #[cfg(CONFIG_PER_VMA_LOCK)]
    pub fn is_end(&mut self, addr: usize) -> bool {
        let _rcu = RcuGuard::enter();

        // SAFETY: The iterator's memory is valid and exclusively ours, and was initialised. The
        // position is set in the RCU section that is still open.
        let (entry, last) = unsafe {
            bindings::vma_iter_set(self.as_raw(), addr);
            let mas = &mut (*self.as_raw()).mas;
            (bindings::mas_walk(mas), mas.last)
        };

        // The walk goes down the tree once, and starts again when it meets a node that has been
        // replaced. So the empty range that it has seen up to the end of the tree was there at the
        // moment when it read where that range begins.
        entry.is_null() && last == usize::MAX
    }

    /// Takes `mmap_lock` for reading and finds the first VMA that ends above `addr`.
    ///
    /// Returns [`None`], with `mmap_lock` released again, if there is no such VMA.
    ///
    /// Context: Process context, may sleep. Errors: `EINTR` if a fatal signal arrives meanwhile.
    ///
    /// Mirrors `mmap_read_lock_killable`, `vma_iter_set` and `vma_next`.
    #[inline]
    pub fn find_under_mmap_lock(mut self, addr: usize) -> Result<Option<MmapVma<'a>>> {
        let guard = self.address_space().mmap_read_lock_killable()?;

        // SAFETY: The iterator's memory is valid and exclusively ours, and was initialised.
        unsafe { bindings::vma_iter_set(self.as_raw(), addr) };

        // INVARIANT: The position was just set with `mmap_lock` held.
        Ok(MmapVma::find(self, guard))
    }
}

/// A VMA under `mmap_lock` held for reading, and an iterator that stands at it.
///
/// # Examples
///
/// Exchanging `mmap_lock` for the lock of one VMA:
///
/// ```
/// use kernel::mm::vma_iter::{VmaIter, VmaIterState};
///
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let vma = VmaIter::new(&mm, &mut state).find_under_mmap_lock(start)?.ok_or(ENOENT)?;
/// assert_eq!(vma.start(), start);
/// assert!(!vma.is_contended());
///
/// # #[cfg(CONFIG_PER_VMA_LOCK)]
/// match vma.start_read() {
///     Ok(locked) => assert_eq!(locked.end(), end),
///     // It has too many readers. `mmap_lock` is still held.
///     Err(vma) => drop(vma.unlock()),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// `vma` is the VMA that the iterator stands at, and is attached to the address space whose
/// `mmap_lock` `guard` holds; the iterator's position was set with that lock held.
#[must_use]
pub struct MmapVma<'a> {
    vma: NonNull<bindings::vm_area_struct>,
    iter: VmaIter<'a>,
    guard: MmapReadGuard<'a>,
}

impl<'a> MmapVma<'a> {
    // The iterator's position must have been set while `guard` was held.
    #[inline]
    fn find(mut iter: VmaIter<'a>, guard: MmapReadGuard<'a>) -> Option<Self> {
        // SAFETY: The iterator was initialised, and `mmap_lock` has been held since, so that the
        // nodes it refers to are still part of the tree.
        let vma = NonNull::new(unsafe { bindings::vma_next(iter.as_raw()) })?;

        // INVARIANT: The iterator has just given out `vma`; with `mmap_lock` held it stays.
        Some(Self { vma, iter, guard })
    }

    /// Goes on to the next VMA, with `mmap_lock` held throughout.
    ///
    /// Returns [`None`], with `mmap_lock` released, if there is no other VMA.
    #[inline]
    pub fn next(self) -> Option<Self> {
        Self::find(self.iter, self.guard)
    }

    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        self.iter.address_space()
    }

    /// Releases `mmap_lock`.
    #[inline]
    pub fn unlock(self) -> VmaIter<'a> {
        self.iter
    }

    /// Returns whether a thread waits for `mmap_lock`.
    ///
    /// Mirrors `mmap_lock_is_contended`.
    #[inline]
    pub fn is_contended(&self) -> bool {
        // SAFETY: The pointer is valid since the mm is borrowed.
        unsafe { bindings::mmap_lock_is_contended(self.address_space().as_raw()) != 0 }
    }

    /// Exchanges `mmap_lock` for the read lock of this VMA.
    ///
    /// No writer can be changing the VMA, so this does not wait. It still fails, and gives `self`
    /// back, when the VMA has as many readers as its reference count can count.
    ///
    /// Mirrors `vma_start_read_locked`.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[inline]
    pub fn start_read(self) -> Result<LockedVma<'a>, Self> {
        // The VMA is locked before the RCU section is entered.
        let _preempt = preempt::disable_unless_rt();

        // SAFETY: By the type invariants the VMA is attached, and `mmap_lock` is held.
        if !unsafe { bindings::vma_start_read_locked(self.vma.as_ptr()) } {
            return Err(self);
        }

        let guard = VmaReadGuard {
            // SAFETY: The VMA was attached and has just been read-locked. It stays valid for as
            // long as it is locked, which the guard ensures; its mm is borrowed for `'a`.
            vma: unsafe { VmaRef::from_raw(self.vma.as_ptr()) },
            _nts: NotThreadSafe,
        };
        let end = guard.end();

        // INVARIANT: The iterator is at the end of the VMA, in an RCU section of its own.
        Ok(LockedVma {
            guard,
            iter: self.unlock().enter_rcu(end),
        })
    }
}

// Make all `VmaRef` methods available on `MmapVma`.
impl Deref for MmapVma<'_> {
    type Target = VmaRef;

    #[inline]
    fn deref(&self) -> &VmaRef {
        // SAFETY: By the type invariants the VMA is attached and `mmap_lock` is held for reading
        // for as long as `self` is borrowed.
        unsafe { VmaRef::from_raw(self.vma.as_ptr()) }
    }
}

/// An iterator over the VMAs of an address space in an RCU section.
///
/// # Examples
///
/// ```
/// use kernel::mm::vma_iter::{VmaIter, VmaIterState};
///
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let mut rcu = VmaIter::new(&mm, &mut state).enter_rcu(0);
/// if rcu.need_resched() {
///     // Another task runs before the section is entered again.
///     rcu = rcu.leave_rcu().enter_rcu(0);
/// }
/// rcu.set(end);
/// // There is no VMA above that address, so the RCU section has been left.
/// let iter = rcu.next().err().ok_or(EINVAL)?;
/// let found = iter.enter_rcu(start).next();
/// assert!(found.is_ok());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// The position of the iterator was set in the RCU section that `rcu` holds open.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[must_use]
pub struct RcuVmaIter<'a> {
    iter: VmaIter<'a>,
    rcu: RcuGuard,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> RcuVmaIter<'a> {
    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        self.iter.address_space()
    }

    /// Sets the iterator to `addr`, independent of what it has found before.
    ///
    /// Mirrors `vma_iter_set`.
    #[inline]
    pub fn set(&mut self, addr: usize) {
        // SAFETY: The iterator's memory is valid and exclusively ours, and was initialised.
        unsafe { bindings::vma_iter_set(self.iter.as_raw(), addr) };
    }

    #[inline]
    fn find(&mut self) -> Option<NonNull<bindings::vm_area_struct>> {
        // SAFETY: By the type invariants the position was set in this RCU section, so that the
        // nodes it refers to have not been freed.
        NonNull::new(unsafe { bindings::vma_next(self.iter.as_raw()) })
    }

    /// Finds the next VMA: the first one that ends above the address that the iterator was set to,
    /// or the one after the entry that it has found last. It is not locked, and may be changed or
    /// detached at any time.
    ///
    /// If there is none, the RCU section is left.
    ///
    /// What is found may not be what comes next if the address space changes meanwhile. This can
    /// miss a VMA that is mapped over the end of a gap while the lookup passes the gap. And if the
    /// entry that was found last has been merged with what follows it, this returns the VMA after
    /// the merged one. [`MmapLockSpeculation`] tells whether that is possible.
    #[inline]
    pub fn next(mut self) -> Result<FoundVma<'a>, VmaIter<'a>> {
        match self.find() {
            // INVARIANT: `vma` was found in the RCU section that the iterator holds open.
            Some(vma) => Ok(FoundVma { vma, iter: self }),
            None => Err(self.leave_rcu()),
        }
    }

    /// Returns whether another task is to run on this CPU, which it does when the RCU section has
    /// been left.
    ///
    /// Mirrors `need_resched`.
    #[inline]
    pub fn need_resched(&self) -> bool {
        self.rcu.preempt.need_resched()
    }

    /// Leaves the RCU section.
    #[inline]
    pub fn leave_rcu(self) -> VmaIter<'a> {
        self.iter
    }
}

/// Why a VMA could not be read-locked. [`FoundVma`] has an example.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartReadError {
    /// It is not part of the address space any more. Another may have taken its place.
    Detached,
    /// It is being changed, or it belongs to another address space by now, or it has as many
    /// readers as can be counted.
    Contended,
}

/// Some fields of a VMA, as they were at one moment. [`FoundVma::copy`] has an example.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmaCopy {
    start: usize,
    end: usize,
    flags: vm_flags_t,
    /// In pages.
    offset: usize,
    file: usize,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl VmaCopy {
    /// Returns its first address.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the first address behind it.
    #[inline]
    pub fn end(&self) -> usize {
        self.end
    }

    /// Returns its flags. `VM_MAYBE_GUARD` may be set at any time.
    #[inline]
    pub fn flags(&self) -> vm_flags_t {
        self.flags
    }

    /// Returns the address of the `struct file` that it maps, if it maps one, to be compared.
    #[inline]
    pub fn file(&self) -> Option<usize> {
        (self.file != 0).then_some(self.file)
    }

    /// Returns its offset in that file, in bytes.
    #[inline]
    pub fn offset(&self) -> Option<u64> {
        self.file().map(|_| (self.offset as u64) << PAGE_SHIFT)
    }
}

/// A VMA that was found in an RCU section, and the iterator that found it.
///
/// There are two things to do with it: to try to lock it, and before that to see whether a copy of
/// some fields is enough.
///
/// # Examples
///
/// ```
/// use kernel::mm::vma_iter::{StartReadError, VmaIter, VmaIterState};
///
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let found = VmaIter::new(&mm, &mut state).enter_rcu(0).next().ok().ok_or(ENOENT)?;
/// match found.start_read() {
///     Ok(vma) => assert_eq!((vma.start(), vma.end()), (start, end)),
///     // The VMA that took its place is found from where the iterator was before.
///     Err((StartReadError::Detached, iter)) => drop(iter.enter_rcu(0)),
///     // To take `mmap_lock` is to wait for the writer.
///     Err((StartReadError::Contended, iter)) => drop(iter.find_under_mmap_lock(0)?),
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// `vma` was found in the RCU section that `iter` holds open. VMAs are allocated from a cache that
/// is `SLAB_TYPESAFE_BY_RCU`, so until that section ends it points at a `struct vm_area_struct`,
/// albeit perhaps one that has been detached or attached to another address space.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[must_use]
pub struct FoundVma<'a> {
    vma: NonNull<bindings::vm_area_struct>,
    iter: RcuVmaIter<'a>,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> FoundVma<'a> {
    /// Copies fields of the VMA without locking it, and goes on behind it, like
    /// [`LockedVma::unlock_in_rcu`].
    ///
    /// `speculation` must be one of the same address space, and must have begun before the VMA was
    /// looked up. When this succeeds, the VMA was attached to the address space in all the time
    /// since then, and these fields did not change. So if the iterator was set since then, or stood
    /// at the end of a VMA that was locked then, this is what comes next.
    ///
    /// It fails if a writer may have changed the address space since `speculation` began, if the
    /// VMA has a name other than the path of its file, or if `wants` returns `false`, which is
    /// asked about what was read before it is known whether a writer has come. The VMA can still be
    /// locked.
    ///
    /// Context: Any.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::mm::{virt::flags, vma_iter::{VmaCopy, VmaIter, VmaIterState}};
    ///
    /// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
    /// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
    /// # let mm = TestMm::attach()?;
    /// # mm.map(start..end, PROT_READ)?;
    /// let is_anonymous = |vma: &VmaCopy| vma.file().is_none();
    /// let speculation = mm.mmap_lock_speculate_begin();
    /// let mut state = VmaIterState::new();
    /// let found = VmaIter::new(&mm, &mut state).enter_rcu(0).next().ok().ok_or(ENOENT)?;
    /// let section = found.section();
    /// let (vma, iter) = found.copy(&speculation, is_anonymous).ok().ok_or(EAGAIN)?;
    /// assert_eq!((vma.start(), vma.end(), vma.offset()), (start, end, None));
    /// assert_eq!(vma.flags() & (flags::READ | flags::WRITE), flags::READ);
    ///
    /// // There is nothing else.
    /// let iter = iter.next().err().ok_or(EINVAL)?;
    ///
    /// mm.map(end..end + PAGE_SIZE, PROT_READ)?;
    /// let found = iter.enter_rcu(0).next().ok().ok_or(ENOENT)?;
    /// assert_ne!(found.section(), section);
    /// // There has been a writer.
    /// let found = found.copy(&speculation, is_anonymous).err().ok_or(EINVAL)?;
    /// assert!(found.start_read().is_ok());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline(always)]
    pub fn copy(
        self,
        speculation: &MmapLockSpeculation<'a>,
        wants: impl FnOnce(&VmaCopy) -> bool,
    ) -> Result<(VmaCopy, RcuVmaIter<'a>), Self> {
        let vma = self.vma.as_ptr();

        // Writers change the fields meanwhile, so that `READ_ONCE()` is meant. No pointer among
        // them is followed, and what was read beside a writer is not returned.
        macro_rules! read {
            ($($field:tt)+) => {
                // SAFETY: No lock is held. By the type invariants the pointer is that of a `struct
                // vm_area_struct`, perhaps a recycled one, until the RCU section that `self.iter`
                // holds open ends, and `self` is not given away before. The field is an aligned
                // word, and any value is valid.
                unsafe { (&raw const (*vma).$($field)+).read_volatile() }
            };
        }

        #[cfg(CONFIG_ANON_VMA_NAME)]
        if !read!(anon_name).is_null() {
            return Err(self);
        }
        let file = read!(vm_file);
        // What an architecture names has `vm_ops`, by `_install_special_mapping()`.
        if file.is_null() && !read!(vm_ops).is_null() {
            return Err(self);
        }
        let copy = VmaCopy {
            start: read!(__bindgen_anon_1.__bindgen_anon_1.vm_start),
            end: read!(__bindgen_anon_1.__bindgen_anon_1.vm_end),
            flags: read!(__bindgen_anon_2.vm_flags),
            offset: read!(vm_pgoff),
            file: file as usize,
        };

        if wants(&copy) && !speculation.retry() {
            Ok((copy, self.iter))
        } else {
            Err(self)
        }
    }

    /// Returns the RCU section in which the VMA was found.
    #[inline]
    pub fn section(&self) -> RcuSection {
        RcuSection(self.iter.iter.state.sections)
    }

    /// Tries to read-lock the VMA, without waiting.
    ///
    /// When this succeeds the VMA is attached to the address space and cannot change. But it need
    /// not cover what it covered when it was found: the caller has to look at its range, and to
    /// verify what it concludes from a gap before it ([`LockedVma::gap_from`]).
    ///
    /// When it fails the RCU section has been left.
    ///
    /// Context: Any.
    ///
    /// Mirrors `vma_start_read`.
    #[inline]
    pub fn start_read(self) -> Result<LockedVma<'a>, (StartReadError, VmaIter<'a>)> {
        let RcuVmaIter { iter, rcu } = self.iter;

        // SAFETY: `rcu` shows that the RCU read lock is held. By the type invariants the pointer is
        // that of a `struct vm_area_struct` until that lock is released. The mm is borrowed. With
        // preemption off this may wake up a writer, and drop the last reference to the address
        // space that a VMA was recycled for. The scheduler does both with preemption off as well.
        let vma =
            unsafe { bindings::vma_start_read(iter.address_space().as_raw(), self.vma.as_ptr()) };

        if vma == self.vma.as_ptr() {
            let guard = VmaReadGuard {
                // SAFETY: The VMA is now read-locked and attached to `mm`, which `'a` borrows. It
                // stays valid for as long as it is locked, which the guard ensures.
                vma: unsafe { VmaRef::from_raw(vma) },
                _nts: NotThreadSafe,
            };
            let mut iter = RcuVmaIter { iter, rcu };

            // The iterator remembers the last address of the entry that it found, and would go on
            // after whatever entry covers that address by now.
            //
            // SAFETY: The iterator's memory is valid and exclusively ours, and was initialised.
            let last = unsafe { (*iter.iter.as_raw()).mas.last };
            if last != guard.end() - 1 {
                iter.set(guard.end());
            }

            // INVARIANT: The iterator is at the VMA as it was locked, or at its end.
            return Ok(LockedVma { guard, iter });
        }

        // On failure `vma_start_read` has released the RCU read lock.
        core::mem::forget(rcu.read_lock);

        // NULL says that the VMA could not be locked, the only error pointer is -EAGAIN.
        Err(if vma.is_null() {
            (StartReadError::Contended, iter)
        } else {
            (StartReadError::Detached, iter)
        })
    }
}

#[cfg(CONFIG_PER_VMA_LOCK)]
#[inline]
fn is_contended(guard: &VmaReadGuard<'_>) -> bool {
    // SAFETY: The VMA is valid and read-locked for as long as the guard exists.
    unsafe { bindings::vma_lock_is_contended(guard.as_ptr()) }
}

/// A read-locked VMA, and an iterator that stands at it, in an RCU section.
///
/// # Examples
///
/// ```
/// use kernel::mm::vma_iter::{VmaIter, VmaIterState};
///
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// # mm.map(end + PAGE_SIZE..end + 2 * PAGE_SIZE, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let found = VmaIter::new(&mm, &mut state).enter_rcu(0).next().ok().ok_or(ENOENT)?;
/// let first = found.start_read().ok().ok_or(EAGAIN)?;
/// assert!(!first.is_contended());
/// let section = first.section();
/// let pos = first.end();
///
/// let found = first.unlock_in_rcu().next().ok().ok_or(ENOENT)?;
/// let mut second = found.start_read().ok().ok_or(EAGAIN)?;
/// // RCU has not been left since the first VMA was found.
/// assert_eq!(second.section(), section);
/// // A page lies between the two.
/// assert!(second.gap_from(pos));
///
/// let end = second.end();
/// assert!(second.unlock().is_end(end));
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// The entry that `iter` has found last is that of the VMA, or `iter` is at the end of the VMA.
/// The VMA is attached to the address space of `iter`.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[must_use]
pub struct LockedVma<'a> {
    // Dropped first, so that the caller cannot lose its CPU with the VMA locked.
    guard: VmaReadGuard<'a>,
    iter: RcuVmaIter<'a>,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> LockedVma<'a> {
    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        self.iter.address_space()
    }

    /// Returns the RCU section in which the VMA is locked.
    #[inline]
    pub fn section(&self) -> RcuSection {
        RcuSection(self.iter.iter.state.sections)
    }

    /// Unlocks the VMA, and stays in the RCU section with the iterator behind the VMA.
    ///
    /// What the VMA grows over from now on is not found by this iterator. A [`MmapLockSpeculation`]
    /// that has begun while the VMA was locked tells whether that is possible. If so, the iterator
    /// can be set to where the VMA has ended ([`RcuVmaIter::set`]).
    ///
    /// [`MmapLockSpeculation`]: super::mmap_lock::MmapLockSpeculation
    #[inline]
    pub fn unlock_in_rcu(self) -> RcuVmaIter<'a> {
        let Self { guard, iter } = self;
        drop(guard);
        iter
    }

    /// Returns whether nothing is mapped from `addr` to the start of this VMA, which is above
    /// `addr`.
    ///
    /// `true` is reliable if no writer has taken or released `mmap_lock` during the call
    /// ([`MmapLockSpeculation::writers_since`]). The walk reads where a range begins and ends
    /// before it reads what is mapped there, and a writer can change each of these in place.
    /// `false` may be returned although nothing is mapped there.
    ///
    /// [`MmapLockSpeculation::writers_since`]: super::mmap_lock::MmapLockSpeculation::writers_since
    // Out of line, this would have the VMA in memory where it is called, not in registers.
    #[inline(always)]
    pub fn gap_from(&mut self, addr: usize) -> bool {
        self.iter.set(addr);

        // SAFETY: The iterator's memory is valid and exclusively ours, and was just set in the RCU
        // section that is still open.
        let (entry, last) = unsafe {
            let mas = &mut (*self.iter.iter.as_raw()).mas;
            (bindings::mas_walk(mas), mas.last)
        };

        // INVARIANT: The iterator is at the end of the VMA.
        self.iter.set(self.guard.end());

        // Unlike a search for the next entry, this walk goes down the tree once, and starts again
        // when it meets a node that has been replaced.
        entry.is_null() && last.wrapping_add(1) == self.guard.start()
    }

    /// Returns whether a writer waits for the readers of the VMA.
    ///
    /// Mirrors `vma_lock_is_contended`.
    #[inline]
    pub fn is_contended(&self) -> bool {
        is_contended(&self.guard)
    }

    /// Unlocks the VMA and leaves the RCU section.
    #[inline]
    pub fn unlock(self) -> VmaIter<'a> {
        self.unlock_in_rcu().leave_rcu()
    }

    /// Leaves the RCU section, with the VMA still locked, and enables preemption.
    #[inline]
    pub fn leave_rcu(self) -> SleepableVma<'a> {
        SleepableVma {
            guard: self.guard,
            iter: self.iter.iter,
        }
    }
}

// Make all `VmaRef` methods available on `LockedVma`.
#[cfg(CONFIG_PER_VMA_LOCK)]
impl Deref for LockedVma<'_> {
    type Target = VmaRef;

    #[inline]
    fn deref(&self) -> &VmaRef {
        &self.guard
    }
}

/// A read-locked VMA outside of any RCU section: its owner may sleep.
///
/// A writer of the VMA has to wait meanwhile, with `mmap_lock` held.
///
/// # Examples
///
/// ```
/// use kernel::{alloc::KVec, mm::vma_iter::{VmaIter, VmaIterState}};
///
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let found = VmaIter::new(&mm, &mut state).enter_rcu(0).next().ok().ok_or(ENOENT)?;
/// let vma = found.start_read().ok().ok_or(EAGAIN)?.leave_rcu();
/// // This may sleep.
/// let mut starts = KVec::new();
/// starts.push(vma.start(), GFP_KERNEL)?;
/// assert!(!vma.is_contended());
/// // The walk goes on in another RCU section.
/// assert!(vma.unlock().enter_rcu(end).next().is_err());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// The VMA is attached to the address space of `iter`.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[must_use]
pub struct SleepableVma<'a> {
    guard: VmaReadGuard<'a>,
    iter: VmaIter<'a>,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> SleepableVma<'a> {
    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        self.iter.address_space()
    }

    /// Returns whether a writer waits for the readers of the VMA.
    ///
    /// Mirrors `vma_lock_is_contended`.
    #[inline]
    pub fn is_contended(&self) -> bool {
        is_contended(&self.guard)
    }

    /// Unlocks the VMA.
    #[inline]
    pub fn unlock(self) -> VmaIter<'a> {
        let Self { guard, iter } = self;
        drop(guard);
        iter
    }
}

// Make all `VmaRef` methods available on `SleepableVma`.
#[cfg(CONFIG_PER_VMA_LOCK)]
impl Deref for SleepableVma<'_> {
    type Target = VmaRef;

    #[inline]
    fn deref(&self) -> &VmaRef {
        &self.guard
    }
}

/// A VMA that is locked in a way that lets its owner sleep.
///
/// # Examples
///
/// ```
/// use kernel::mm::vma_iter::{SleepableLock, VmaIter, VmaIterState};
///
/// /// Something that may sleep, so that it cannot be done with a `LockedVma`.
/// fn size<V: SleepableLock>(vma: &V) -> usize {
///     vma.end() - vma.start()
/// }
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// # mm.map(start..end, PROT_READ)?;
/// let mut state = VmaIterState::new();
/// let vma = VmaIter::new(&mm, &mut state).find_under_mmap_lock(0)?.ok_or(ENOENT)?;
/// assert_eq!(size(&vma), PAGE_SIZE);
/// # Ok::<(), Error>(())
/// ```
///
/// # Safety
///
/// For as long as a value of the type exists, its VMA is attached to an address space and cannot
/// change, because `mmap_lock` is held for reading if `MMAP_LOCKED`, and otherwise because the VMA
/// is read-locked.
pub unsafe trait SleepableLock: Deref<Target = VmaRef> {
    /// Whether it is `mmap_lock` that is held.
    const MMAP_LOCKED: bool;
}

// SAFETY: By the type invariants.
unsafe impl SleepableLock for MmapVma<'_> {
    const MMAP_LOCKED: bool = true;
}

#[cfg(CONFIG_PER_VMA_LOCK)]
// SAFETY: The guard has the VMA locked, and the VMA is attached by the type invariants.
unsafe impl SleepableLock for SleepableVma<'_> {
    const MMAP_LOCKED: bool = false;
}

impl MmWithUser {
    /// Returns whether the caller is the last user of the address space: the process has exited or
    /// executed another program, and what is mapped here is freed when the caller is done.
    ///
    /// Other readers may still take and drop references for a moment.
    ///
    /// Context: Any.
    ///
    /// # Examples
    ///
    /// ```
    /// # let mm = kernel::mm::test_mm::TestMm::attach()?;
    /// // The thread that it is attached to uses it, too.
    /// assert!(!mm.is_last_user());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn is_last_user(&self) -> bool {
        // SAFETY: The pointer is valid since self is a reference, and the field is only accessed
        // atomically.
        let users = unsafe {
            Atomic::from_ptr(addr_of_mut!(
                (*self.as_raw()).__bindgen_anon_1.mm_users.counter
            ))
        };
        users.load(Relaxed) == 1
    }

    /// Returns the gate VMA, if the architecture has one for this address space.
    ///
    /// # Examples
    ///
    /// ```
    /// # let mm = kernel::mm::test_mm::TestMm::attach()?;
    /// if let Some(gate) = mm.gate_vma() {
    ///     assert!(!gate.as_ptr().is_null());
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn gate_vma(&self) -> Option<GateVma> {
        // SAFETY: The pointer is valid since self is a reference.
        let vma = NonNull::new(unsafe { bindings::get_gate_vma(self.as_raw()) })?;

        // INVARIANT: `vma` is a gate VMA.
        Some(GateVma(vma))
    }
}

/// The gate VMA: a page that the kernel offers to every process at a fixed address above the
/// addresses of user space, such as `[vsyscall]` on x86-64.
///
/// It belongs to no address space and never changes, so it needs no lock.
///
/// # Invariants
///
/// The pointer is that of a `struct vm_area_struct` that is never written nor freed.
#[derive(Clone, Copy)]
pub struct GateVma(NonNull<bindings::vm_area_struct>);

impl GateVma {
    /// Returns a raw pointer to the gate VMA.
    #[inline]
    pub fn as_ptr(&self) -> *mut bindings::vm_area_struct {
        self.0.as_ptr()
    }
}
