// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the sums over one VMA and over all.

use crate::{
    sums::{self, Sum, MAX_RESTARTS},
    tests::scripted::{
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
    walk::{self, At, Held, StableVma},
};
use core::ops::Range;
use kernel::prelude::*;

/// Above all addresses of the tests.
const END: usize = 64;

/// VMAs with this identity or a higher one have nothing to be added.
const UNTOUCHED: u32 = 100;

/// VMAs with this identity or a higher one are added at once.
const SMALL: u32 = 50;

/// A sum that records what has been added to it: each address, how often, and as a part of which
/// VMA.
struct Added {
    times: [u32; END],
    ids: [u32; END],
    clears: usize,
    stops: usize,
    in_rcu: usize,
    /// How many pages each VMA says to have that is added at once.
    pages: usize,
}

impl Added {
    fn new() -> Self {
        Self {
            times: [0; END],
            ids: [0; END],
            clears: 0,
            stops: 0,
            in_rcu: 0,
            pages: 0,
        }
    }

    fn put(&mut self, range: Range<usize>, id: u32) {
        for addr in range {
            self.times[addr] += 1;
            self.ids[addr] = id;
        }
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
    fn clear(&mut self) {
        self.times = [0; END];
        self.ids = [0; END];
        self.clears += 1;
    }

    fn add_in_rcu(&mut self, at: &At<Scripted<'a, VMA_LOCKS>>) -> Option<usize> {
        let vma = match at {
            At::Vma(locked) => &locked.vma,
            At::Mmap(locked) => &locked.vma,
        };
        if vma.id < SMALL {
            return None;
        }

        self.in_rcu += 1;
        if vma.id < UNTOUCHED {
            self.put(vma.start..vma.end, vma.id);
        }
        Some(self.pages)
    }

    fn add(
        &mut self,
        held: &Held<Scripted<'a, VMA_LOCKS>>,
        pos: usize,
        may_stop: bool,
    ) -> Result<usize, Stopped> {
        let (space, vma) = of_held(held);
        space.require(held.range().contains(&pos));
        if space.killed.get() {
            return Err(Stopped::Killed);
        }
        if vma.id >= UNTOUCHED {
            return Ok(vma.end);
        }

        for addr in pos..vma.end {
            self.put(addr..addr + 1, vma.id);
            space.moment(Moment::Added);
            if space.exited.get() {
                return Ok(addr + 1);
            }
            if may_stop && space.waiting.get() {
                self.stops += 1;
                return Ok(addr + 1);
            }
        }
        Ok(vma.end)
    }
}

/// Sums up all VMAs. Returns the range, and what was added.
fn all_by<const VMA_LOCKS: bool>(space: &Space) -> (Result<(usize, usize), Stopped>, Added) {
    let mut added = Added::new();
    let range = sums::sum_all::<Scripted<'_, VMA_LOCKS>, _>(space, &mut added);
    (range.map(|range| (range.start, range.end)), added)
}

fn all(space: &Space) -> (Result<(usize, usize), Stopped>, Added) {
    all_by::<true>(space)
}

/// Sums up the first VMA that ends above `pos`. Returns its identity, zero if there is none.
fn one(space: &Space, pos: usize) -> (Result<u32, Stopped>, Added) {
    let mut added = Added::new();
    let held = match walk::first::<Scripted<'_, true>>(space, pos) {
        Ok(Some(at)) => at.hold(),
        Ok(None) => return (Ok(0), added),
        Err(stopped) => return (Err(stopped), added),
    };
    let result = sums::sum_one(held, pos, &mut added);
    let id = result.map(|held| held.map_or(0, |held| of_held(&held).1.id));
    (id, added)
}

const QUIET: &[Step] = &[];

const AB: &[Vma] = &[vma(1, 10, 20), vma(2, 30, 40)];

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

        let (range, added) = all_by::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(space.fallbacks.get(), 1);
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
        assert_eq!(added.in_rcu, 2);
        assert_clean!(space);
    }

    /// They are too short for a writer to interrupt them.
    #[test]
    fn small_vmas_are_added_in_rcu() {
        const VMAS: &[Vma] = &[
            vma(50, 5, 10),
            vma(51, 10, 20),
            vma(1, 30, 40),
            vma(52, 40, 41),
        ];
        let space = Space::new(VMAS, &[(Moment::Added, 0, Act::Wait)]);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((5, 41)));
        assert!(added.is(VMAS));
        assert_eq!(added.in_rcu, 3);
        assert_eq!(added.stops, 10);
        assert_clean!(space);
    }

    /// The reader unlocks the VMA at the fifth address and goes on from there.
    #[test]
    fn a_writer_waits_and_changes_nothing() {
        let space = Space::new(AB, &[(Moment::Added, 5, Act::Wait)]);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(added.stops, 1);
        assert_clean!(space);
    }

    /// However often a writer comes, the reader makes progress.
    #[test]
    fn a_writer_waits_all_the_time() {
        let space = Space::new(AB, &[(Moment::Added, 0, Act::Wait)]);

        let (range, added) = all(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(added.stops, 20);
        assert_clean!(space);
    }

    #[test]
    fn a_writer_waits_for_mmap_lock() {
        let space = Space::new(AB, &[(Moment::Added, 5, Act::Wait)]);

        let (range, added) = all_by::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(space.fallbacks.get(), 2);
        assert_clean!(space);
    }

    /// Between two VMAs `mmap_lock` is released as well.
    #[test]
    fn a_writer_waits_for_mmap_lock_at_the_end_of_a_vma() {
        let space = Space::new(AB, &[(Moment::Added, 10, Act::Wait)]);

        let (range, added) = all_by::<false>(&space);
        assert_eq!(range, Ok((10, 40)));
        assert!(added.is(AB));
        assert_eq!(space.fallbacks.get(), 2);
        assert_clean!(space);
    }

    /// To look at many pages counts as much as to pass many VMAs.
    #[test]
    fn others_run_after_many_pages() {
        const VMAS: &[Vma] = &[
            vma(50, 5, 10),
            vma(51, 10, 20),
            vma(52, 30, 40),
            vma(53, 40, 41),
        ];

        for (pages, relaxed) in [(1, 0), (256, 2), (512, 4)] {
            let space = Space::new(VMAS, QUIET);
            let mut added = Added {
                pages,
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
            assert_eq!(added.stops, 1);
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

    /// A part of what is small now has been added.
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
        let space = Space::new(AB, QUIET);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Ok(1));
        assert!(added.is(&AB[..1]));
        assert_eq!(added.clears, 0);
        assert_clean!(space);
    }

    #[test]
    fn one_is_gone_on_with_if_it_has_not_changed() {
        let space = Space::new(AB, &[(Moment::Added, 0, Act::Wait)]);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Ok(1));
        assert!(added.is(&AB[..1]));
        assert_eq!(added.stops, 10);
        assert_eq!(added.clears, 0);
        assert_clean!(space);
    }

    #[test]
    fn one_is_gone_on_with_if_it_has_changed_and_back() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 5, Act::Wait),
            (Moment::GiveWay, 1, Act::Change(&[vma(1, 10, 40)])),
            (Moment::GiveWay, 1, Act::Change(AB)),
        ];
        let space = Space::new(AB, SCRIPT);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Ok(1));
        assert!(added.is(&AB[..1]));
        assert_eq!(added.clears, 0);
        assert_clean!(space);
    }

    /// Like `changed_during_a_break`, for the sum of the first VMA above address 0.
    macro_rules! one_changed_during_a_break {
        ([$($after:expr),*] => $id:expr, [$($expected:expr),*]) => {
            const SCRIPT: &[Step] = &[
                (Moment::Added, 5, Act::Wait),
                (Moment::GiveWay, 1, Act::Change(&[$($after),*])),
            ];
            let space = Space::new(AB, SCRIPT);

            let (id, added) = one(&space, 0);
            assert_eq!(id, Ok($id));
            assert!($id == 0 || added.is(&[$($expected),*]));
            assert_eq!(added.stops, 1);
            assert_clean!(space);
        };
    }

    #[test]
    fn one_with_its_tail_split_off() {
        one_changed_during_a_break!(
            [vma(1, 10, 17), vma(3, 17, 20), vma(2, 30, 40)] =>
            1, [vma(1, 10, 17)]
        );
    }

    #[test]
    fn one_with_its_head_split_off() {
        one_changed_during_a_break!(
            [vma(3, 10, 17), vma(1, 17, 20), vma(2, 30, 40)] =>
            3, [vma(3, 10, 17)]
        );
    }

    #[test]
    fn one_with_its_head_unmapped() {
        one_changed_during_a_break!([vma(1, 17, 20), vma(2, 30, 40)] => 1, [vma(1, 17, 20)]);
    }

    #[test]
    fn one_merged() {
        one_changed_during_a_break!([vma(1, 10, 40)] => 1, [vma(1, 10, 40)]);
    }

    /// It has the same range, but is another.
    #[test]
    fn one_replaced() {
        one_changed_during_a_break!([vma(3, 10, 20), vma(2, 30, 40)] => 3, [vma(3, 10, 20)]);
    }

    #[test]
    fn one_unmapped() {
        one_changed_during_a_break!([vma(2, 30, 40)] => 2, [vma(2, 30, 40)]);
    }

    #[test]
    fn something_mapped_before_the_one() {
        one_changed_during_a_break!(
            [vma(3, 2, 5), vma(1, 10, 20), vma(2, 30, 40)] =>
            3, [vma(3, 2, 5)]
        );
    }

    #[test]
    fn all_and_one_unmapped() {
        one_changed_during_a_break!([] => 0, []);
    }

    /// In the end the writer has to wait.
    #[test]
    fn one_that_changes_all_the_time() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 0, Act::Wait),
            (Moment::GiveWay, 1, Act::Change(&[vma(1, 10, 19)])),
            (Moment::GiveWay, 2, Act::Change(&[vma(1, 10, 18)])),
            (Moment::GiveWay, 3, Act::Change(&[vma(1, 10, 17)])),
            (Moment::GiveWay, 4, Act::Change(&[vma(1, 10, 16)])),
        ];
        let space = Space::new(AB, SCRIPT);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Ok(1));
        assert!(added.is(&[vma(1, 10, 17)]));
        assert_eq!(added.stops, MAX_RESTARTS);
        assert_eq!(added.clears, MAX_RESTARTS);
        assert_clean!(space);
    }

    /// The reader adds no more than the piece that it has begun.
    #[test]
    fn the_process_exits_in_the_middle_of_all() {
        for count in [1, 5, 10, 11, 20] {
            let script: &[Step] = match count {
                1 => &[(Moment::Added, 1, Act::Exit)],
                5 => &[(Moment::Added, 5, Act::Exit)],
                10 => &[(Moment::Added, 10, Act::Exit)],
                11 => &[(Moment::Added, 11, Act::Exit)],
                _ => &[(Moment::Added, 20, Act::Exit)],
            };
            let space = Space::new(AB, script);

            let (range, added) = all(&space);
            // All has been added when it has exited after the last address.
            assert_eq!(range.is_ok(), count == 20);
            assert!(range.is_ok() || range == Err(Stopped::Last));
            assert_eq!(added.times.iter().sum::<u32>(), count);
            assert_clean!(space);
        }
    }

    #[test]
    fn the_process_exits_without_vma_locks() {
        let space = Space::new(AB, &[(Moment::Added, 5, Act::Exit)]);

        let (range, added) = all_by::<false>(&space);
        assert_eq!(range, Err(Stopped::Last));
        assert_eq!(added.times.iter().sum::<u32>(), 5);
        assert_clean!(space);
    }

    /// The reader checks this before each of them.
    #[test]
    fn the_process_exits_before_small_vmas() {
        const VMAS: &[Vma] = &[vma(50, 5, 10), vma(51, 10, 20), vma(52, 30, 40)];
        let space = Space::new(VMAS, &[(Moment::TryLock, 2, Act::Exit)]);

        let (range, added) = all(&space);
        assert_eq!(range, Err(Stopped::Last));
        assert_eq!(space.checks.get(), 2);
        assert!(added.in_rcu <= 2);
        assert_clean!(space);
    }

    /// Before the reader stays away for a writer that does not come any more.
    #[test]
    fn the_process_exits_in_the_middle_of_one() {
        let space = Space::new(AB, &[(Moment::Added, 5, Act::Exit)]);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Err(Stopped::Last));
        assert_eq!(added.times.iter().sum::<u32>(), 5);
        assert_eq!(space.moments[Moment::GiveWay as usize].get(), 0);
        assert_clean!(space);
    }

    /// Also after the last restart, when no writer can stop the reader any more.
    #[test]
    fn the_process_exits_after_all_restarts() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 1, Act::Wait),
            (Moment::GiveWay, 1, Act::Change(&[vma(1, 10, 19)])),
            (Moment::Added, 2, Act::Wait),
            (Moment::GiveWay, 2, Act::Change(&[vma(1, 10, 18)])),
            (Moment::Added, 3, Act::Wait),
            (Moment::GiveWay, 3, Act::Change(&[vma(1, 10, 17)])),
            (Moment::Added, 5, Act::Exit),
        ];
        let space = Space::new(AB, SCRIPT);

        let (id, added) = one(&space, 0);
        assert_eq!(id, Err(Stopped::Last));
        assert_eq!(added.times.iter().sum::<u32>(), 2);
        assert_clean!(space);
    }

    #[test]
    fn killed_in_the_middle_of_one() {
        const SCRIPT: &[Step] = &[
            (Moment::Added, 5, Act::Wait),
            (Moment::GiveWay, 1, Act::Kill),
        ];
        let space = Space::new(AB, SCRIPT);

        assert_eq!(one(&space, 0).0, Err(Stopped::Killed));
        assert_clean!(space);
    }
}
