// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps`, walked under RCU and per-VMA locks.
//!
//! How a `read(2)` becomes a line:
//!
//! ```text
//!   read(2) -> seq_read() -> kernel::seq_file::Operations --> maps.rs       what a record is
//!                                                              |   |
//!                    address_space.rs <-- walk.rs <------------+   +--> show_map_vma() of
//!                          |              the protocol                  fs/proc/task_mmu.c
//!                          v
//!                    kernel::mm::vma_iter
//! ```
//!
//! `fs/proc/task_mmu.c` decides by the parameter `task_mmu.rust` which of the two implementations a
//! file gets when it is opened.
//!
//! Reference: `Documentation/filesystems/proc-task-mmu.rst`

mod address_space;
mod maps;
mod position;
mod walk;

#[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
mod maps_test;
#[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
mod position_test;
#[cfg(CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST)]
mod walk_test;

use kernel::fs::proc::FileOperations;

/// The operations of `/proc/PID/maps`.
#[no_mangle]
#[allow(non_upper_case_globals)]
pub static proc_pid_maps_rust_operations: FileOperations =
    // SAFETY: `pid_maps_open()` in fs/proc/task_mmu.c, the only one to refer to this, is the `open`
    // of a file in /proc/PID, and begins with the `open` of this table. This code is never
    // unloaded: it is built into the kernel.
    unsafe { FileOperations::new::<maps::Maps>() };
