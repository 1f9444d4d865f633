// SPDX-License-Identifier: GPL-2.0

//! What the `ioctl` that asks about one VMA, `PROCMAP_QUERY`, consists of.
//!
//! C header: [`include/uapi/linux/fs.h`](srctree/include/uapi/linux/fs.h)

use crate::{
    bindings,
    error::{from_err_ptr, to_result},
    ioctl::_IOWR,
    mm::virt::VmaRef,
    prelude::*,
    uaccess::UserPtr,
};
use core::{
    marker::PhantomData,
    mem::{size_of, MaybeUninit},
    ops::Range,
    ptr::NonNull, //
};

/// The number of the `ioctl`.
pub const PROCMAP_QUERY: u32 =
    _IOWR::<bindings::procmap_query>(bindings::PROCFS_IOCTL_MAGIC as u32, 17);

/// The flags of a query, and of the VMA in its answer: `enum procmap_query_flags`.
pub mod flags {
    use crate::bindings;

    /// The VMA is readable, or has to be.
    pub const READABLE: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_VMA_READABLE as u64;
    /// The VMA is writable, or has to be.
    pub const WRITABLE: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_VMA_WRITABLE as u64;
    /// The VMA is executable, or has to be.
    pub const EXECUTABLE: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_VMA_EXECUTABLE as u64;
    /// The VMA is shared, or has to be.
    pub const SHARED: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_VMA_SHARED as u64;
    /// If no VMA covers the address, the next one is wanted.
    pub const COVERING_OR_NEXT: u64 =
        bindings::procmap_query_flags_PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64;
    /// The VMA has to be one of a file.
    pub const FILE_BACKED: u64 = bindings::procmap_query_flags_PROCMAP_QUERY_FILE_BACKED_VMA as u64;
}

/// The argument of a query, copied from user space.
pub struct Query<'a> {
    /// The fields.
    pub fields: &'a mut bindings::procmap_query,
    user: UserPtr,
    user_size: usize,
}

/// The memory of a [`Query`]: a C `struct procmap_query`.
pub type QueryMemory = MaybeUninit<bindings::procmap_query>;

impl<'a> Query<'a> {
    /// The size of the argument up to the field `query_addr`, the smallest that has a question.
    const MIN_SIZE: usize =
        core::mem::offset_of!(bindings::procmap_query, query_addr) + size_of::<u64>();

    /// Copies the argument to `memory`. What user space does not know of is zero.
    ///
    /// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`; `EINVAL` if the
    /// argument is too short; `E2BIG` if it is longer than a page, or has something that is not
    /// zero beyond what the kernel knows of.
    #[inline]
    pub fn copy_from_user(user: UserPtr, memory: &'a mut QueryMemory) -> Result<Self> {
        let mut size = 0u64;
        // SAFETY: The pointer is that of a variable of this size. The user address is checked.
        let left = unsafe {
            bindings::copy_from_user(
                core::ptr::from_mut(&mut size).cast(),
                user.as_const_ptr(),
                size_of::<u64>(),
            )
        };
        if left != 0 {
            return Err(EFAULT);
        }
        if size > crate::page::PAGE_SIZE as u64 {
            return Err(E2BIG);
        }
        if size < Self::MIN_SIZE as u64 {
            return Err(EINVAL);
        }

        let size = size as usize;
        // SAFETY: The pointer is that of memory of this size. The user address is checked.
        let error = unsafe {
            bindings::copy_struct_from_user(
                memory.as_mut_ptr().cast(),
                size_of::<bindings::procmap_query>(),
                user.as_const_ptr(),
                size,
            )
        };
        if error != 0 {
            to_result(error)?;
        }

        Ok(Self {
            // SAFETY: All of the memory has been written just now, and all bits are valid in it.
            fields: unsafe { memory.assume_init_mut() },
            user,
            user_size: size,
        })
    }

    /// Copies the fields back, as far as user space knows of them.
    ///
    /// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`.
    #[inline]
    pub fn copy_to_user(&self) -> Result {
        let size = self.user_size.min(size_of::<bindings::procmap_query>());
        // SAFETY: The structure has no padding, so that all of its bytes are initialised.
        let bytes = unsafe {
            core::slice::from_raw_parts(
                core::ptr::from_ref::<bindings::procmap_query>(self.fields).cast(),
                size,
            )
        };

        copy_to_user(self.user, bytes)
    }
}

// The last field ends where the structure does.
const _: () = assert!(
    size_of::<bindings::procmap_query>()
        == core::mem::offset_of!(bindings::procmap_query, build_id_addr) + size_of::<u64>()
);

/// Copies bytes to a user address.
///
/// Context: Process context, may sleep; no lock may be held. Errors: `EFAULT`.
#[inline]
pub fn copy_to_user(user: UserPtr, bytes: &[u8]) -> Result {
    // SAFETY: The bytes are borrowed. The user address is checked.
    let left =
        unsafe { bindings::copy_to_user(user.as_mut_ptr(), bytes.as_ptr().cast(), bytes.len()) };
    if left == 0 {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// The file that a VMA maps.
///
/// # Invariants
///
/// The pointer is that of the file of a VMA that is locked for `'a`.
#[derive(Clone, Copy)]
pub struct VmaFile<'a>(NonNull<bindings::file>, PhantomData<&'a VmaRef>);

impl<'a> VmaFile<'a> {
    /// Returns the file of `vma`, if it has one.
    #[inline]
    pub fn of(vma: &'a VmaRef) -> Option<Self> {
        // SAFETY: By the type invariants the VMA is valid and cannot change.
        let file = unsafe { (*vma.as_ptr()).vm_file };

        // INVARIANT: The VMA is locked for `'a`.
        NonNull::new(file).map(|file| Self(file, PhantomData))
    }

    /// Returns the device and the number of the inode that is shown to users.
    ///
    /// Mirrors `file_user_inode`.
    #[inline]
    pub fn device_and_inode(self) -> (bindings::dev_t, u64) {
        // SAFETY: By the type invariants the file is valid, and it keeps its inode alive.
        unsafe {
            let inode = bindings::file_user_inode(self.0.as_ptr());
            ((*(*inode).i_sb).s_dev, (*inode).i_ino as u64)
        }
    }

    /// Takes a reference, which outlives the lock of the VMA.
    #[inline]
    pub fn get(self) -> FileRef {
        // SAFETY: By the type invariants the file is valid. INVARIANT: This count is ours.
        unsafe { bindings::get_file(self.0.as_ptr()) };
        FileRef(self.0)
    }
}

/// A file that is kept open.
///
/// # Invariants
///
/// Owns a reference count on the file.
pub struct FileRef(NonNull<bindings::file>);

/// The largest build ID, in bytes.
pub const BUILD_ID_SIZE_MAX: usize = bindings::BUILD_ID_SIZE_MAX as usize;

impl FileRef {
    /// Reads the build ID of an ELF file, and returns its size.
    ///
    /// Context: Process context, may sleep; no lock of the address space may be held.
    ///
    /// Mirrors `build_id_parse_file`, see there for the errors.
    #[inline]
    pub fn build_id(&self, build_id: &mut [u8; BUILD_ID_SIZE_MAX]) -> Result<usize> {
        let mut size = 0;
        // SAFETY: By the type invariants the file is valid. The buffer is as large as it may have
        // to be.
        to_result(unsafe {
            bindings::build_id_parse_file(self.0.as_ptr(), build_id.as_mut_ptr(), &mut size)
        })?;
        Ok(size as usize)
    }
}

impl Drop for FileRef {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference count is ours.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

/// What the last column of `/proc/PID/maps` says of a VMA.
pub enum VmaName<'a> {
    /// The path of the file.
    Path(VmaPath<'a>),
    /// A text that stands between these two others.
    Text(&'static [u8], &'a CStr, &'static [u8]),
}

/// The path of a file that a VMA maps.
///
/// # Invariants
///
/// The pointer is that of the path of a file that is open for `'a`.
pub struct VmaPath<'a>(*const bindings::path, PhantomData<&'a VmaRef>);

impl<'a> VmaName<'a> {
    /// Returns the name of `vma`, if it has one.
    ///
    /// Mirrors `get_vma_name`.
    #[inline]
    pub fn of(vma: &'a VmaRef) -> Option<Self> {
        let mut path = core::ptr::null();
        let mut name: *const c_char = core::ptr::null();
        let mut format: *const c_char = core::ptr::null();

        // SAFETY: By the type invariants the VMA is valid and cannot change.
        unsafe { bindings::get_vma_name(vma.as_ptr(), &mut path, &mut name, &mut format) };

        if !path.is_null() {
            // INVARIANT: The VMA, which is locked for `'a`, keeps its file open.
            return Some(Self::Path(VmaPath(path, PhantomData)));
        }
        if name.is_null() {
            return None;
        }
        // SAFETY: The name is a string, and part of the VMA or of what it keeps alive.
        let name = unsafe { CStr::from_char_ptr(name) };
        if format.is_null() {
            return Some(Self::Text(b"", name, b""));
        }
        // SAFETY: The format is a string constant with one `%s`.
        let format: &'static [u8] = unsafe { CStr::from_char_ptr(format) }.to_bytes();
        let mut parts = format.splitn(2, |&c| c == b'%');
        let before = parts.next().unwrap_or_default();
        let after = parts.next().and_then(|rest| rest.strip_prefix(b"s"));
        Some(Self::Text(before, name, after.unwrap_or_default()))
    }

    /// Copies the name to a buffer of `size` bytes.
    ///
    /// Context: Process context, may sleep. Errors: `ENOMEM`, or `ENAMETOOLONG` if the name and the
    /// zero byte after it take more than that.
    #[inline]
    pub fn copy(&self, size: usize) -> Result<NameBuffer> {
        let mut buffer = KVec::<u8>::with_capacity(size, GFP_KERNEL)?;
        let memory: *mut u8 = buffer.spare_capacity_mut().as_mut_ptr().cast();

        let used = match self {
            Self::Path(path) => {
                // SAFETY: By the type invariants the path is valid, and the buffer is of this size.
                let start = from_err_ptr(unsafe {
                    bindings::d_path(path.0, memory.cast(), size as c_int)
                })?;
                start as usize - memory as usize..size
            }
            Self::Text(before, name, after) => {
                let mut end = 0;
                for part in [*before, name.to_bytes(), *after, b"\0"] {
                    if part.len() > size - end {
                        return Err(ENAMETOOLONG);
                    }
                    // SAFETY: There is room for it, as was just checked.
                    unsafe {
                        core::ptr::copy_nonoverlapping(part.as_ptr(), memory.add(end), part.len())
                    };
                    end += part.len();
                }
                0..end
            }
        };

        // INVARIANT: `d_path` puts the path at the end of the buffer, everything else begins at its
        // start.
        Ok(NameBuffer { buffer, used })
    }
}

/// A copy of the name of a VMA.
///
/// # Invariants
///
/// The bytes `used` are within the capacity of the buffer, and initialised.
pub struct NameBuffer {
    buffer: KVec<u8>,
    used: Range<usize>,
}

impl NameBuffer {
    /// Returns the name and the zero byte after it.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants.
        unsafe {
            core::slice::from_raw_parts(self.buffer.as_ptr().add(self.used.start), self.used.len())
        }
    }
}

/// Returns the size of the pages in which a VMA is changed, in bytes.
///
/// Mirrors `vma_kernel_pagesize`.
#[inline]
pub fn kernel_page_size(vma: &VmaRef) -> usize {
    // SAFETY: By the type invariants the VMA is valid and cannot change.
    unsafe { bindings::vma_kernel_pagesize(vma.as_ptr()) }
}

/// Returns the offset of a VMA in what it maps, in bytes.
#[inline]
pub fn offset(vma: &VmaRef) -> u64 {
    // SAFETY: By the type invariants the VMA is valid and cannot change.
    unsafe { ((*vma.as_ptr()).vm_pgoff as u64) << crate::page::PAGE_SHIFT }
}
