// SPDX-License-Identifier: GPL-2.0

//! What the `ioctl` that asks about one VMA, `PROCMAP_QUERY`, consists of.
//!
//! C header: [`include/uapi/linux/fs.h`](srctree/include/uapi/linux/fs.h)

use super::name::FileRef;
use core::mem::{size_of, MaybeUninit};
use kernel::{
    bindings,
    error::to_result,
    ioctl::_IOWR,
    mm::virt::VmaRef,
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// The number of the `ioctl`.
pub(crate) const PROCMAP_QUERY: u32 =
    _IOWR::<bindings::procmap_query>(bindings::PROCFS_IOCTL_MAGIC as u32, 17);

/// The flags of a query, and of the VMA in its answer: `enum procmap_query_flags`.
pub(crate) mod flags {
    use kernel::bindings;

    /// The VMA is readable, or has to be.
    pub(crate) const READABLE: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_VMA_READABLE as u64;
    /// The VMA is writable, or has to be.
    pub(crate) const WRITABLE: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_VMA_WRITABLE as u64;
    /// The VMA is executable, or has to be.
    pub(crate) const EXECUTABLE: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_VMA_EXECUTABLE as u64;
    /// The VMA is shared, or has to be.
    pub(crate) const SHARED: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_VMA_SHARED as u64;
    /// If no VMA covers the address, the next one is wanted.
    pub(crate) const COVERING_OR_NEXT: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64;
    /// The VMA has to be one of a file.
    pub(crate) const FILE_BACKED: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_FILE_BACKED_VMA as u64;
}

/// The longest name, in bytes.
pub(crate) const PATH_MAX: usize = bindings::PATH_MAX as usize;

/// The fields of a query and its answer.
pub(crate) type Fields = bindings::procmap_query;

/// The argument of a query, copied from user space.
pub(crate) struct Query<'a> {
    /// The fields.
    pub(crate) fields: &'a mut Fields,
    user: UserPtr,
    user_size: usize,
}

/// The memory of a [`Query`]: a C `struct procmap_query`.
pub(crate) type QueryMemory = MaybeUninit<Fields>;

impl<'a> Query<'a> {
    /// The size of the argument up to the field `query_addr`, the smallest that has a question.
    const MIN_SIZE: usize =
        core::mem::offset_of!(bindings::procmap_query, query_addr) + size_of::<u64>();

    /// Copies the argument to `memory`. Fields that user space has not passed are zero.
    ///
    /// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`; `EINVAL` if the
    /// argument is too short; `E2BIG` if it is longer than a page, or has something that is not
    /// zero beyond the fields of the kernel.
    #[inline]
    pub(crate) fn copy_from_user(user: UserPtr, memory: &'a mut QueryMemory) -> Result<Self> {
        let size: u64 = UserSlice::new(user, size_of::<u64>()).reader().read()?;
        if size > kernel::page::PAGE_SIZE as u64 {
            return Err(E2BIG);
        }
        if size < Self::MIN_SIZE as u64 {
            return Err(EINVAL);
        }

        let size = size as usize;
        let to = memory.as_mut_ptr().cast();
        let from = user.as_const_ptr();
        if size == size_of::<Fields>() {
            // SAFETY: `memory` has this size and is borrowed mutably for longer than the call. No
            // lock is held, so that a page fault may sleep. The user address is checked.
            if unsafe { bindings::_copy_from_user(to, from, size_of::<Fields>()) } != 0 {
                return Err(EFAULT);
            }
        } else {
            // SAFETY: As above. No more than the size of `memory` is written to it.
            to_result(unsafe {
                bindings::copy_struct_from_user(to, size_of::<Fields>(), from, size)
            })?;
        }

        Ok(Self {
            // SAFETY: All of the memory has been written just now, and all bits are valid in it.
            fields: unsafe { memory.assume_init_mut() },
            user,
            user_size: size,
        })
    }

    /// Copies the fields back, as far as the argument of user space reaches.
    ///
    /// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`.
    #[inline]
    pub(crate) fn copy_to_user(&self) -> Result {
        let fields = core::ptr::from_ref::<Fields>(self.fields);

        if self.user_size >= size_of::<Fields>() {
            // SAFETY: The fields are borrowed for longer than the call, and have this size and no
            // padding, so that all of their bytes are initialised. The user address is checked.
            let left = unsafe {
                bindings::_copy_to_user(self.user.as_mut_ptr(), fields.cast(), size_of::<Fields>())
            };
            return if left == 0 { Ok(()) } else { Err(EFAULT) };
        }
        // SAFETY: The fields are borrowed by `self` for longer than the slice, are longer than it,
        // and all of their bytes are initialised, as above.
        copy_to_user(self.user, unsafe {
            core::slice::from_raw_parts(fields.cast(), self.user_size)
        })
    }
}

// The last field ends where the structure does.
const _: () = assert!(
    size_of::<Fields>()
        == core::mem::offset_of!(bindings::procmap_query, build_id_addr) + size_of::<u64>()
);

/// Copies bytes to a user address.
///
/// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`.
#[inline]
pub(crate) fn copy_to_user(user: UserPtr, bytes: &[u8]) -> Result {
    // SAFETY: The bytes are borrowed. The user address is checked.
    let left =
        unsafe { bindings::copy_to_user(user.as_mut_ptr(), bytes.as_ptr().cast(), bytes.len()) };
    if left == 0 {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// The largest build ID, in bytes.
pub(crate) const BUILD_ID_SIZE_MAX: usize = bindings::BUILD_ID_SIZE_MAX as usize;

/// Returns the size of the build ID of the ELF file that a VMA maps, if the part of the file that
/// has it is in the page cache. This does not wait, and generates no event that the file was read.
///
/// Context: Any. Errors: `EFAULT` if a part is not there, `EINVAL` if there is no build ID.
///
/// Mirrors `build_id_parse_nofault`.
#[inline]
pub(crate) fn cached_build_id(
    vma: &VmaRef,
    build_id: &mut [u8; BUILD_ID_SIZE_MAX],
) -> Result<usize> {
    let mut size = 0;
    // SAFETY: By the type invariants the VMA is valid and cannot change. The buffer is as large as
    // it may have to be.
    to_result(unsafe {
        bindings::build_id_parse_nofault(vma.as_ptr(), build_id.as_mut_ptr(), &mut size)
    })?;
    Ok(size as usize)
}

impl FileRef {
    /// Reads the build ID of an ELF file, and returns its size.
    ///
    /// Context: Process context, may sleep; no lock of the address space may be held.
    ///
    /// Mirrors `build_id_parse_file`, see there for the errors.
    #[inline]
    pub(crate) fn build_id(&self, build_id: &mut [u8; BUILD_ID_SIZE_MAX]) -> Result<usize> {
        let mut size = 0;
        // SAFETY: By the type invariants the file is valid. The buffer is as large as it may have
        // to be.
        to_result(unsafe {
            bindings::build_id_parse_file(self.as_ptr(), build_id.as_mut_ptr(), &mut size)
        })?;
        Ok(size as usize)
    }
}
