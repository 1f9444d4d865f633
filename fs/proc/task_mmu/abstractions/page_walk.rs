// SPDX-License-Identifier: GPL-2.0

//! What is mapped in a VMA: the statistics that `fs/proc/task_mmu.c` takes from page tables.
//!
//! C header: `fs/proc/task_mmu/task_mmu.h`

use kernel::{
    bindings,
    mm::{
        virt::{flags, VmaRef},
        vma_iter::SleepableLock, //
    },
};

/// Statistics of what is mapped in VMAs.
pub(crate) trait PageStats {
    /// Makes the statistics empty.
    fn clear(&mut self);

    /// Adds what is mapped from `start` to the end of the VMA.
    ///
    /// Returns the address where this has ended: the end of the VMA, or less, but above `start`, if
    /// the caller is the last user of the address space, or if it `may_stop` and a thread waits for
    /// what is locked or the current task is being killed.
    ///
    /// Context: Process context, may sleep.
    fn gather<V: SleepableLock>(&mut self, vma: &V, start: usize, may_stop: bool) -> usize;

    /// Adds all that is mapped in the VMA, if it has at most 512 pages and only its page tables
    /// need to be looked at.
    ///
    /// Returns whether it has been added. Otherwise nothing is.
    ///
    /// Context: Process context, may be called in an RCU read-side critical section.
    fn gather_small(&mut self, _vma: &VmaRef) -> bool {
        false
    }
}

/// Returns whether no page that the statistics count is mapped in this VMA.
///
/// This holds for anonymous memory that has not been written to: nothing but the zero page is
/// mapped there.
#[inline]
pub(crate) fn is_untouched(vma: &VmaRef) -> bool {
    // A driver may have mapped its own pages without setting `vm_ops`.
    if vma.flags() & (flags::PFNMAP | flags::MIXEDMAP) != 0 {
        return false;
    }

    let vma = vma.as_ptr();

    // SAFETY: By the type invariants the VMA is valid and read-locked. `vm_ops` does not change
    // meanwhile. `anon_vma` may be set by a page fault, which has a read lock as well, before it
    // maps the first page.
    unsafe {
        (*vma).vm_ops.is_null()
            && core::ptr::read_volatile(core::ptr::addr_of!((*vma).anon_vma)).is_null()
    }
}

/// Says when a walk from `start` to the end of the VMA may stop. Returns whether it begins inside
/// of the VMA.
#[cfg(any(CONFIG_PROC_PAGE_MONITOR, CONFIG_NUMA))]
#[inline]
fn begin(stop: &mut bindings::walk_stop, vma: &VmaRef, start: usize, may_stop: bool) -> bool {
    stop.may_stop = may_stop;
    stop.may_give_up = true;
    (vma.start()..vma.end()).contains(&start)
}

#[cfg(CONFIG_PROC_PAGE_MONITOR)]
pub(crate) mod smaps {
    use super::*;
    use crate::abstractions::show_map_gate;
    use core::ops::Range;
    use kernel::{mm::vma_iter::GateVma, seq_file::SeqFile};

    /// How much memory of which kind is mapped: a C `struct mem_size_stats`.
    #[repr(transparent)]
    pub(crate) struct MemSizeStats(bindings::mem_size_stats);

    impl MemSizeStats {
        /// Makes empty statistics.
        #[inline]
        pub(crate) fn new() -> Self {
            Self(pin_init::zeroed())
        }
    }

    impl PageStats for MemSizeStats {
        #[inline]
        fn clear(&mut self) {
            *self = Self::new();
        }

        /// Mirrors `smaps_gather`.
        #[inline]
        fn gather<V: SleepableLock>(&mut self, vma: &V, start: usize, may_stop: bool) -> usize {
            if !begin(&mut self.0.stop, vma, start, may_stop) {
                return vma.end();
            }

            // SAFETY: By the safety requirements of `SleepableLock` the VMA is valid, and what is
            // said here to be locked is. The walk begins inside of the VMA.
            unsafe { bindings::smaps_gather(vma.as_ptr(), &mut self.0, start, V::MMAP_LOCKED) }
        }

        /// Mirrors `smaps_gather_small`.
        #[inline]
        fn gather_small(&mut self, vma: &VmaRef) -> bool {
            // SAFETY: By the type invariants the VMA is valid, and it or the address space is
            // read-locked.
            unsafe { bindings::smaps_gather_small(vma.as_ptr(), &mut self.0) }
        }
    }

    #[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
    impl MemSizeStats {
        /// Returns how much memory is mapped, in bytes.
        pub(crate) fn resident(&self) -> usize {
            self.0.resident
        }
    }

    impl Default for MemSizeStats {
        #[inline]
        fn default() -> Self {
            Self::new()
        }
    }

    /// What an entry of `/proc/PID/smaps` says of a VMA beside its first line and the statistics: a
    /// C `struct smap_vma`. It is a copy, for which the VMA need not be locked any more.
    #[repr(transparent)]
    pub(crate) struct SmapVma(bindings::smap_vma);

    impl SmapVma {
        /// Copies it from a VMA.
        ///
        /// Mirrors `get_smap_vma`.
        #[inline]
        pub(crate) fn of(vma: &VmaRef) -> Self {
            // SAFETY: `vma` is valid and cannot change, by the invariants of its type.
            unsafe { Self::of_raw(vma.as_ptr()) }
        }

        /// # Safety
        ///
        /// The VMA is valid and cannot change.
        #[inline]
        unsafe fn of_raw(vma: *mut bindings::vm_area_struct) -> Self {
            let mut values = pin_init::zeroed();
            // SAFETY: By the safety requirements.
            unsafe { bindings::get_smap_vma(&mut values, vma) };
            Self(values)
        }

        /// Prints what the entry has after its first line.
        ///
        /// Mirrors `show_smap_values`.
        #[inline]
        pub(crate) fn show(&self, m: &SeqFile, stats: &MemSizeStats) {
            // SAFETY: `m` is only used by this thread.
            unsafe { bindings::show_smap_values(m.as_ptr(), &self.0, &stats.0) }
        }
    }

    /// Prints the entry of `/proc/PID/smaps` for the gate VMA.
    #[inline]
    pub(crate) fn show_smap_gate(m: &SeqFile, gate: &GateVma) {
        show_map_gate(m, gate);
        // SAFETY: `gate` is valid and never changes, by the invariants of its type.
        unsafe { SmapVma::of_raw(gate.as_ptr()) }.show(m, &MemSizeStats::new());
    }

    /// Prints `/proc/PID/smaps_rollup`. Mirrors `show_rollup`.
    #[inline]
    pub(crate) fn show_rollup(m: &SeqFile, range: &Range<usize>, stats: &MemSizeStats) {
        // SAFETY: `m` is only used by this thread.
        unsafe { bindings::show_rollup(m.as_ptr(), range.start, range.end, &stats.0) }
    }
}

#[cfg(CONFIG_NUMA)]
pub(crate) mod numa {
    use super::*;
    use kernel::{seq_file::SeqFile, task::Task};
    use pin_init::Zeroable;

    /// On which node how much memory is mapped: a C `struct numa_maps`.
    #[derive(Zeroable)]
    #[repr(transparent)]
    pub(crate) struct NumaMaps(bindings::numa_maps);

    impl PageStats for NumaMaps {
        #[inline]
        fn clear(&mut self) {
            // SAFETY: All bits zero is a valid value of this type.
            unsafe { core::ptr::write_bytes(self, 0, 1) };
        }

        /// Mirrors `numa_maps_gather`.
        #[inline]
        fn gather<V: SleepableLock>(&mut self, vma: &V, start: usize, may_stop: bool) -> usize {
            if !begin(&mut self.0.stop, vma, start, may_stop) {
                return vma.end();
            }

            // SAFETY: By the safety requirements of `SleepableLock` the VMA is valid, and what is
            // said here to be locked is. The walk begins inside of the VMA.
            unsafe { bindings::numa_maps_gather(vma.as_ptr(), &mut self.0, start, V::MMAP_LOCKED) }
        }
    }

    /// The memory policy of a task.
    ///
    /// # Invariants
    ///
    /// Owns a reference count on the `struct mempolicy`.
    pub(crate) struct Mempolicy(*mut bindings::mempolicy);

    impl Mempolicy {
        /// Returns the policy that a task has right now.
        ///
        /// Mirrors `get_task_mempolicy`.
        #[inline]
        pub(crate) fn of(task: &Task) -> Self {
            // SAFETY: The task is valid. INVARIANT: The reference count that this takes is ours.
            Self(unsafe { bindings::get_task_mempolicy(task.as_ptr()) })
        }
    }

    impl Drop for Mempolicy {
        #[inline]
        fn drop(&mut self) {
            // SAFETY: By the type invariants the reference count is ours.
            unsafe { bindings::mpol_put(self.0) }
        }
    }

    /// Prints what the line of `/proc/PID/numa_maps` for a VMA has after the address.
    ///
    /// Mirrors `show_numa_map_values`.
    #[inline]
    pub(crate) fn show_numa_map_values(
        m: &SeqFile,
        vma: &VmaRef,
        stats: &NumaMaps,
        task_mempolicy: &Mempolicy,
    ) {
        // SAFETY: `vma` is valid and cannot change, by the invariants of its type. The reference
        // keeps the policy alive. `m` is only used by this thread.
        unsafe {
            bindings::show_numa_map_values(m.as_ptr(), vma.as_ptr(), &stats.0, task_mempolicy.0)
        }
    }
}
