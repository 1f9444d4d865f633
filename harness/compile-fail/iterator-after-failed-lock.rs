// SPDX-License-Identifier: GPL-2.0
//! vma_start_read() releases the RCU read lock when it fails. The iterator is gone then, and what is
//! left cannot find anything before it has entered an RCU section again.

use kernel::mm::vma_iter::RcuVmaIter;

pub fn go_on(iter: RcuVmaIter<'_>) {
    if let Ok(found) = iter.next() {
        if let Err((_, iter)) = found.start_read() {
            let _ = iter.next(); //~ ERROR E0599
        }
    }
}
