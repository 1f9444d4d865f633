// SPDX-License-Identifier: GPL-2.0
//! A VMA that was found under RCU has no fields until it is locked.

use kernel::mm::vma_iter::FoundVma;

pub fn start(found: &FoundVma<'_>) -> usize {
    found.start() //~ ERROR E0599
}
