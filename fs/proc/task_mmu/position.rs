// SPDX-License-Identifier: GPL-2.0

//! Where a reader stands in the list of VMAs.

/// A position in `/proc/PID/maps` and its family.
///
/// ```text
///   Address(0)         Address(vm_end)          Address(vm_end)
///      |                     |                        |
///      v   [ first VMA ]     v ... [ last VMA ]       v   [ gate VMA ]
///                                                     |         |
///                                                     Gate      End
/// ```
///
/// After a VMA comes the position of its end, so that each step moves forward, even when the VMA
/// has been merged with the next one since it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Before the first VMA that ends above this address.
    Address(usize),
    /// Before the gate VMA, after all others.
    Gate,
    /// After everything.
    End,
}

impl Position {
    /// Before the first VMA.
    pub(crate) const START: Self = Self::Address(0);

    const GATE_INDEX: i64 = -2;
    const END_INDEX: i64 = -1;
}

impl From<i64> for Position {
    /// Converts the index of a `struct seq_file`, a `loff_t`.
    #[inline]
    fn from(index: i64) -> Self {
        match index {
            Self::GATE_INDEX => Self::Gate,
            Self::END_INDEX => Self::End,
            // Negative for the upper half of the largest address spaces (s390).
            address => Self::Address(address as usize),
        }
    }
}

impl From<Position> for i64 {
    #[inline]
    fn from(position: Position) -> Self {
        match position {
            // The end of a VMA is aligned to pages, so that this is neither of the two below.
            Position::Address(address) => address as i64,
            Position::Gate => Position::GATE_INDEX,
            Position::End => Position::END_INDEX,
        }
    }
}
