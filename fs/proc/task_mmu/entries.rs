// SPDX-License-Identifier: GPL-2.0

//! Records that tell what is mapped in a VMA.

use crate::{
    address_space::{Held, Pinned, Released},
    records::{self, LastPosition, Record},
    sums::{self, Sum},
};
use kernel::{mm::vma_iter::GateVma, prelude::*, seq_file::Index};

/// A VMA whose page tables can be walked, which may sleep.
///
/// There is no RCU section from one record to the next: each VMA is looked up in one of its own.
pub(crate) enum Entry<'s> {
    Vma(Held<'s>),
    Gate(GateVma),
    /// The VMA is gone, and all after it, or the whole address space.
    Nothing,
}

impl<'s> From<Record<'s>> for Entry<'s> {
    #[inline]
    fn from(record: Record<'s>) -> Self {
        match record {
            Record::Vma(at) => Self::Vma(at.hold()),
            Record::Gate(gate) => Self::Gate(gate),
        }
    }
}

/// A record that has been printed.
pub(crate) enum Printed<'s> {
    Vma(Released<'s>),
    /// There is nothing after it.
    Last,
}

impl<'s> From<Entry<'s>> for Printed<'s> {
    #[inline]
    fn from(entry: Entry<'s>) -> Self {
        match entry {
            Entry::Vma(held) => Self::Vma(held.release()),
            Entry::Gate(_) | Entry::Nothing => Self::Last,
        }
    }
}

impl<'s> Printed<'s> {
    /// Goes on to the next record.
    pub(crate) fn next(
        self,
        last_pos: &mut LastPosition,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        match self {
            Self::Vma(released) => Ok(last_pos.next_after_sleep(released, index)?.map(Entry::from)),
            Self::Last => {
                records::end(index);
                Ok(None)
            }
        }
    }
}

impl<'s> Entry<'s> {
    /// Sums up what is mapped in the VMA in `sum`, which must be empty, see [`sums::sum_one`].
    /// Returns the record that the sum is about.
    #[inline]
    pub(crate) fn sum<S: Sum<Pinned<'s>>>(
        self,
        last_pos: &LastPosition,
        sum: &mut S,
    ) -> Result<Self> {
        Ok(match self {
            Self::Vma(held) => {
                let mm = held.mm();
                match sums::sum_one(held, last_pos.address(), sum) {
                    Ok(Some(held)) => Self::Vma(held),
                    Ok(None) => mm.gate_vma().map_or(Self::Nothing, Self::Gate),
                    // The file ends here, as for a reader that begins a chunk a moment later.
                    Err(error) if error == ESRCH => Self::Nothing,
                    Err(error) => return Err(error),
                }
            }
            other => other,
        })
    }
}
