// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of [`Position`](crate::position::Position).

use kernel::prelude::*;

#[kunit_tests(task_mmu_position)]
mod tests {
    use crate::position::Position::{self, *};

    /// The indices that the C implementation uses for the gate VMA and for the end.
    #[test]
    fn index_of_gate_and_end() {
        assert_eq!(i64::from(Gate), -2);
        assert_eq!(i64::from(End), -1);
    }

    #[test]
    fn start_is_what_seq_file_begins_with() {
        assert_eq!(Position::from(0), Position::START);
        assert_eq!(i64::from(Position::START), 0);
    }

    #[test]
    fn every_position_survives_a_round_trip() {
        for position in [
            Address(0),
            Address(4096),
            Address(1 << (usize::BITS - 1)),
            // The highest end that a VMA can have.
            Address(0usize.wrapping_sub(4096)),
            Gate,
            End,
        ] {
            assert_eq!(Position::from(i64::from(position)), position);
        }
    }
}
