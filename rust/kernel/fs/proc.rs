// SPDX-License-Identifier: GPL-2.0

//! What `fs/proc` offers to files of `/proc/PID` that are written in Rust.
//!
//! C header: `fs/proc/task_mmu/task_mmu.h`

use crate::{
    bindings,
    error::{code::ENOIOCTLCMD, from_err_ptr, from_result},
    mm::Mm,
    pid::Pid,
    prelude::*,
    seq_file::{Operations, SeqFile},
    sync::aref::ARef,
    types::Opaque,
};
use core::ptr::NonNull;

/// The inode of a file in `/proc/PID`.
#[repr(transparent)]
pub struct PidInode(Opaque<bindings::inode>);

impl PidInode {
    /// Returns which process or thread the file is about.
    ///
    /// Mirrors `proc_pid`.
    #[inline]
    pub fn pid(&self) -> &Pid {
        // SAFETY: A reference to this type is that of a valid inode in `/proc/PID`. Such an inode
        // owns a reference count on its pid until it is evicted.
        unsafe { Pid::from_raw(bindings::proc_inode_pid(self.0.get())) }
    }

    /// Returns the address space of the process, if the caller may read it.
    ///
    /// Returns [`None`] for a process without one: a kernel thread, or one that has exited.
    ///
    /// Context: Process context, may sleep. Errors: `ESRCH` if the process has been reaped,
    /// `EACCES` if the caller may not look at it (`PTRACE_MODE_READ`), or `EINTR`.
    ///
    /// Mirrors `proc_mem_open`.
    pub fn mm_for_reading(&self) -> Result<Option<ARef<Mm>>> {
        // SAFETY: A reference to this type is that of a valid inode in `/proc/PID`.
        let mm = from_err_ptr(unsafe {
            bindings::proc_mem_open(self.0.get(), bindings::PTRACE_MODE_READ)
        })?;

        // SAFETY: `proc_mem_open` has called `mmgrab` on what it returns, and that count is ours.
        Ok(NonNull::new(mm.cast()).map(|mm| unsafe { ARef::from_raw(mm) }))
    }
}

/// A file of `/proc/PID` that iterates.
pub trait PidFile: Operations {
    /// Opens the file. Returns it, and how to make the state for its first chunk.
    fn open(inode: &PidInode) -> Result<(Self, impl Init<Self::State>)>;

    /// Handles an `ioctl`. Errors: `ENOIOCTLCMD` for a `cmd` that the file does not implement.
    ///
    /// It may run while the file is read by other threads.
    fn ioctl(&self, _cmd: u32, _arg: usize) -> Result<c_long> {
        Err(ENOIOCTLCMD)
    }
}

/// A `struct file_operations` that C code may refer to.
#[repr(transparent)]
pub struct FileOperations(bindings::file_operations);

impl FileOperations {
    /// Makes the operations of a `T`.
    ///
    /// # Safety
    ///
    /// They must only be used for files in `/proc/PID`, and from `open` on. The code of `T` must
    /// not be unloaded while such a file is open.
    pub const unsafe fn new<T: PidFile>() -> Self {
        Self(bindings::file_operations {
            open: Some(open::<T>),
            read: Some(read::<T>),
            llseek: Some(llseek::<T>),
            release: Some(release::<T>),
            unlocked_ioctl: Some(ioctl::<T>),
            compat_ioctl: bindings::compat_ptr_ioctl,
            ..pin_init::zeroed()
        })
    }
}

// SAFETY: The table is never written, and its functions can be called from any thread.
unsafe impl Sync for FileOperations {}

/// # Safety
///
/// `inode` and `file` must be those of a file in `/proc/PID` that is being opened.
unsafe extern "C" fn open<T: PidFile>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    from_result(|| {
        // SAFETY: By the function's requirements the inode is one in `/proc/PID`, it lives until
        // this returns and longer. The layouts are compatible due to repr(transparent).
        let pid_inode = unsafe { &*inode.cast::<PidInode>() };

        // SAFETY: The file is being opened, and the table that has this function for `open` has
        // `release::<T>`.
        unsafe { SeqFile::open_iter(inode, file, || T::open(pid_inode)) }?;
        Ok(0)
    })
}

/// # Safety
///
/// `file` must be one that `open::<T>` has opened, and must stay open until this returns. `pos`
/// must be valid. `to` is a user address.
unsafe extern "C" fn read<T: PidFile>(
    file: *mut bindings::file,
    to: *mut c_char,
    size: usize,
    pos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: The function's requirements are the same.
    unsafe { SeqFile::read_iter::<T>(file, to, size, pos) }
}

/// # Safety
///
/// `file` must be one that `open::<T>` has opened, and must stay open until this returns.
unsafe extern "C" fn llseek<T: PidFile>(
    file: *mut bindings::file,
    offset: bindings::loff_t,
    whence: c_int,
) -> bindings::loff_t {
    // SAFETY: The function's requirements are the same.
    unsafe { SeqFile::lseek_iter::<T>(file, offset, whence) }
}

/// # Safety
///
/// `inode` and `file` must be those of a file that `open::<T>` has opened and that is being
/// released.
unsafe extern "C" fn release<T: PidFile>(
    inode: *mut bindings::inode,
    file: *mut bindings::file,
) -> c_int {
    // SAFETY: The function's requirements are the same.
    unsafe { SeqFile::release_iter::<T>(inode, file) };
    0
}

/// # Safety
///
/// `file` must be one that `open::<T>` has opened, and must stay open until this returns.
unsafe extern "C" fn ioctl<T: PidFile>(
    file: *mut bindings::file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: By the function's requirements.
    let opened = unsafe { SeqFile::iter_of::<T>(file) };

    from_result(|| opened.ioctl(cmd, arg))
}
