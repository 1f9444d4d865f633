// SPDX-License-Identifier: GPL-2.0

//! `mmap_lock`, and whether a thread has held it for writing.
//!
//! C header: [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use super::{MmWithUser, MmapReadGuard};
use crate::{
    bindings,
    error::{to_result, Result},
    types::NotThreadSafe,
};

/// A snapshot of `mm_lock_seq`. It tells later whether a writer may have held `mmap_lock` at that
/// moment or has taken it since.
///
/// # Examples
///
/// ```
/// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
/// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
/// # let mm = TestMm::attach()?;
/// let speculation = mm.mmap_lock_speculate_begin();
/// // What is read of the address space here was there at one moment.
/// assert!(!speculation.retry());
///
/// mm.map(start..end, PROT_READ)?;
/// assert!(speculation.retry());
/// assert!(speculation.writers_since());
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// `seq` is the value that `mm_lock_seq` of `mm` had at that moment.
#[cfg(CONFIG_PER_VMA_LOCK)]
#[derive(Clone, Copy)]
pub struct MmapLockSpeculation<'a> {
    mm: &'a MmWithUser,
    seq: crate::ffi::c_uint,
}

#[cfg(CONFIG_PER_VMA_LOCK)]
impl<'a> MmapLockSpeculation<'a> {
    /// Returns the address space.
    #[inline]
    pub fn address_space(&self) -> &'a MmWithUser {
        self.mm
    }

    /// Returns the value that `mm_lock_seq` had when the speculation began.
    ///
    /// If another speculation on the same address space, in the same RCU section, began with the
    /// same value, and that is even, no writer has come between the two.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
    /// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
    /// # let mm = TestMm::attach()?;
    /// let first = mm.mmap_lock_speculate_begin();
    /// assert_eq!(mm.mmap_lock_speculate_begin().sequence(), first.sequence());
    /// mm.map(start..end, PROT_READ)?;
    /// assert_ne!(mm.mmap_lock_speculate_begin().sequence(), first.sequence());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn sequence(&self) -> u32 {
        self.seq
    }

    /// Returns whether a writer may have held `mmap_lock` when the speculation began or since then.
    ///
    /// Mirrors `mmap_lock_speculate_retry`.
    #[inline]
    pub fn retry(&self) -> bool {
        self.is_beside_writer() || self.writers_since()
    }

    /// Returns whether a thread held `mmap_lock` for writing when the speculation began.
    ///
    /// # Examples
    ///
    /// ```
    /// # let mm = kernel::mm::test_mm::TestMm::attach()?;
    /// assert!(!mm.mmap_lock_speculate_begin().is_beside_writer());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn is_beside_writer(&self) -> bool {
        // It is odd while a thread holds `mmap_lock` for writing.
        self.seq & 1 != 0
    }

    /// Returns whether a thread may have taken or released `mmap_lock` for writing since the
    /// speculation began. If `false`, either no thread has held it for writing since then, or one
    /// thread has held it all the time.
    #[inline]
    pub fn writers_since(&self) -> bool {
        // SAFETY: The pointer is valid since the mm is borrowed.
        unsafe { bindings::mmap_lock_speculate_retry(self.mm.as_raw(), self.seq) }
    }
}

impl MmWithUser {
    /// Takes `mmap_lock` for reading unless a fatal signal arrives first.
    ///
    /// Context: Process context, may sleep. Errors: `EINTR`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{mm::test_mm::{TestMm, PROT_READ}, page::PAGE_SIZE};
    /// # let (start, end) = (0x1000_0000, 0x1000_0000 + PAGE_SIZE);
    /// # let mm = TestMm::attach()?;
    /// # mm.map(start..end, PROT_READ)?;
    /// let guard = mm.mmap_read_lock_killable()?;
    /// assert!(guard.vma_lookup(start).is_some());
    /// assert!(guard.vma_lookup(end).is_none());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub fn mmap_read_lock_killable(&self) -> Result<MmapReadGuard<'_>> {
        // SAFETY: The pointer is valid since self is a reference.
        to_result(unsafe { bindings::mmap_read_lock_killable(self.as_raw()) })?;

        // INVARIANT: We just acquired the read lock.
        Ok(MmapReadGuard {
            mm: self,
            _nts: NotThreadSafe,
        })
    }

    /// Begins to watch for writers of the address space.
    ///
    /// Context: Any.
    ///
    /// Mirrors `mmap_lock_speculate_try_begin`, but if `mmap_lock` is held for writing right now,
    /// [`MmapLockSpeculation::retry`] says so.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[inline]
    pub fn mmap_lock_speculate_begin(&self) -> MmapLockSpeculation<'_> {
        let mut seq = 0;

        // INVARIANT: This is set whether a thread holds the lock or not.
        //
        // SAFETY: The pointers are valid since they come from references.
        unsafe { bindings::mmap_lock_speculate_try_begin(self.as_raw(), &mut seq) };

        MmapLockSpeculation { mm: self, seq }
    }
}
