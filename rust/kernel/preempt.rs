// SPDX-License-Identifier: GPL-2.0

//! Preemption.
//!
//! C header: [`include/linux/preempt.h`](srctree/include/linux/preempt.h)

use crate::types::NotThreadSafe;

/// Whether guards disable preemption.
const DISABLES: bool = !cfg!(CONFIG_PREEMPT_RT);

/// Keeps the current task on its CPU: except for interrupts, nothing else runs there before the
/// guard is dropped.
///
/// On `PREEMPT_RT` it does nothing.
///
/// # Invariants
///
/// Preemption is disabled while instances of this guard exist, except on `PREEMPT_RT`.
pub struct Guard(NotThreadSafe);

/// Disables preemption, but not on `PREEMPT_RT`, where a spin lock may sleep.
///
/// This is for sections that other threads wait for and that therefore should not be preempted.
/// They must be correct without it as well. One that may take long asks [`Guard::need_resched`].
///
/// Context: Any. Until the result is gone the caller must not sleep.
///
/// # Examples
///
/// ```
/// let guard = kernel::preempt::disable_unless_rt();
/// // Something short that other threads wait for.
/// drop(guard);
/// ```
///
/// Mirrors `preempt_disable`.
#[inline]
pub fn disable_unless_rt() -> Guard {
    if DISABLES {
        // SAFETY: It may be called in any context. The guard that is returned enables preemption
        // again, on the same task.
        unsafe { crate::bindings::preempt_disable() };
    }

    // INVARIANT: Preemption has just been disabled.
    Guard(NotThreadSafe)
}

impl Guard {
    /// Returns whether another task is to run on this CPU.
    ///
    /// Context: Any.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut guard = kernel::preempt::disable_unless_rt();
    /// for _step in 0..1000 {
    ///     if guard.need_resched() {
    ///         drop(guard);
    ///         // The other task runs now.
    ///         guard = kernel::preempt::disable_unless_rt();
    ///     }
    ///     // Something short.
    /// }
    /// ```
    ///
    /// Mirrors `need_resched`.
    #[inline]
    pub fn need_resched(&self) -> bool {
        // SAFETY: It reads a flag of the current task, which exists for as long as it runs.
        unsafe { crate::bindings::need_resched() }
    }
}

impl Drop for Guard {
    /// Mirrors `preempt_enable`.
    #[inline]
    fn drop(&mut self) {
        if DISABLES {
            // SAFETY: By the type invariants preemption was disabled for this guard, by the same
            // task, since a guard cannot be sent to another.
            unsafe { crate::bindings::preempt_enable() };
        }
    }
}
