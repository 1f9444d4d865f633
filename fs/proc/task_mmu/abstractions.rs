// SPDX-License-Identifier: GPL-2.0

//! What the module uses of C, as types: `fs/proc/task_mmu.c` and what it calls.
//!
//! Beside the tables of operations, no other code of the module is `unsafe`.

use kernel::{
    bindings,
    mm::{
        virt::VmaRef,
        vma_iter::GateVma, //
    },
    page::PAGE_SHIFT,
    seq_file::SeqFile,
};

pub(crate) mod events;
pub(crate) mod name;
pub(crate) mod page_walk;
pub(crate) mod query;

/// Prints the line of `/proc/PID/maps` for the gate VMA.
#[inline]
pub(crate) fn show_map_gate(m: &SeqFile, gate: &GateVma) {
    // SAFETY: `gate` is valid and never changes, by the invariants of its type. `m` is only used by
    // this thread.
    unsafe { bindings::show_map_vma(m.as_ptr(), gate.as_ptr()) }
}

/// What is mapped by a VMA, by which a part of it is told from another mapping.
///
/// A file is told by its address. If a mapping goes away with the last reference to its file, and
/// another file of the same address is mapped in its place, that is not noticed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct VmaMapping {
    // Only to be compared.
    file: *mut bindings::file,
    /// The page of the file that would be mapped at address zero.
    offset: usize,
}

impl VmaMapping {
    /// Returns what `vma` maps right now.
    #[inline]
    pub(crate) fn of(vma: &VmaRef) -> Self {
        // SAFETY: By the type invariants the VMA is valid and cannot change.
        let (offset, file) = unsafe { ((*vma.as_ptr()).vm_pgoff, (*vma.as_ptr()).vm_file) };
        Self {
            file,
            offset: offset.wrapping_sub(vma.start() >> PAGE_SHIFT),
        }
    }
}
