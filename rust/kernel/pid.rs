// SPDX-License-Identifier: GPL-2.0

//! Process identifiers.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h)

use crate::{
    bindings,
    sync::aref::{ARef, AlwaysRefCounted},
    task::Task,
    types::Opaque,
};
use core::ptr::NonNull;

/// Wraps the kernel's `struct pid`. Thread safe.
///
/// A `struct pid` outlives the process or thread that it identifies, and it is never used for
/// another. Holding one is the cheap and safe way to refer to a process for a long time: unlike a
/// [`Task`] it pins only a few bytes, and unlike a number it never refers to another process.
///
/// # Invariants
///
/// Values of this type are always refcounted using `get_pid`.
#[repr(transparent)]
pub struct Pid {
    inner: Opaque<bindings::pid>,
}

// SAFETY: It is safe to call `put_pid` on another thread than where `get_pid` was called.
unsafe impl Send for Pid {}
// SAFETY: All methods on `Pid` can be called in parallel from several threads.
unsafe impl Sync for Pid {}

// SAFETY: By the type invariants, this type is always refcounted.
unsafe impl AlwaysRefCounted for Pid {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: The pointer is valid since self is a reference.
        unsafe { bindings::get_pid(self.as_raw()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller is giving up their refcount.
        unsafe { bindings::put_pid(obj.cast().as_ptr()) };
    }
}

impl Pid {
    /// Returns a raw pointer to the inner `struct pid`.
    #[inline]
    pub fn as_raw(&self) -> *mut bindings::pid {
        self.inner.get()
    }

    /// Obtains a reference from a raw pointer.
    ///
    /// # Safety
    ///
    /// The caller must ensure that `ptr` points at a `struct pid`, and that its reference count
    /// stays above zero for the duration of the lifetime `'a`.
    #[inline]
    pub unsafe fn from_raw<'a>(ptr: *const bindings::pid) -> &'a Self {
        // SAFETY: The caller promises that the pointer is valid for `'a`. Layouts are compatible
        // due to repr(transparent).
        unsafe { &*ptr.cast() }
    }

    /// Returns the task that this pid identifies, or [`None`] once it has been reaped.
    ///
    /// A zombie is still found. Mirrors `get_pid_task(pid, PIDTYPE_PID)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::pid::Pid;
    ///
    /// fn is_reaped(pid: &Pid) -> bool {
    ///     pid.task().is_none()
    /// }
    /// ```
    #[inline]
    pub fn task(&self) -> Option<ARef<Task>> {
        // SAFETY: The pointer is valid since self is a reference; `get_pid_task` takes the RCU
        // read lock that the lookup needs.
        let task = unsafe { bindings::get_pid_task(self.as_raw(), bindings::pid_type_PIDTYPE_PID) };

        // SAFETY: A non-null result is a valid task, and comes with a reference count on it that
        // is now ours.
        NonNull::new(task.cast()).map(|task| unsafe { ARef::from_raw(task) })
    }
}
