// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps` and its family, walked under RCU and per-VMA locks.
//!
//! How a `read(2)` becomes a line:
//!
//! ```text
//!   read(2) -> seq_read() -> kernel::seq_file::Operations
//!                                  |
//!      maps.rs   smaps.rs   numa_maps.rs   rollup.rs     a file each
//!            \         \       /                |
//!             \       entries.rs               |         records for which page tables are walked
//!              \       /      \               |
//!             records.rs      sums.rs <-------+         one record after the other;
//!                      \     /                          sums in pieces: a protocol
//!                      walk.rs                          from one VMA to the next: a protocol
//!                         |
//!                  address_space.rs -> kernel::mm::vma_iter
//! ```
//!
//! The lines of `maps`, which the entries of `smaps` begin with, are written by `lines.rs`, with
//! names from C. How page tables are looked at, and what else is printed, is C: `smaps_gather()`,
//! `show_smap_values()` and others of `fs/proc/task_mmu.c`. The `ioctl` of `maps` is in `query.rs`.
//!
//! What the module calls of C is wrapped in types by `abstractions.rs` and the folder of that name.
//!
//! `fs/proc/task_mmu.c` decides by the parameter `task_mmu.rust` which of the two implementations a
//! file gets when it is opened.
//!
//! Reference: `Documentation/filesystems/proc-task-mmu.rst`

// Only `abstractions` and the tables of operations need it.
#![deny(unsafe_code)]
// Without smaps or numa_maps, less of the protocols is used.
#![cfg_attr(not(all(CONFIG_PROC_PAGE_MONITOR, CONFIG_NUMA)), allow(dead_code))]

#[allow(unsafe_code)]
mod abstractions;
mod address_space;
#[cfg(any(CONFIG_PROC_PAGE_MONITOR, CONFIG_NUMA))]
mod entries;
mod last_file;
mod lines;
mod maps;
#[cfg(CONFIG_NUMA)]
mod numa_maps;
mod position;
mod query;
mod records;
#[cfg(CONFIG_PROC_PAGE_MONITOR)]
mod rollup;
#[cfg(CONFIG_PROC_PAGE_MONITOR)]
mod smaps;
mod sums;
mod walk;

// `#[kunit_tests]` expands to unsafe code.
#[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
#[allow(unsafe_code)]
mod tests;

use kernel::fs::proc::FileOperations;

macro_rules! operations {
    ($($(#[$attributes:meta])* $name:ident: $file:ty;)*) => {$(
        $(#[$attributes])*
        #[no_mangle]
        #[allow(non_upper_case_globals, unsafe_code)]
        pub static $name: FileOperations =
            // SAFETY: fs/proc/task_mmu.c refers to this only in the `open` of a file in /proc/PID,
            // where it begins with the `open` of this table. This code is never unloaded: it is
            // built into the kernel.
            unsafe { FileOperations::new::<$file>() };
    )*};
}

operations! {
    /// The operations of `/proc/PID/maps`.
    proc_pid_maps_rust_operations: maps::Maps;

    /// The operations of `/proc/PID/smaps`.
    #[cfg(CONFIG_PROC_PAGE_MONITOR)]
    proc_pid_smaps_rust_operations: smaps::Smaps;

    /// The operations of `/proc/PID/smaps_rollup`.
    #[cfg(CONFIG_PROC_PAGE_MONITOR)]
    proc_pid_smaps_rollup_rust_operations: rollup::Rollup;

    /// The operations of `/proc/PID/numa_maps`.
    #[cfg(CONFIG_NUMA)]
    proc_pid_numa_maps_rust_operations: numa_maps::Numa;
}
