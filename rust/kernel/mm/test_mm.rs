// SPDX-License-Identifier: GPL-2.0

//! An address space for KUnit tests.

use super::MmWithUser;
use crate::{
    bindings,
    error::{to_result, Error, Result},
    prelude::*,
    sync::aref::ARef,
    types::NotThreadSafe,
};
use core::ops::Range;

/// An address space without any mappings at first, attached to the thread that runs the test.
///
/// KUnit detaches it when the test ends.
pub struct TestMm {
    mm: ARef<MmWithUser>,
    // The mappings are made in the address space of the current thread.
    _nts: NotThreadSafe,
}

impl TestMm {
    /// Makes an address space and attaches it. Only for the thread of a test.
    pub fn attach() -> Result<Self> {
        // SAFETY: The test runs in a thread of its own.
        to_result(unsafe { bindings::kunit_attach_mm() })?;

        Ok(Self {
            mm: current!().mm().ok_or(ENOMEM)?.into(),
            _nts: NotThreadSafe,
        })
    }

    /// Maps private anonymous memory at exactly these addresses, with `PROT_*` protection bits,
    /// instead of what is mapped there.
    pub fn map(&self, range: Range<usize>, prot: u32) -> Result {
        // SAFETY: The current thread has an address space, all arguments are checked.
        let address = unsafe {
            bindings::vm_mmap(
                core::ptr::null_mut(),
                range.start,
                range.len(),
                prot as usize,
                (bindings::MAP_PRIVATE | bindings::MAP_ANONYMOUS | bindings::MAP_FIXED) as usize,
                0,
            )
        };

        // An error is a negative number in place of the address.
        if address == range.start {
            Ok(())
        } else {
            Err(Error::from_errno(address as c_int))
        }
    }

    /// Unmaps these addresses.
    pub fn unmap(&self, range: Range<usize>) -> Result {
        // SAFETY: The current thread has an address space, all arguments are checked.
        to_result(unsafe { bindings::vm_munmap(range.start, range.len()) })
    }
}

impl core::ops::Deref for TestMm {
    type Target = MmWithUser;

    fn deref(&self) -> &MmWithUser {
        &self.mm
    }
}
