// SPDX-License-Identifier: GPL-2.0

//! What is tried: address spaces, what writers do to them, and readers.

use crate::{
    history::{Area, EMPTY, SMALL},
    writers::Op::{self, *},
};

/// What a reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Walks over all VMAs.
    Walk,
    /// Walks over all VMAs, and leaves RCU at each of them.
    Sleep,
    /// Walks over all VMAs, and locks only those that it cannot copy otherwise.
    Copy,
    /// Begins to walk in a gap.
    Gap,
    /// Adds up all VMAs in pieces.
    SumAll,
    /// Adds up one VMA in pieces.
    SumOne,
}

pub(crate) const READERS: &[(&str, Kind)] = &[
    ("walk", Kind::Walk),
    ("sleep", Kind::Sleep),
    ("copy", Kind::Copy),
    ("gap", Kind::Gap),
    ("sum-all", Kind::SumAll),
    ("sum-one", Kind::SumOne),
];

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The VMAs, as start, end and kind.
    vmas: &'static [(usize, usize, u8)],
    /// From where a reader begins that begins in a gap.
    pub(crate) gap: usize,
    /// The sum over one VMA is about the first that ends above this.
    pub(crate) target: usize,
    pub(crate) writer: Vec<Op>,
    /// What a second writer does.
    pub(crate) other: Vec<Op>,
    /// The start of the VMA that has as many readers as can be counted.
    pub(crate) full: Option<usize>,
    size: Size,
}

/// How many interleavings a case has with one writer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    /// Too many for the short form.
    Large,
    /// Too many for the long form as well.
    Huge,
}

impl Case {
    pub(crate) fn areas(&self) -> Vec<Area> {
        let area = |(vma, &(start, end, kind)): (usize, &(usize, usize, u8))| {
            Area::new(vma, start..end, kind)
        };
        self.vmas.iter().enumerate().map(area).collect()
    }

    /// Whether the reader begins anywhere else than one that walks over all VMAs.
    pub(crate) fn has(&self, reader: Kind) -> bool {
        reader != Kind::Gap || self.gap >= self.vmas[0].1
    }

    /// How many preemptions are tried with one writer. The readers for whom this is bounded in the
    /// short form take the steps of [`Kind::Walk`], and few others.
    pub(crate) fn preemptions(&self, reader: Kind, long: bool) -> Option<usize> {
        let bounded =
            self.size != Size::Small || matches!(reader, Kind::Sleep | Kind::Copy | Kind::SumAll);
        match long {
            true => (self.size == Size::Huge).then_some(6),
            false if reader == Kind::Copy => Some(4),
            false => bounded.then_some(5),
        }
    }
}

fn case(
    name: &'static str,
    vmas: &'static [(usize, usize, u8)],
    (gap, target): (usize, usize),
    writer: &[Op],
    other: &[Op],
) -> Case {
    Case {
        name,
        vmas,
        gap,
        target,
        writer: writer.to_vec(),
        other: other.to_vec(),
        full: None,
        size: Size::Small,
    }
}

/// In each case there are VMAs that change and, where it matters what a reader takes for a gap, one
/// that does not.
pub(crate) fn all() -> Vec<Case> {
    let large = |case| Case {
        size: Size::Large,
        ..case
    };
    let huge = |case| Case {
        size: Size::Huge,
        ..case
    };
    vec![
        // What is mapped already is merged with its neighbours.
        large(case(
            "merge-both",
            &[(2, 3, 1), (3, 4, 2), (4, 5, 1)],
            (1, 3),
            &[Protect(3..4, 1)],
            &[Protect(3..4, 2)],
        )),
        large(case(
            "merge-left-full",
            &[(2, 3, 1), (3, 4, 2), (6, 7, 1)],
            (1, 3),
            &[Protect(3..4, 1)],
            &[Protect(3..4, 2)],
        )),
        case(
            "merge-left-partial",
            &[(2, 3, 1), (3, 5, 2)],
            (1, 3),
            &[Protect(3..4, 1)],
            &[Protect(3..4, 2)],
        ),
        large(case(
            "merge-right-full",
            &[(2, 3, 2), (3, 4, 1), (6, 7, 1)],
            (1, 2),
            &[Protect(2..3, 1)],
            &[Protect(2..3, 2)],
        )),
        case(
            "merge-right-partial",
            &[(2, 4, 2), (4, 5, 1)],
            (1, 2),
            &[Protect(3..4, 1)],
            &[Protect(3..4, 2)],
        ),
        // Something is mapped, and merged or not.
        large(case(
            "insert-merge-both",
            &[(2, 3, 1), (4, 5, 1)],
            (3, 2),
            &[Map(3..4, 1)],
            &[Unmap(3..4)],
        )),
        case(
            "insert-merge-left",
            &[(2, 3, 1), (4, 5, 2)],
            (3, 2),
            &[Map(3..4, 1)],
            &[Unmap(3..4)],
        ),
        case(
            "insert-merge-right",
            &[(2, 3, 2), (4, 5, 1)],
            (3, 4),
            &[Map(3..4, 1)],
            &[Unmap(3..4)],
        ),
        case(
            "insert",
            &[(2, 3, 1), (5, 6, 1)],
            (3, 5),
            &[Map(4..5, 2)],
            &[Unmap(4..5)],
        ),
        case(
            "insert-at-end",
            &[(2, 3, 1)],
            (3, 2),
            &[Map(4..5, 2)],
            &[Unmap(4..5)],
        ),
        // Splits.
        case(
            "split-new-low",
            &[(2, 4, 1), (6, 7, 1)],
            (1, 2),
            &[Protect(3..4, 2)],
            &[Protect(3..4, 1)],
        ),
        huge(case(
            "split-new-high",
            &[(1, 2, 3), (2, 4, 1), (6, 7, 1)],
            (0, 2),
            &[Protect(2..3, 2)],
            &[Protect(2..3, 1)],
        )),
        // munmap().
        huge(case(
            "unmap",
            &[(2, 3, 1), (3, 5, 2), (6, 7, 1)],
            (1, 3),
            &[Unmap(3..5)],
            &[Map(3..5, 2)],
        )),
        huge(case(
            "unmap-head",
            &[(2, 3, 2), (3, 5, 1)],
            (1, 3),
            &[Unmap(3..4)],
            &[Map(3..4, 1)],
        )),
        large(case(
            "unmap-tail",
            &[(2, 4, 1), (6, 7, 2)],
            (1, 2),
            &[Unmap(3..4)],
            &[Map(3..4, 1)],
        )),
        huge(case(
            "unmap-middle",
            &[(2, 5, 1), (6, 7, 2)],
            (1, 2),
            &[Unmap(3..4)],
            &[Map(3..4, 1)],
        )),
        // The head of a VMA is replaced, so that a stale reader would see a gap.
        huge(case(
            "replace-head",
            &[(2, 3, 2), (3, 5, 1)],
            (1, 3),
            &[Map(3..4, 3)],
            &[Map(3..4, 1)],
        )),
        large(case(
            "replace",
            &[(2, 3, 1), (3, 4, 2), (6, 7, 1)],
            (1, 3),
            &[Map(3..4, 3)],
            &[Map(3..4, 2)],
        )),
        huge(case(
            "replace-two",
            &[(2, 3, 1), (3, 4, 2), (4, 6, 3)],
            (1, 3),
            &[Map(3..5, 1)],
            &[Protect(4..5, 2)],
        )),
        // What has taken the head of a VMA loses its own head to its neighbour and is unmapped, all
        // of it in place, in the node of the tree that the reader looks at.
        huge(case(
            "gap-of-two-moments",
            &[(1, 2, 3), (2, 3, 1), (3, 6, 2)],
            (0, 3),
            &[Protect(3..5, 1), Protect(2..4, 3), Unmap(4..5)],
            &[Fork],
        )),
        // mremap(), past where the reader is.
        large(case(
            "move-up",
            &[(2, 3, 1), (4, 5, 2)],
            (1, 2),
            &[Move(2, 6)],
            &[Move(6, 2)],
        )),
        huge(case(
            "move-down",
            &[(4, 5, 2), (6, 7, 1)],
            (5, 6),
            &[Move(6, 2)],
            &[Move(2, 6)],
        )),
        case(
            "grow",
            &[(2, 3, 1), (6, 8, 1)],
            (4, 6),
            &[Grow(6, 5)],
            &[Unmap(5..6)],
        ),
        case(
            "fork",
            &[(2, 4, 1), (4, 6, 2)],
            (1, 2),
            &[Fork],
            &[Protect(2..4, 3)],
        ),
        huge(case(
            "flags-and-back",
            &[(2, 4, 1)],
            (1, 2),
            &[Protect(2..4, 2), Protect(2..4, 1)],
            &[Fork],
        )),
        large(case(
            "skipped",
            &[(2, 3, EMPTY), (3, 5, 1)],
            (1, 3),
            &[Map(2..3, 1)],
            &[Map(2..3, EMPTY)],
        )),
        large(case(
            "small",
            &[(2, 4, 1), (4, 5, SMALL)],
            (1, 2),
            &[Protect(2..4, SMALL)],
            &[Protect(4..5, 1)],
        )),
        // A VMA is freed and used again, by another process or for another place.
        case(
            "recycled-elsewhere",
            &[(2, 3, 1), (4, 5, 2)],
            (1, 2),
            &[Unmap(2..3), MapElsewhere],
            &[Map(2..3, 2)],
        ),
        huge(case(
            "recycled-here",
            &[(2, 3, 1), (4, 5, 2)],
            (3, 4),
            &[Unmap(4..5), Map(3..4, 2)],
            &[Unmap(2..3)],
        )),
        Case {
            full: Some(4),
            size: Size::Large,
            ..case(
                "too-many-readers",
                &[(2, 3, 1), (4, 6, 2), (7, 8, 1)],
                (1, 4),
                &[Unmap(2..3)],
                &[Unmap(7..8)],
            )
        },
        // A writer that never stops: each VMA that is found may be detached when it is tried.
        huge(case(
            "busy",
            &[(2, 3, 1)],
            (1, 2),
            &[Map(2..3, 2), Map(2..3, 1), Map(2..3, 2), Map(2..3, 1)],
            &[Fork],
        )),
        huge(case(
            "busy-flags",
            &[(2, 4, 1)],
            (1, 2),
            &[
                Protect(2..4, 2),
                Protect(2..4, 1),
                Protect(2..4, 2),
                Protect(2..4, 1),
                Protect(2..4, 2),
            ],
            &[Fork],
        )),
    ]
}
