// SPDX-License-Identifier: GPL-2.0
//! An iterator cannot be used once its RCU section has been left.

use kernel::mm::vma_iter::RcuVmaIter;

pub fn after_exit(mut iter: RcuVmaIter<'_>) {
    let _idle = iter.exit();
    iter.set(0); //~ ERROR E0382
}
