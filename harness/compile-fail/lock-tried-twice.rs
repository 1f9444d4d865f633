// SPDX-License-Identifier: GPL-2.0
//! A stale VMA cannot be kept to try again later, perhaps in another RCU section.

use kernel::mm::vma_iter::FoundVma;

pub fn twice(found: FoundVma<'_>) {
    let _ = found.start_read();
    let _ = found.start_read(); //~ ERROR E0382
}
