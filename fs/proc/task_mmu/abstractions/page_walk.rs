// SPDX-License-Identifier: GPL-2.0

//! What is mapped in a VMA: the statistics that `fs/proc/task_mmu.c` takes from page tables.
//!
//! C header: `fs/proc/task_mmu/task_mmu.h`

use core::ops::Range;
use kernel::{
    bindings,
    mm::{
        virt::{flags, VmaRef},
        vma_iter::SleepableLock, //
    },
};

/// Statistics of what is mapped in VMAs.
pub(crate) trait PageStats {
    /// Adds what is mapped in `range`, which has to be in the VMA.
    ///
    /// Returns the address where this has ended: the end of `range`, or less, but above its start,
    /// if the caller is the last user of the address space, if a thread waits for what is locked,
    /// or if the current task is being killed.
    ///
    /// Context: Process context, may sleep.
    fn gather<V: SleepableLock>(&mut self, vma: &V, range: Range<usize>) -> usize;

    /// Adds what is mapped from the start of `range` on, which has to be in the VMA: as much as can
    /// be seen in `left` entries of page tables, by which that is reduced, or less if `lets_go` and
    /// somebody waits for the CPU or for what is locked. That is `mmap_lock` if `mmap_locked`, and
    /// otherwise the VMA.
    ///
    /// Returns the address where this has ended, above the start of `range`, or [`None`], with
    /// nothing added, if more than page tables have to be looked at.
    ///
    /// Context: Any in which a page table lock may be taken. Does not sleep, except on
    /// `PREEMPT_RT`.
    fn gather_some(
        &mut self,
        vma: &VmaRef,
        range: Range<usize>,
        lets_go: bool,
        mmap_locked: bool,
        left: &mut u32,
    ) -> Option<usize>;
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

/// Returns whether `range` is in the VMA, and not empty.
#[cfg(any(CONFIG_PROC_PAGE_MONITOR, CONFIG_NUMA))]
#[inline]
fn is_in(range: &Range<usize>, vma: &VmaRef) -> bool {
    vma.start() <= range.start && range.start < range.end && range.end <= vma.end()
}

#[cfg(CONFIG_PROC_PAGE_MONITOR)]
pub(crate) mod smaps {
    use super::*;
    use crate::abstractions::show_map_gate;
    use kernel::{
        mm::{virt::vm_flags_t, vma_iter::GateVma},
        prelude::*,
        seq_file::{Line, SeqFile},
    };

    /// Writes a line of a name and a size in kB, right-aligned.
    #[inline(always)]
    fn put_size<const N: usize>(line: &mut Line<'_>, name: &[u8; N], bytes: u64) {
        const WIDTH: usize = 24;

        line.put(name);
        line.put_decimal_padded(bytes >> 10, WIDTH - N);
        line.put(b" kB\n");
    }

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
        /// Mirrors `smaps_gather`.
        #[inline]
        fn gather<V: SleepableLock>(&mut self, vma: &V, range: Range<usize>) -> usize {
            if !is_in(&range, vma) {
                return range.end;
            }

            self.0.stop.may_stop = true;
            self.0.stop.lets_go = false;
            // SAFETY: By the safety requirements of `SleepableLock` the VMA is valid, and what is
            // said here to be locked is, for as long as it is borrowed. The range is inside of the
            // VMA. The statistics are borrowed mutably.
            unsafe {
                bindings::smaps_gather(
                    vma.as_ptr(),
                    &mut self.0,
                    range.start,
                    range.end,
                    V::MMAP_LOCKED,
                )
            }
        }

        /// Mirrors `smaps_gather_some`.
        #[inline]
        fn gather_some(
            &mut self,
            vma: &VmaRef,
            range: Range<usize>,
            lets_go: bool,
            mmap_locked: bool,
            left: &mut u32,
        ) -> Option<usize> {
            if !is_in(&range, vma) {
                return Some(range.end);
            }

            self.0.stop.lets_go = lets_go;
            self.0.stop.mmap_locked = mmap_locked;
            // SAFETY: By the type invariants the VMA is valid, and its lock or `mmap_lock` is held
            // for reading, for as long as it is borrowed, which is longer than the call. The range
            // is inside of the VMA. The statistics and `left` are borrowed mutably.
            let end = unsafe {
                bindings::smaps_gather_some(vma.as_ptr(), &mut self.0, range.start, range.end, left)
            };
            (end != range.start).then_some(end)
        }
    }

    impl MemSizeStats {
        /// Adds up the pages that have been counted, and returns the sums.
        ///
        /// Mirrors `smaps_add_pages`.
        #[inline]
        fn sums(&mut self) -> &bindings::mem_size_stats {
            // SAFETY: The statistics are borrowed mutably, for longer than the call. It looks at
            // nothing else, so that no lock is needed, and keeps no pointer.
            unsafe { bindings::smaps_add_pages(&mut self.0) };
            &self.0
        }

        /// Writes what `smaps` says of one VMA, or `smaps_rollup` of all.
        ///
        /// Mirrors `__show_smap`.
        pub(crate) fn put(&mut self, line: &mut Line<'_>, is_rollup: bool) {
            let stats = self.sums();
            let pss = |sum: u64| sum >> bindings::PSS_SHIFT;
            put_size(line, b"Rss:            ", stats.resident as u64);
            put_size(line, b"Pss:            ", pss(stats.pss));
            put_size(line, b"Pss_Dirty:      ", pss(stats.pss_dirty));
            if is_rollup {
                put_size(line, b"Pss_Anon:       ", pss(stats.pss_anon));
                put_size(line, b"Pss_File:       ", pss(stats.pss_file));
                put_size(line, b"Pss_Shmem:      ", pss(stats.pss_shmem));
            }
            put_size(line, b"Shared_Clean:   ", stats.shared_clean as u64);
            put_size(line, b"Shared_Dirty:   ", stats.shared_dirty as u64);
            put_size(line, b"Private_Clean:  ", stats.private_clean as u64);
            put_size(line, b"Private_Dirty:  ", stats.private_dirty as u64);
            put_size(line, b"Referenced:     ", stats.referenced as u64);
            put_size(line, b"Anonymous:      ", stats.anonymous as u64);
            put_size(line, b"KSM:            ", stats.ksm as u64);
            put_size(line, b"LazyFree:       ", stats.lazyfree as u64);
            put_size(line, b"AnonHugePages:  ", stats.anonymous_thp as u64);
            put_size(line, b"ShmemPmdMapped: ", stats.shmem_thp as u64);
            put_size(line, b"FilePmdMapped:  ", stats.file_thp as u64);
            put_size(line, b"Shared_Hugetlb: ", stats.shared_hugetlb as u64);
            put_size(line, b"Private_Hugetlb: ", stats.private_hugetlb as u64);
            put_size(line, b"Swap:           ", stats.swap as u64);
            put_size(line, b"SwapPss:        ", pss(stats.swap_pss));
            put_size(line, b"Locked:         ", pss(stats.pss_locked));
        }
    }

    #[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
    impl MemSizeStats {
        /// Returns how much memory is mapped, in bytes.
        pub(crate) fn resident(&mut self) -> usize {
            self.sums().resident
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

        /// Writes what the entry has after its first line, but for the last newline.
        ///
        /// Mirrors `show_smap_values`.
        pub(crate) fn put(&self, line: &mut Line<'_>, stats: &mut MemSizeStats) {
            let values = &self.0;

            put_size(line, b"Size:           ", values.size as u64);
            put_size(line, b"KernelPageSize: ", values.kernel_page_size as u64);
            put_size(line, b"MMUPageSize:    ", values.mmu_page_size as u64);

            stats.put(line, false);
            line.put(b"THPeligible:    ");
            line.put_decimal_padded(values.thp_eligible.into(), 8);
            if let Ok(key) = u64::try_from(values.pkey) {
                line.put(b"\nProtectionKey:  ");
                line.put_decimal_padded(key, 8);
            }
            line.put(b"\nVmFlags: ");
            put_flags(line, values.vm_flags);
        }
    }

    /// Prints the entry of `/proc/PID/smaps` for the gate VMA.
    #[inline]
    pub(crate) fn show_smap_gate(m: &SeqFile, gate: &GateVma) {
        show_map_gate(m, gate);
        // SAFETY: `gate` is valid and never changes, by the invariants of its type.
        let values = unsafe { SmapVma::of_raw(gate.as_ptr()) };
        let mut line = m.line();
        values.put(&mut line, &mut MemSizeStats::new());
        line.finish();
    }

    /// Writes two letters and a space for each flag.
    ///
    /// Mirrors `show_smap_vma_flags`.
    #[inline]
    fn put_flags(line: &mut Line<'_>, flags: vm_flags_t) {
        let mut rest = flags;

        while rest != 0 {
            // SAFETY: `rest` is not zero, so that this is the number of a flag. Its name is a
            // string constant.
            let name =
                unsafe { CStr::from_char_ptr(bindings::smap_vma_flag(rest.trailing_zeros())) };
            if let &[first, second] = name.to_bytes() {
                line.put(&[first, second, b' ']);
            }
            rest &= rest - 1;
        }
    }
}

#[cfg(CONFIG_NUMA)]
pub(crate) mod numa {
    use super::*;
    use core::mem::{offset_of, size_of_val};
    use kernel::{prelude::*, seq_file::Line, task::Task};
    use pin_init::Zeroable;

    /// On which node how much memory is mapped: a C `struct numa_maps`.
    #[derive(Zeroable)]
    #[repr(transparent)]
    pub(crate) struct NumaMaps(bindings::numa_maps);

    impl NumaMaps {
        /// Makes the statistics empty.
        #[inline]
        pub(crate) fn clear(&mut self) {
            // Whatever is added counts as a page.
            if self.0.pages == 0 {
                return;
            }
            let used = offset_of!(bindings::numa_maps, node) + size_of_val(&self.0.node[..nodes()]);

            // SAFETY: The statistics are borrowed mutably. These are their first bytes, up to the
            // end of the slice, and all bits zero is a valid value of each field there.
            unsafe { core::ptr::write_bytes(core::ptr::from_mut(self).cast::<u8>(), 0, used) };
        }
    }

    impl PageStats for NumaMaps {
        /// Mirrors `numa_maps_gather`.
        #[inline]
        fn gather<V: SleepableLock>(&mut self, vma: &V, range: Range<usize>) -> usize {
            if !is_in(&range, vma) {
                return range.end;
            }

            self.0.stop.may_stop = true;
            self.0.stop.lets_go = false;
            // SAFETY: By the safety requirements of `SleepableLock` the VMA is valid, and what is
            // said here to be locked is, for as long as it is borrowed. The range is inside of the
            // VMA. The statistics are borrowed mutably.
            unsafe {
                bindings::numa_maps_gather(
                    vma.as_ptr(),
                    &mut self.0,
                    range.start,
                    range.end,
                    V::MMAP_LOCKED,
                )
            }
        }

        /// Mirrors `numa_maps_gather_some`.
        #[inline]
        fn gather_some(
            &mut self,
            vma: &VmaRef,
            range: Range<usize>,
            lets_go: bool,
            mmap_locked: bool,
            left: &mut u32,
        ) -> Option<usize> {
            if !is_in(&range, vma) {
                return Some(range.end);
            }

            self.0.stop.lets_go = lets_go;
            self.0.stop.mmap_locked = mmap_locked;
            // SAFETY: By the type invariants the VMA is valid, and its lock or `mmap_lock` is held
            // for reading, for as long as it is borrowed, which is longer than the call. The range
            // is inside of the VMA. The statistics and `left` are borrowed mutably.
            let end = unsafe {
                bindings::numa_maps_gather_some(
                    vma.as_ptr(),
                    &mut self.0,
                    range.start,
                    range.end,
                    left,
                )
            };
            (end != range.start).then_some(end)
        }
    }

    /// Returns how many nodes there can be on this machine.
    #[inline]
    fn nodes() -> usize {
        // SAFETY: It is written while the kernel boots, before there is a process to read.
        unsafe { bindings::nr_node_ids as usize }
    }

    impl NumaMaps {
        /// Writes what the line says of pages, after a space each.
        #[inline]
        pub(crate) fn put(&self, line: &mut Line<'_>, is_huge: bool, page_size: usize) {
            let NumaMaps(stats) = self;

            if stats.pages == 0 {
                return;
            }
            put_pages(line, b" anon=", stats.anon);
            put_pages(line, b" dirty=", stats.dirty);
            if stats.pages != stats.anon && stats.pages != stats.dirty {
                put_pages(line, b" mapped=", stats.pages);
            }
            if stats.mapcount_max > 1 {
                put_pages(line, b" mapmax=", stats.mapcount_max);
            }
            put_pages(line, b" swapcache=", stats.swapcache);
            if stats.active < stats.pages && !is_huge {
                line.put(b" active=");
                line.put_decimal(stats.active as u64);
            }
            put_pages(line, b" writeback=", stats.writeback);
            for (nid, &pages) in stats.node[..nodes()].iter().enumerate() {
                if pages != 0 {
                    line.put(b" N");
                    line.put_decimal(nid as u64);
                    put_pages(line, b"=", pages);
                }
            }
            line.put(b" kernelpagesize_kB=");
            line.put_decimal(page_size as u64 >> 10);
        }
    }

    /// Writes a number of pages with its name, unless it is zero.
    #[inline(always)]
    fn put_pages(line: &mut Line<'_>, name: &[u8], pages: usize) {
        if pages > 0 {
            line.put(name);
            line.put_decimal(pages as u64);
        }
    }

    /// What the line says of a memory policy.
    #[derive(Zeroable)]
    pub(crate) struct Policy {
        text: [u8; Policy::SIZE],
        len: usize,
    }

    impl Policy {
        const SIZE: usize = 64;

        /// Makes it of a string that `write` writes to a buffer.
        #[inline]
        fn written_by(write: impl FnOnce(*mut c_char, c_int)) -> Self {
            let mut text = [0; Self::SIZE];

            write(text.as_mut_ptr().cast(), Self::SIZE as c_int);
            let len = text.iter().position(|&byte| byte == 0).unwrap_or_default();
            Self { text, len }
        }

        /// Returns the policy that a task has right now.
        ///
        /// Mirrors `get_task_policy`.
        pub(crate) fn of_task(task: &Task) -> Self {
            // SAFETY: `task` is a reference to a task, which is alive meanwhile. The buffer has
            // this size, and is not kept.
            Self::written_by(|text, size| unsafe {
                bindings::task_mempolicy_to_str(text, size, task.as_ptr())
            })
        }

        /// Returns the policy of the memory at the start of `vma`, if it has one of its own.
        ///
        /// Mirrors `__get_vma_policy`.
        #[inline]
        pub(crate) fn of_vma(vma: &VmaRef) -> Option<Self> {
            let raw = vma.as_ptr();

            // SAFETY: By the type invariants the VMA is valid and read-locked for as long as it is
            // borrowed. Its policy and operations are only set with the VMA write-locked.
            if unsafe { (*raw).vm_ops.is_null() && (*raw).vm_policy.is_null() } {
                return None;
            }
            let mut is_own = false;
            // SAFETY: As above. The buffer has this size, and is not kept.
            let policy = Self::written_by(|text, size| unsafe {
                is_own = bindings::vma_mempolicy_to_str(text, size, raw);
            });
            is_own.then_some(policy)
        }

        /// Writes the policy to a line.
        #[inline]
        pub(crate) fn put(&self, line: &mut Line<'_>) {
            line.put(&self.text[..self.len]);
        }
    }
}
