// SPDX-License-Identifier: GPL-2.0

//! Page faults on user addresses.
//!
//! C header: [`include/linux/uaccess.h`](srctree/include/linux/uaccess.h)

use super::UserPtr;
use crate::{
    bindings,
    current,
    types::NotThreadSafe, //
};
use core::ptr::null_mut;

/// Keeps the current task from waiting for pages of user memory that are not present: a copy from
/// or to them fails instead.
///
/// # Invariants
///
/// Page faults are disabled for the current task while instances of this guard exist.
pub struct DisabledGuard(NotThreadSafe);

/// Disables page faults on user addresses. The task may still sleep for other reasons.
///
/// Context: Process context.
///
/// # Examples
///
/// ```
/// use kernel::uaccess::faults;
///
/// let guard = faults::disable();
/// // A copy to user memory that is not present fails here.
/// drop(guard);
/// ```
///
/// Mirrors `pagefault_disable`.
#[inline]
pub fn disable() -> DisabledGuard {
    // SAFETY: An FFI call with no additional requirements.
    unsafe { bindings::pagefault_disable() };
    // INVARIANT: Page faults have just been disabled.
    DisabledGuard(NotThreadSafe)
}

impl Drop for DisabledGuard {
    /// Mirrors `pagefault_enable`.
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariants page faults were disabled for this guard.
        unsafe { bindings::pagefault_enable() };
    }
}

/// Returns whether the first and the last page of `len` bytes of user memory are present, or have
/// been faulted in by [`fault_in_anonymous`].
///
/// They may be gone again when they are used, or not be writable.
///
/// Context: Process context, may sleep to allocate memory.
#[inline]
pub fn is_there(address: UserPtr, len: usize) -> bool {
    let last = UserPtr::from_addr((address.as_const_ptr() as usize).wrapping_add(len - 1));

    [address, last]
        .into_iter()
        .all(|address| is_readable(address) || fault_in_anonymous(address))
}

/// Returns whether a byte can be read without a page fault.
#[inline]
fn is_readable(address: UserPtr) -> bool {
    let mut byte = 0u8;
    let to: *mut u8 = &mut byte;
    let _guard = disable();

    // SAFETY: The destination is a byte. The user address is checked.
    unsafe { bindings::copy_from_user(to.cast(), address.as_const_ptr(), 1) == 0 }
}

/// Faults in the page at `address` for writing, if it is one of anonymous memory and this need not
/// wait for a writer of the address space, a disk or a `userfaultfd`.
///
/// Returns whether the page was present at the end.
///
/// Context: Process context, may sleep to allocate memory.
#[cold]
pub fn fault_in_anonymous(address: UserPtr) -> bool {
    const FLAGS: u32 = bindings::FOLL_WRITE | bindings::FOLL_NOWAIT;
    let address = address.as_const_ptr() as usize;

    let current = current!();
    let Some(guard) = current.mm().and_then(|mm| mm.mmap_read_trylock()) else {
        return false;
    };
    // A file system may wait for anything before a page of its files is written to.
    //
    // SAFETY: The VMA cannot change while `mmap_lock` is held.
    let is_anonymous = |vma: &crate::mm::virt::VmaRef| unsafe { (*vma.as_ptr()).vm_ops.is_null() };
    if !guard.vma_lookup(address).is_some_and(is_anonymous) {
        return false;
    }

    // SAFETY: `mmap_lock` of the current address space is held, and no page is asked for.
    unsafe { bindings::get_user_pages(address, 1, FLAGS, null_mut()) == 1 }
}
