// SPDX-License-Identifier: GPL-2.0

//! What the module uses of C, as types: `fs/proc/task_mmu.c` and what it calls.
//!
//! Beside the tables of operations, no other code of the module is `unsafe`.

use kernel::{
    bindings,
    mm::{
        virt::{vm_flags_t, VmaRef},
        vma_iter::GateVma, //
    },
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

/// What the files of `/proc/PID` show of a VMA, by which it is told from another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct VmaIdentity {
    start: usize,
    end: usize,
    flags: vm_flags_t,
    offset: usize,
    // Only to be compared.
    file: *mut bindings::file,
}

impl VmaIdentity {
    /// Returns what `vma` is right now.
    #[inline]
    pub(crate) fn of(vma: &VmaRef) -> Self {
        // SAFETY: By the type invariants the VMA is valid and cannot change.
        let (offset, file) = unsafe { ((*vma.as_ptr()).vm_pgoff, (*vma.as_ptr()).vm_file) };
        Self {
            start: vma.start(),
            end: vma.end(),
            flags: vma.flags(),
            offset,
            file,
        }
    }
}
