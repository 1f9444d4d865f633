// SPDX-License-Identifier: GPL-2.0
//! A lookup takes the iterator along: there is never a stale VMA beside an iterator that has moved.

use kernel::mm::vma_iter::RcuVmaIter;

pub fn twice(iter: RcuVmaIter<'_>) {
    let _first = iter.next();
    let _second = iter.next(); //~ ERROR E0382
}
