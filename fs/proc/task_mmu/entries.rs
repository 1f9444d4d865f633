// SPDX-License-Identifier: GPL-2.0

//! Records that tell what is mapped in a VMA.

use crate::{
    address_space::{At, Pinned, Released},
    records::{self, LastPosition, Record},
    sums::{self, Sum},
};
use kernel::{mm::MmWithUser, prelude::*, seq_file::Index};

/// What is left of a record that has been printed.
///
/// There is no RCU section from one record to the next: each VMA is looked up in one of its own.
pub(crate) enum Printed<'s> {
    Vma(Released<'s>),
    /// Nothing is mapped in this address space after it.
    LastVma(&'s MmWithUser),
    /// There is nothing after it.
    Last,
}

impl<'s> Printed<'s> {
    /// Goes on to the next record.
    pub(crate) fn next(
        self,
        last_pos: &mut LastPosition,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        match self {
            Self::Vma(released) => last_pos.next_after_sleep(released, index),
            Self::LastVma(mm) => Ok(records::after_last_vma(mm, index)),
            Self::Last => {
                records::end(index);
                Ok(None)
            }
        }
    }
}

/// Sums up what the VMA that is locked now has mapped in `sum`, which must be empty, see
/// [`sums::sum_one`].
///
/// Returns [`None`] if the address space is gone. The file ends before this record then, as for a
/// reader that begins a chunk a moment later.
#[inline]
pub(crate) fn sum_up<'s, S: Sum<Pinned<'s>>>(
    at: At<'s>,
    sum: &mut S,
) -> Result<Option<Printed<'s>>> {
    let mm = at.mm();

    match sums::sum_one(at, sum) {
        Ok(Some(released)) => Ok(Some(Printed::Vma(released))),
        Ok(None) => Ok(Some(Printed::LastVma(mm))),
        Err(error) if error == ESRCH => Ok(None),
        Err(error) => Err(error),
    }
}
