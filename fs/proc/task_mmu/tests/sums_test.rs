// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the sums over one VMA and over all.

use crate::{
    sums::{self, Sum},
    tests::scripted::{
        of,
        of_held,
        vma,
        Act,
        Moment,
        Scripted,
        Space,
        Step,
        Stopped,
        Vma, //
    },
    walk::{self, At, Budget, Held, Released, StableVma},
};
use core::ops::Range;
use kernel::prelude::*;

/// Above all addresses of the tests.
const END: usize = 64;

/// VMAs with this identity or a higher one have nothing to be added.
const UNTOUCHED: u32 = 100;

/// VMAs with this identity or a higher one are added at once.
const SMALL: u32 = 50;

/// VMAs with this identity or a higher one cannot be added without sleeping. What has a lower one
/// is added an address at a time.
const SLEEPY: u32 = 30;

/// A sum that records what has been added to it: each address, how often, and as a part of which
/// VMA.
struct Added {
    times: [u32; END],
    ids: [u32; END],
    pieces: usize,
    /// How many pieces are the first after a writer that the reader has let go first.
    after_writer: usize,
    /// How many entries each VMA says to have that is added at once.
    entries: u32,
}

impl Added {
    fn new() -> Self {
        Self {
            times: [0; END],
            ids: [0; END],
            pieces: 0,
            after_writer: 0,
            entries: 0,
        }
    }

    fn put(&mut self, space: &Space, addr: usize, id: u32) {
        self.times[addr] += 1;
        self.ids[addr] = id;
        space.moment(Moment::Added);
    }

    /// Returns whether this has each address of these VMAs once, as a part of that VMA, and no
    /// other address.
    fn is(&self, vmas: &[Vma]) -> bool {
        (0..END).all(|addr| {
            let vma = vmas.iter().find(|vma| vma.start <= addr && addr < vma.end);
            match vma {
                Some(vma) => self.times[addr] == 1 && self.ids[addr] == vma.id,
                None => self.times[addr] == 0,
            }
        })
    }
}

impl<'a, const VMA_LOCKS: bool> Sum<Scripted<'a, VMA_LOCKS>> for Added {
    fn add(
        &mut self,
        at: &At<Scripted<'a, VMA_LOCKS>>,
        range: Range<usize>,
        budget: &mut Budget,
    ) -> Option<usize> {
        let (space, vma) = of(at);
        let whole = at.range();
        space.require(whole.start <= range.start && range.end <= whole.end && !range.is_empty());
        if (SLEEPY..SMALL).contains(&vma.id) {
            return None;
        }

        self.pieces += 1;
        let is_new = budget.entries == Budget::AFTER_WRITER.entries;
        self.after_writer += usize::from(!budget.lets_go && is_new);
        let end = if vma.id < SLEEPY {
            range.start + 1
        } else {
            budget.entries = budget.entries.saturating_sub(self.entries);
            range.end
        };
        if vma.id < UNTOUCHED {
            for addr in range.start..end {
                self.put(space, addr, vma.id);
            }
        }
        Some(end)
    }

    fn add_asleep(&mut self, held: &Held<Scripted<'a, VMA_LOCKS>>, range: Range<usize>) -> usize {
        let (space, vma) = of_held(held);
        let whole = held.range();
        space.require(whole.start <= range.start && range.end <= whole.end && !range.is_empty());
        space.require(space.held_rcu.get() == 0);

        self.pieces += 1;
        for addr in range.clone() {
            self.put(space, addr, vma.id);
            if space.exited.get() || space.waiting.get() {
                return addr + 1;
            }
        }
        range.end
    }
}

/// Sums up all VMAs. Returns the range, and what was added.
fn all_with<const VMA_LOCKS: bool>(space: &Space) -> (Result<(usize, usize), Stopped>, Added) {
    let mut added = Added::new();
    let range = sums::sum_all::<Scripted<'_, VMA_LOCKS>, _>(space, &mut added);
    (range.map(|range| (range.start, range.end)), added)
}

fn all(space: &Space) -> (Result<(usize, usize), Stopped>, Added) {
    all_with::<true>(space)
}

/// Sums up the first VMA. Returns from where the reader goes on, zero if nothing is mapped there.
fn one_with<const VMA_LOCKS: bool>(space: &Space) -> (Result<usize, Stopped>, Added) {
    let mut added = Added::new();
    let at = match walk::first::<Scripted<'_, VMA_LOCKS>>(space, 0) {
        Ok(Some(at)) => at,
        Ok(None) => return (Ok(0), added),
        Err(stopped) => return (Err(stopped), added),
    };
    let pos = sums::sum_one(at, &mut added).map(|released| match released {
        Some(Released::Vma { pos, .. }) => pos,
        Some(Released::Mmap(at)) => at.range().end,
        None => 0,
    });
    (pos, added)
}

fn one(space: &Space) -> (Result<usize, Stopped>, Added) {
    one_with::<true>(space)
}

const QUIET: &[Step] = &[];

const AB: &[Vma] = &[vma(1, 10, 20), vma(2, 30, 40)];

const SLEEPY_AB: &[Vma] = &[vma(31, 10, 20), vma(32, 30, 40)];

/// Returns how often the reader has released something for which a writer waited.
fn gave_way(space: &Space) -> usize {
    space.moments[Moment::GiveWay as usize].get()
}

#[kunit_tests(task_mmu_sums)]
mod tests {
    use super::*;

    /// Asserts that a test has left nothing behind, and that no rule was broken.
    macro_rules! assert_clean {
        ($space:expr) => {
            assert!($space.nothing_is_held());
            assert_eq!($space.violations.get(), 0);
        };
    }

    #[test]
    fn nothing_is_mapped() {
        let space = Space::new(&[], QUIET);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((0, 0)));
        assert!(added.is(&[]));
        assert_clean!(space);
    }

    #[test]
    fn nobody_interferes() {
        let space = Space::new(AB, QUIET);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(space.fallbacks.get(), 0);
        assert_clean!(space);
    }

    #[test]
    fn without_vma_locks() {
        let space = Space::new(AB, QUIET);

        let (range, added) = all_with::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        // It is released after each piece.
        assert_eq!(space.fallbacks.get(), 19);
        assert_clean!(space);
    }

    /// The range of the file ends with them all the same.
    #[test]
    fn untouched_vmas_are_passed() {
        const VMAS: &[Vma] = &[vma(100, 5, 10), vma(1, 10, 20), vma(101, 30, 40)];
        let space = Space::new(VMAS, QUIET);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((5, 40)));
        assert!(added.is(&VMAS[1..2]));
        assert_clean!(space);
    }

    /// They are too short for a writer to interrupt them.
    #[test]
    fn small_vmas_are_added_at_once() {
        const VMAS: &[Vma] = &[vma(51, 5, 10), vma(52, 10, 20), vma(53, 40, 41)];
        let space = Space::new(VMAS, &[(Moment::Added, 0, Act::Wait)]);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((5, 41)));
        assert!(added.is(VMAS));
        assert_eq!(added.pieces, 3);
        assert_eq!(gave_way(&space), 0);
        assert_clean!(space);
    }

    /// The VMA is unlocked after each piece, and others run, whether anybody waits or not.
    #[test]
    fn large_vmas_are_added_in_pieces() {
        let space = Space::new(AB, QUIET);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(added.pieces, 20);
        assert_eq!(added.after_writer, 0);
        assert_eq!(space.relaxed.get(), 18);
        assert_eq!(gave_way(&space), 0);
        assert_clean!(space);
    }

    /// The reader unlocks the VMA at the fifth address, waits, and goes on from there.
    #[test]
    fn a_writer_waits_and_changes_nothing() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, &[(Moment::Added, 5, Act::Wait)]);

            let (range, added) = all(&space);
            assert_eq!(range, Ok((10, 40)));
            assert!(added.is(vmas));
            assert_eq!(gave_way(&space), 1);
            assert_eq!(space.moments[Moment::Wait as usize].get(), 1);
            assert_clean!(space);
        }
    }

    /// However often a writer comes, the reader makes progress.
    #[test]
    fn a_writer_waits_all_the_time() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, &[(Moment::Added, 0, Act::Wait)]);

            let (range, added) = all(&space);
            assert_eq!(range, Ok((10, 40)));
            assert!(added.is(vmas));
            // At the end of a VMA the lock is released anyway.
            assert!(gave_way(&space) >= 18);
            assert!(vmas != AB || added.after_writer == gave_way(&space));
            assert!(space.moments[Moment::Wait as usize].get() >= 18);
            assert_clean!(space);
        }
    }

    #[test]
    fn a_writer_waits_for_mmap_lock() {
        let space = Space::new(SLEEPY_AB, &[(Moment::Added, 5, Act::Wait)]);

        let (range, added) = all_with::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(SLEEPY_AB));
        assert_eq!(gave_way(&space), 1);
        assert_clean!(space);
    }

    /// Between two VMAs `mmap_lock` is released as well.
    #[test]
    fn a_writer_waits_for_mmap_lock_at_the_end_of_a_vma() {
        const VMAS: &[Vma] = &[vma(51, 10, 20), vma(52, 30, 40)];
        let space = Space::new(VMAS, &[(Moment::Added, 10, Act::Wait)]);

        let (range, added) = all_with::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(VMAS));
        assert_eq!(space.fallbacks.get(), 2);
        assert_eq!(gave_way(&space), 1);
        assert_clean!(space);
    }

    /// To look at many entries counts as much as to pass many VMAs.
    #[test]
    fn others_run_after_many_entries() {
        const VMAS: &[Vma] = &[
            vma(50, 5, 10),
            vma(51, 10, 20),
            vma(52, 30, 40),
            vma(53, 40, 41),
        ];

        for (entries, relaxed) in [(1, 0), (1008, 2), (2048, 4)] {
            let space = Space::new(VMAS, QUIET);
            let mut added = Added {
                entries,
                ..Added::new()
            };

            let range = sums::sum_all::<Scripted<'_, true>, _>(&space, &mut added);
            assert_eq!(range, Ok(5..41));
            assert!(added.is(VMAS));
            assert_eq!(space.relaxed.get(), relaxed);
            assert_clean!(space);
        }
    }

    /// Sums up all VMAs, with a writer that waits after so many addresses have been added, and
    /// changes the address space to `$after` when the reader has released its lock. The sum has to
    /// consist of `$expected`.
    macro_rules! changed_during_a_break {
        ($count:literal, [$($after:expr),*] => $range:expr, [$($expected:expr),*]) => {
            const SCRIPT: &[Step] = &[
                (Moment::Added, $count, Act::Wait),
                (Moment::GiveWay, 1, Act::Change(&[$($after),*])),
            ];
            let space = Space::new(AB, SCRIPT);

            let (range, added) = all(&space);
            assert_eq!(range, Ok($range));
            assert!(added.is(&[$($expected),*]));
            assert_eq!(gave_way(&space), 1);
            assert_clean!(space);
        };
    }

    /// The tail is another VMA now.
    #[test]
    fn tail_split_off() {
        changed_during_a_break!(
            5, [vma(1, 10, 17), vma(3, 17, 20), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 17), vma(3, 17, 20), vma(2, 30, 40)]
        );
    }

    /// The head is another VMA now, and has been added in part.
    #[test]
    fn head_split_off() {
        changed_during_a_break!(
            5, [vma(3, 10, 17), vma(1, 17, 20), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(3, 15, 17), vma(1, 17, 20), vma(2, 30, 40)]
        );
    }

    /// A part of what is added at once now has been added.
    #[test]
    fn small_after_the_break() {
        changed_during_a_break!(
            5, [vma(50, 10, 20), vma(51, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(50, 15, 20), vma(51, 30, 40)]
        );
    }

    /// What has been added is a VMA of its own now.
    #[test]
    fn split_at_the_break() {
        changed_during_a_break!(
            5, [vma(1, 10, 15), vma(3, 15, 20), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(3, 15, 20), vma(2, 30, 40)]
        );
    }

    #[test]
    fn merged_with_the_next() {
        changed_during_a_break!(5, [vma(1, 10, 40)] => (10, 40), [vma(1, 10, 40)]);
    }

    /// The VMA that covers the address has been added before, up to there.
    #[test]
    fn merged_with_the_previous() {
        changed_during_a_break!(
            15, [vma(1, 10, 40)] =>
            (10, 40), [vma(1, 10, 20), vma(2, 30, 35), vma(1, 35, 40)]
        );
    }

    #[test]
    fn unmapped() {
        changed_during_a_break!(5, [vma(2, 30, 40)] => (10, 40), [vma(1, 10, 15), vma(2, 30, 40)]);
    }

    #[test]
    fn unmapped_from_the_break_on() {
        changed_during_a_break!(
            5, [vma(1, 10, 15), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(2, 30, 40)]
        );
    }

    /// What has been shrunk to a part that was added is not added again.
    #[test]
    fn shrunk() {
        changed_during_a_break!(
            5, [vma(1, 10, 12), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(2, 30, 40)]
        );
    }

    #[test]
    fn replaced() {
        changed_during_a_break!(
            5, [vma(3, 12, 18), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 15), vma(3, 15, 18), vma(2, 30, 40)]
        );
    }

    #[test]
    fn mapped_after_the_break() {
        changed_during_a_break!(
            5, [vma(1, 10, 20), vma(3, 22, 25), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 20), vma(3, 22, 25), vma(2, 30, 40)]
        );
    }

    #[test]
    fn mapped_before_the_break() {
        changed_during_a_break!(
            15, [vma(3, 2, 5), vma(1, 10, 20), vma(2, 30, 40)] =>
            (10, 40), [vma(1, 10, 20), vma(2, 30, 40)]
        );
    }

    #[test]
    fn everything_unmapped() {
        changed_during_a_break!(5, [] => (10, 15), [vma(1, 10, 15)]);
    }

    /// Nothing of the sum is given to a reader that is being killed.
    #[test]
    fn killed_during_a_break() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 5, Act::Wait),
            (Moment::GiveWay, 1, Act::Kill),
        ];
        let space = Space::new(AB, SCRIPT);

        assert_eq!(all(&space).0, Err(Stopped::Killed));
        assert_clean!(space);
    }

    #[test]
    fn the_writer_is_still_at_it_after_the_break() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 5, Act::Wait),
            (Moment::GiveWay, 1, Act::WriteLock(1)),
        ];
        let space = Space::new(AB, SCRIPT);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(space.fallbacks.get(), 1);
        assert_clean!(space);
    }

    #[test]
    fn one_in_peace() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, QUIET);

            let (pos, added) = one(&space);
            assert_eq!(pos, Ok(20));
            assert!(added.is(&vmas[..1]));
            assert_clean!(space);
        }
    }

    #[test]
    fn one_without_vma_locks() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, &[(Moment::Added, 5, Act::Wait)]);

            let (pos, added) = one_with::<false>(&space);
            assert_eq!(pos, Ok(20));
            assert!(added.is(&vmas[..1]));
            assert_eq!(gave_way(&space), 1);
            assert_clean!(space);
        }
    }

    #[test]
    fn one_for_which_a_writer_waits_all_the_time() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, &[(Moment::Added, 0, Act::Wait)]);

            let (pos, added) = one(&space);
            assert_eq!(pos, Ok(20));
            assert!(added.is(&vmas[..1]));
            assert_eq!(gave_way(&space), 9);
            assert_clean!(space);
        }
    }

    /// Sums up the first VMA, with a writer that waits after five addresses have been added, and
    /// changes the address space to `$after` when the reader has released its lock. The sum has to
    /// consist of `$expected`, and the reader to go on from `$pos`.
    macro_rules! one_changed_during_a_break {
        ([$($after:expr),*] => $pos:expr, [$($expected:expr),*]) => {
            const SCRIPT: &[Step] = &[
                (Moment::Added, 5, Act::Wait),
                (Moment::GiveWay, 1, Act::Change(&[$($after),*])),
            ];
            let space = Space::new(AB, SCRIPT);

            let (pos, added) = one(&space);
            assert_eq!(pos, Ok($pos));
            assert!(added.is(&[$($expected),*]));
            assert_eq!(gave_way(&space), 1);
            assert_clean!(space);
        };
    }

    #[test]
    fn one_with_its_tail_split_off() {
        one_changed_during_a_break!(
            [vma(1, 10, 17), vma(11, 17, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 17), vma(11, 17, 20)]
        );
    }

    #[test]
    fn one_with_its_head_split_off() {
        one_changed_during_a_break!(
            [vma(11, 10, 17), vma(1, 17, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 15), vma(11, 15, 17), vma(1, 17, 20)]
        );
    }

    #[test]
    fn one_in_many_parts() {
        one_changed_during_a_break!(
            [vma(1, 10, 16), vma(51, 16, 17), vma(31, 17, 19), vma(101, 19, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 16), vma(51, 16, 17), vma(31, 17, 19)]
        );
    }

    #[test]
    fn one_with_its_head_unmapped() {
        one_changed_during_a_break!(
            [vma(1, 17, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 15), vma(1, 17, 20)]
        );
    }

    /// What belongs to the other one is not added.
    #[test]
    fn one_merged() {
        one_changed_during_a_break!([vma(1, 10, 40)] => 20, [vma(1, 10, 20)]);
    }

    #[test]
    fn one_merged_and_added_asleep() {
        one_changed_during_a_break!(
            [vma(31, 5, 40)] =>
            20, [vma(1, 10, 15), vma(31, 15, 20)]
        );
    }

    /// It has the same range, but is another.
    #[test]
    fn one_replaced() {
        one_changed_during_a_break!([vma(3, 10, 20), vma(2, 30, 40)] => 20, [vma(1, 10, 15)]);
    }

    #[test]
    fn one_replaced_in_the_middle() {
        one_changed_during_a_break!(
            [vma(1, 10, 17), vma(3, 17, 18), vma(1, 18, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 17), vma(1, 18, 20)]
        );
    }

    /// The other one reaches beyond it, and is not passed over.
    #[test]
    fn one_replaced_by_a_longer_one() {
        one_changed_during_a_break!([vma(1, 10, 18), vma(3, 18, 40)] => 20, [vma(1, 10, 18)]);
    }

    #[test]
    fn one_unmapped() {
        one_changed_during_a_break!([vma(2, 30, 40)] => 20, [vma(1, 10, 15)]);
    }

    #[test]
    fn something_mapped_before_the_one() {
        one_changed_during_a_break!(
            [vma(3, 2, 5), vma(1, 10, 20), vma(2, 30, 40)] =>
            20, [vma(1, 10, 20)]
        );
    }

    /// Nothing is left from where the reader could go on.
    #[test]
    fn all_and_one_unmapped() {
        one_changed_during_a_break!([] => 0, [vma(1, 10, 15)]);
    }

    /// No change makes the reader begin again.
    #[test]
    fn one_that_changes_all_the_time() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 0, Act::Wait),
            (Moment::GiveWay, 1, Act::Change(&[vma(1, 10, 19)])),
            (Moment::GiveWay, 2, Act::Change(&[vma(1, 5, 18)])),
            (Moment::GiveWay, 3, Act::Change(&[vma(1, 10, 30)])),
            (
                Moment::GiveWay,
                4,
                Act::Change(&[vma(11, 12, 16), vma(1, 16, 17)]),
            ),
        ];
        let space = Space::new(AB, SCRIPT);

        let (pos, added) = one(&space);
        // Nothing is mapped from 17 on.
        assert_eq!(pos, Ok(0));
        assert!(added.is(&[vma(1, 10, 14), vma(11, 14, 16), vma(1, 16, 17)]));
        assert_clean!(space);
    }

    /// The reader adds no more than the piece that it has begun.
    #[test]
    fn the_process_exits_in_the_middle_of_all() {
        for vmas in [AB, SLEEPY_AB] {
            for count in [1, 5, 10, 11, 20] {
                let script: &[Step] = match count {
                    1 => &[(Moment::Added, 1, Act::Exit)],
                    5 => &[(Moment::Added, 5, Act::Exit)],
                    10 => &[(Moment::Added, 10, Act::Exit)],
                    11 => &[(Moment::Added, 11, Act::Exit)],
                    _ => &[(Moment::Added, 20, Act::Exit)],
                };
                let space = Space::new(vmas, script);

                let (range, added) = all(&space);
                assert_eq!(range, Err(Stopped::Last));
                assert_eq!(added.times.iter().sum::<u32>(), count);
                assert_clean!(space);
            }
        }
    }

    #[test]
    fn the_process_exits_without_vma_locks() {
        let space = Space::new(AB, &[(Moment::Added, 5, Act::Exit)]);

        let (range, added) = all_with::<false>(&space);
        assert_eq!(range, Err(Stopped::Last));
        assert_eq!(added.times.iter().sum::<u32>(), 5);
        assert_clean!(space);
    }

    /// The reader checks this before each of them.
    #[test]
    fn the_process_exits_before_small_vmas() {
        const VMAS: &[Vma] = &[vma(51, 5, 10), vma(52, 10, 20), vma(53, 30, 40)];
        let space = Space::new(VMAS, &[(Moment::TryLock, 2, Act::Exit)]);

        let (range, added) = all(&space);
        assert_eq!(range, Err(Stopped::Last));
        assert!(added.pieces <= 2);
        assert_clean!(space);
    }

    /// Before the reader waits for a writer that does not come any more.
    #[test]
    fn the_process_exits_in_the_middle_of_one() {
        for vmas in [AB, SLEEPY_AB] {
            let space = Space::new(vmas, &[(Moment::Added, 5, Act::Exit)]);

            let (pos, added) = one(&space);
            assert_eq!(pos, Err(Stopped::Last));
            assert_eq!(added.times.iter().sum::<u32>(), 5);
            assert_eq!(space.moments[Moment::Wait as usize].get(), 0);
            assert_clean!(space);
        }
    }

    #[test]
    fn killed_in_the_middle_of_one() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 5, Act::Wait),
            (Moment::GiveWay, 1, Act::Kill),
        ];
        let space = Space::new(AB, SCRIPT);

        assert_eq!(one(&space).0, Err(Stopped::Killed));
        assert_clean!(space);
    }
}
