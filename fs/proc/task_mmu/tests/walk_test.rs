// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the protocol from one VMA to the next.

use crate::{
    tests::scripted::{
        of,
        vma,
        Act,
        Moment,
        Scripted,
        Space,
        Step,
        Vma, //
    },
    walk::{
        self,
        AddressSpace,
        At,
        LockError,
        Next,
        StableVma,
        MAX_GAP_WALKS,
        MAX_RETRIES, //
    },
};
use kernel::prelude::*;

/// The outcome of a walk: the identities of at most eight VMAs, in order.
#[derive(Debug, PartialEq, Eq)]
struct Walked {
    ids: [u32; 8],
    killed: bool,
}

/// What is expected of a walk that goes to the end.
fn ids<const N: usize>(expected: [u32; N]) -> Walked {
    let mut ids = [0; 8];
    ids[..N].copy_from_slice(&expected);
    Walked { ids, killed: false }
}

/// Walks to the end, for at most eight VMAs, and locks only the first and those that it cannot
/// copy.
fn copy(space: &Space) -> Walked {
    let mut walked = ids([]);
    let mut step = walk::first::<Scripted<'_, true>>(space, 0).map(|at| at.map(Next::At));

    for id in &mut walked.ids {
        step = match step {
            Ok(Some(Next::Copied(copied))) => {
                *id = copied.vma().0.id;
                walk::next_or_copy(copied.pass(), &())
            }
            Ok(Some(Next::At(at))) => {
                *id = of(&at).1.id;
                walk::next_or_copy(at.unlock(), &())
            }
            Ok(None) => return walked,
            Err(_) => {
                walked.killed = true;
                return walked;
            }
        };
    }

    walked
}

/// Walks from `pos` to the end, or until killed, for at most eight VMAs. A `sleepy` reader leaves
/// RCU at each VMA.
fn walk_by<const VMA_LOCKS: bool>(space: &Space, pos: usize, sleepy: bool) -> Walked {
    let mut walked = ids([]);
    let mut step = walk::first::<Scripted<'_, VMA_LOCKS>>(space, pos);

    for id in &mut walked.ids {
        match step {
            Ok(Some(at)) => {
                *id = match &at {
                    At::Vma(locked) => locked.vma.id,
                    At::Mmap(locked) => locked.vma.id,
                };
                step = match sleepy {
                    true => {
                        let end = at.range().end;
                        walk::next_after_sleep(at.release(end))
                    }
                    false => walk::next(at.unlock()),
                };
            }
            Ok(None) => return walked,
            Err(_) => {
                walked.killed = true;
                return walked;
            }
        }
    }

    walked
}

fn walk(space: &Space) -> Walked {
    walk_by::<true>(space, 0, false)
}

#[kunit_tests(task_mmu_walk)]
mod tests {
    use super::{Moment::*, *};
    use crate::walk::{
        Event::{self, Fallback, Retry},
        Reason::{Behind, Contended, Detached, End, Gap},
    };

    /// Two neighbours, then one after a gap.
    const ABC: &[Vma] = &[vma(1, 10, 20), vma(2, 20, 30), vma(3, 40, 50)];

    /// One, after a gap.
    const GAP: &[Vma] = &[vma(1, 40, 50)];

    /// Checks what must hold after every walk.
    macro_rules! finished {
        ($space:expr, finds: $finds:expr, looks_again: $again:expr, fallbacks: $fallbacks:expr) => {
            assert_eq!($space.violations.get(), 0);
            assert!($space.nothing_is_held());
            assert_eq!($space.finds.get(), $finds);
            assert_eq!($space.looks_again.get(), $again);
            assert_eq!($space.fallbacks.get(), $fallbacks);
        };
    }

    #[test]
    fn nobody_interferes() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // One lookup for each VMA, and one that finds no other.
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!(space.tries.get(), 3);
    }

    #[test]
    fn copied_without_a_lock() {
        let space = Space::new(ABC, &[]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        // The first is locked.
        assert_eq!((space.tries.get(), space.copies.get()), (1, 2));
    }

    #[test]
    fn locked_for_its_name() {
        const NAMES: &[Vma] = &[
            vma(1, 10, 20),
            vma(9, 20, 30),
            vma(3, 40, 50),
            vma(19, 60, 70),
        ];
        let space = Space::new(NAMES, &[]);

        assert_eq!(copy(&space), ids([1, 9, 3, 19]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
        assert_eq!((space.tries.get(), space.copies.get()), (3, 1));
    }

    #[test]
    fn changed_before_it_is_copied() {
        const SHRUNK: &[Vma] = &[vma(1, 10, 20), vma(2, 20, 25), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(Copy, 1, Act::Change(SHRUNK))]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!((space.tries.get(), space.copies.get()), (2, 1));
    }

    #[test]
    fn changed_while_it_is_copied() {
        const GROWN: &[Vma] = &[vma(1, 10, 20), vma(2, 20, 40), vma(3, 40, 50)];
        // What is verified before is the gap at the start, and where the reader goes on from.
        let space = Space::new(ABC, &[(Verify, 3, Act::Change(GROWN))]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!((space.tries.get(), space.copies.get()), (2, 1));
    }

    #[test]
    fn detached_while_it_is_copied() {
        let space = Space::new(ABC, &[(Copy, 1, Act::ReplaceAll)]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 1, looks_again: 0, fallbacks: 0);
        assert_eq!((space.tries.get(), space.copies.get()), (3, 1));
    }

    #[test]
    fn merged_after_it_was_copied() {
        // B, which was copied, has grown up to C. What follows it now is D.
        const ABCD: &[Vma] = &[
            vma(1, 10, 20),
            vma(2, 20, 30),
            vma(3, 30, 40),
            vma(4, 50, 60),
        ];
        const MERGED: &[Vma] = &[vma(1, 10, 20), vma(2, 20, 40), vma(4, 50, 60)];
        let space = Space::new(ABCD, &[(Find, 3, Act::Change(MERGED))]);

        assert_eq!(copy(&space), ids([1, 2, 2, 4]));
        assert!(space.events.get().iter().flatten().eq(&[Fallback(Gap)]));
        finished!(space, finds: 5, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn nothing_is_copied_beside_a_writer() {
        let space = Space::new(ABC, &[(Find, 1, Act::BeginWrite)]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        assert_eq!((space.tries.get(), space.copies.get()), (3, 0));
        assert_eq!(space.violations.get(), 0);
    }

    #[test]
    fn another_task_is_to_run_between_copies() {
        let space = Space::new(ABC, &[(Copy, 1, Act::NeedCpu)]);

        assert_eq!(copy(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!(space.relaxed.get(), 1);
        // The first VMA of an RCU section is locked.
        assert_eq!((space.tries.get(), space.copies.get()), (2, 1));
    }

    #[test]
    fn another_task_is_to_run() {
        let space = Space::new(ABC, &[(Unlocked, 2, Act::NeedCpu)]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!(space.relaxed.get(), 1);
    }

    #[test]
    fn merged_while_another_task_runs() {
        // What A has become ends above the position from which the reader goes on.
        const MERGED: &[Vma] = &[vma(4, 10, 30), vma(3, 40, 50)];
        let space = Space::new(
            ABC,
            &[(Unlocked, 1, Act::NeedCpu), (Find, 2, Act::Change(MERGED))],
        );

        assert_eq!(walk(&space), ids([1, 4, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
        assert_eq!(space.relaxed.get(), 1);
    }

    #[test]
    fn killed_while_another_task_runs() {
        let space = Space::new(
            ABC,
            &[(Unlocked, 1, Act::NeedCpu), (Unlocked, 1, Act::Kill)],
        );

        assert!(walk(&space).killed);
        finished!(space, finds: 1, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn no_vmas() {
        let space = Space::new(&[], &[]);

        assert_eq!(walk(&space), ids([]));
        finished!(space, finds: 1, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn starts_within_a_vma() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk_by::<true>(&space, 25, false), ids([2, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_once_is_looked_up_again() {
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(MERGED))]);

        // The second is gone: the first has grown over it.
        assert_eq!(walk(&space), ids([1, 1, 3]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_as_often_as_is_retried() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::ReplaceAll),
                (TryLock, 2, Act::ReplaceAll),
                (TryLock, 3, Act::ReplaceAll),
            ],
        );

        assert_eq!(MAX_RETRIES, 3);
        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 3, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn detached_once_more_is_the_fallback() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::ReplaceAll),
                (TryLock, 2, Act::ReplaceAll),
                (TryLock, 3, Act::ReplaceAll),
                (TryLock, 4, Act::ReplaceAll),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn a_writer_that_never_stops() {
        let space = Space::new(ABC, &[(TryLock, 0, Act::ReplaceAll)]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // Each VMA costs the lookups that are allowed and one fallback.
        finished!(space, finds: 3 * (MAX_RETRIES + 1) + 1, looks_again: 0, fallbacks: 3);
    }

    #[test]
    fn contended_is_waited_for() {
        let space = Space::new(
            ABC,
            &[(TryLock, 2, Act::WriteLock(2)), (Wait, 1, Act::EndWrite)],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 1, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn contended_until_the_last_wait() {
        let space = Space::new(
            ABC,
            &[(TryLock, 2, Act::WriteLock(2)), (Wait, 2, Act::EndWrite)],
        );

        assert_eq!(Scripted::<true>::MAX_WAITS, 2);
        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 2, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn contended_for_longer_is_the_fallback() {
        let space = Space::new(ABC, &[(TryLock, 2, Act::WriteLock(2))]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 2, looks_again: 0, fallbacks: 1);
        assert_eq!(space.moments[Wait as usize].get(), 2);
    }

    #[test]
    fn contended_and_detached_in_turn() {
        // One writer has 2 locked, the next one replaces it, a third has locked what is there then.
        let space = Space::new(
            ABC,
            &[
                (TryLock, 2, Act::WriteLock(2)),
                (Wait, 1, Act::EndWrite),
                (TryLock, 3, Act::ReplaceAll),
                (TryLock, 4, Act::WriteLock(2)),
                (Wait, 2, Act::EndWrite),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4 + 3, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn killed_while_it_waits() {
        let space = Space::new(
            ABC,
            &[(TryLock, 2, Act::WriteLock(2)), (Wait, 1, Act::Kill)],
        );

        let walked = walk(&space);
        assert!(walked.killed);
        assert_eq!(walked.ids[..2], [1, 0]);
        finished!(space, finds: 2, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn says_what_it_meets() {
        const REPLACED: &[Step] = &[(TryLock, 0, Act::ReplaceAll)];
        const LOCKED: &[Step] = &[(TryLock, 1, Act::WriteLock(1))];
        const BEHIND: &[Step] = &[(TryLock, 1, Act::Change(&[vma(1, 2, 5)]))];
        const FALSE_GAP: &[Step] = &[(TryLock, 1, Act::Change(&[vma(2, 10, 20), vma(1, 45, 50)]))];
        const MISSED: &[Step] = &[(Pass, 1, Act::Change(&[vma(9, 30, 55)]))];

        for (script, expected) in [
            (
                REPLACED,
                &[
                    Retry(LockError::Detached),
                    Retry(LockError::Detached),
                    Retry(LockError::Detached),
                    Fallback(Detached),
                ] as &[Event],
            ),
            (
                LOCKED,
                &[
                    Retry(LockError::Contended),
                    Retry(LockError::Contended),
                    Fallback(Contended),
                ],
            ),
            (BEHIND, &[Fallback(Behind)]),
            (FALSE_GAP, &[Fallback(Gap)]),
            (MISSED, &[Fallback(End)]),
        ] {
            let space = Space::new(GAP, script);
            // Until the first has been found, or that there is none.
            let first = walk::first::<Scripted<'_, true>>(&space, 8);
            assert!(first.is_ok());

            let events = space.events.get();
            assert!(events.iter().flatten().eq(expected));
            assert_eq!(space.violations.get(), 0);
        }
    }

    #[test]
    fn a_gap_that_nobody_can_have_made() {
        let space = Space::new(GAP, &[]);

        assert_eq!(walk(&space), ids([1]));
        finished!(space, finds: 2, looks_again: 0, fallbacks: 0);
        // The reader has checked for a writer at the gap, when it had left the VMA, and at the end.
        assert_eq!(space.moments[Verify as usize].get(), 3);
    }

    #[test]
    fn an_end_while_something_else_changes() {
        const ELSEWHERE: &[Vma] = &[vma(2, 10, 20), vma(1, 40, 50)];
        let space = Space::new(GAP, &[(Find, 2, Act::Change(ELSEWHERE))]);

        assert_eq!(walk(&space), ids([1]));
        finished!(space, finds: 2, looks_again: 1, fallbacks: 0);
    }

    #[test]
    fn a_gap_while_something_else_changes() {
        const ELSEWHERE: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        let space = Space::new(GAP, &[(TryLock, 1, Act::Change(ELSEWHERE))]);

        assert_eq!(walk(&space), ids([1, 2]));
        // No writer can have made the second gap.
        finished!(space, finds: 3, looks_again: 1, fallbacks: 0);
    }

    #[test]
    fn a_gap_after_the_lock() {
        const ELSEWHERE: &[Vma] = &[vma(1, 40, 50), vma(2, 50, 60)];
        let space = Space::new(GAP, &[(Verify, 1, Act::Change(ELSEWHERE))]);

        assert_eq!(walk(&space), ids([1, 2]));
        finished!(space, finds: 3, looks_again: 1, fallbacks: 0);
    }

    /// What is seen of a gap while writers come may never have been true at one moment.
    #[test]
    fn a_writer_while_a_gap_is_looked_at() {
        const ONE: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        const OTHER: &[Vma] = &[vma(1, 40, 50), vma(2, 80, 90)];

        let space = Space::new(
            GAP,
            &[
                (TryLock, 1, Act::Change(ONE)),
                (Walk, 1, Act::Change(OTHER)),
            ],
        );
        assert_eq!(walk(&space), ids([1, 2]));
        finished!(space, finds: 3, looks_again: 2, fallbacks: 0);

        let space = Space::new(
            GAP,
            &[(TryLock, 1, Act::Change(ONE)), (Walk, 1, Act::BeginWrite)],
        );
        assert_eq!(walk(&space), ids([1, 2]));
        // The writer makes the other gap and the end doubtful as well.
        finished!(space, finds: 3, looks_again: 2 + 1 + 1, fallbacks: 0);
    }

    #[test]
    fn writers_whenever_a_gap_is_looked_at() {
        const ELSEWHERE: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        let space = Space::new(
            GAP,
            &[
                (TryLock, 1, Act::Change(ELSEWHERE)),
                (Walk, 0, Act::Change(ELSEWHERE)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2]));
        assert_eq!(space.events.get()[..2], [Some(Fallback(Gap)), None]);
        finished!(space, finds: 3, looks_again: MAX_GAP_WALKS, fallbacks: 1);
    }

    #[test]
    fn a_false_gap_is_the_fallback() {
        // The head of 2 is replaced by 4 before 2 is locked, as in the diagram of walk.rs.
        const HEAD_REPLACED: &[Vma] = &[vma(1, 10, 20), vma(4, 20, 25), vma(2, 25, 30)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(HEAD_REPLACED))]);

        assert_eq!(walk(&space), ids([1, 4, 2]));
        finished!(space, finds: 4, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn a_writer_between_snapshot_and_lookup_is_noticed() {
        // 2 is found when it has been shrunk already, and 4 comes only afterwards.
        const SHRUNK: &[Vma] = &[vma(1, 10, 20), vma(2, 25, 30)];
        const FILLED: &[Vma] = &[vma(1, 10, 20), vma(4, 20, 25), vma(2, 25, 30)];
        let space = Space::new(
            ABC,
            &[
                (Find, 2, Act::Change(SHRUNK)),
                (Verify, 3, Act::Change(FILLED)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 4, 2]));
        finished!(space, finds: 4, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn a_writer_at_the_snapshot_makes_every_gap_doubtful() {
        let space = Space::new(GAP, &[(Find, 0, Act::BeginWrite)]);
        space.writing.set(true);

        assert_eq!(walk(&space), ids([1]));
        // The end was doubtful too.
        finished!(space, finds: 2, looks_again: 2, fallbacks: 0);
    }

    #[test]
    fn mapped_over_the_end_of_a_gap_that_is_passed() {
        const LATER: &[Vma] = &[vma(1, 40, 50), vma(2, 60, 70)];
        const OVER: &[Vma] = &[vma(9, 30, 55), vma(2, 60, 70)];
        let space = Space::new(LATER, &[(Pass, 1, Act::Change(OVER))]);

        // 2 is what the reader finds, because 9 covers the end of the gap by then.
        assert_eq!(walk(&space), ids([9, 2]));
        finished!(space, finds: 3, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn mapped_over_the_end_of_a_gap_before_the_last() {
        const OVER: &[Vma] = &[vma(9, 30, 55)];
        let space = Space::new(GAP, &[(Pass, 1, Act::Change(OVER))]);

        // The reader finds nothing.
        assert_eq!(walk(&space), ids([9]));
        finished!(space, finds: 2, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn shrunk_to_below_the_position_is_the_fallback() {
        // 2 was found from 20 on, and has been moved to where the reader has been already.
        const MOVED: &[Vma] = &[vma(2, 2, 8), vma(1, 10, 20), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(MOVED))]);

        assert_eq!(walk(&space), ids([1, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn ending_at_the_position_is_the_fallback() {
        const SHRUNK: &[Vma] = &[vma(2, 15, 20), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(SHRUNK))]);

        assert_eq!(walk(&space), ids([1, 3]));
        finished!(space, finds: 3, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn grown_over_the_position_needs_no_second_lookup() {
        const GROWN: &[Vma] = &[vma(2, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(GROWN))]);

        assert_eq!(walk(&space), ids([1, 2, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn merged_once_it_was_unlocked() {
        // 1 has been shown, and grows over 2 as soon as it can.
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(Unlocked, 1, Act::Change(MERGED))]);

        assert_eq!(walk(&space), ids([1, 1, 3]));
        finished!(space, finds: 4, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn merged_when_that_has_been_looked_at() {
        // The reader goes on from 1, and finds 3 because that follows what has become of 1.
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(ABC, &[(Find, 2, Act::Change(MERGED))]);

        assert_eq!(walk(&space), ids([1, 1, 3]));
        finished!(space, finds: 4, looks_again: 1, fallbacks: 1);
    }

    #[test]
    fn a_writer_at_work_when_a_vma_is_left() {
        // The snapshot is worth nothing, so the next VMA is looked up by its address.
        const MERGED: &[Vma] = &[vma(1, 10, 30), vma(3, 40, 50)];
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::BeginWrite),
                (Unlocked, 1, Act::Change(MERGED)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 1, 3]));
        assert_eq!(space.violations.get(), 0);
        assert!(space.nothing_is_held());
    }

    #[test]
    fn split_before_it_was_locked() {
        // The reader locks what is left of 2, and has to find 4 although 2 covered it once.
        const SPLIT: &[Vma] = &[
            vma(1, 10, 20),
            vma(2, 20, 25),
            vma(4, 25, 30),
            vma(3, 40, 50),
        ];
        let space = Space::new(ABC, &[(TryLock, 2, Act::Change(SPLIT))]);

        assert_eq!(walk(&space), ids([1, 2, 4, 3]));
        finished!(space, finds: 5, looks_again: 0, fallbacks: 0);
    }

    #[test]
    fn the_fallback_finds_nothing() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 1, Act::WriteLock(1)),
                (LockMmap, 1, Act::Change(&[])),
            ],
        );

        assert_eq!(walk(&space), ids([]));
        finished!(space, finds: 1 + 2, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn killed_in_the_fallback() {
        let space = Space::new(
            ABC,
            &[(TryLock, 2, Act::WriteLock(2)), (LockMmap, 1, Act::Kill)],
        );

        let walked = walk(&space);
        assert!(walked.killed);
        assert_eq!(walked.ids[..2], [1, 0]);
        finished!(space, finds: 2 + 2, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn too_many_readers_keeps_mmap_lock() {
        let space = Space::new(
            ABC,
            &[
                (TryLock, 2, Act::WriteLock(2)),
                (LockMmap, 1, Act::Saturate(2)),
            ],
        );

        assert_eq!(walk(&space), ids([1, 2, 3]));
        // Nothing is looked up under RCU any more.
        finished!(space, finds: 2 + 2, looks_again: 0, fallbacks: 1);
        assert_eq!(space.tries.get(), 2 + 2);
    }

    #[test]
    fn dropping_a_reader_anywhere_releases_everything() {
        for stop_at in 0..=3 {
            let space = Space::new(ABC, &[(TryLock, 2, Act::WriteLock(2))]);
            let mut step = walk::first::<Scripted<'_, true>>(&space, 0);
            for _ in 0..stop_at {
                if let Ok(Some(at)) = step {
                    assert!(!space.nothing_is_held());
                    step = walk::next(at.unlock());
                }
            }
            drop(step);

            assert_eq!(space.violations.get(), 0);
            assert!(space.nothing_is_held());
        }
    }

    #[test]
    fn without_vma_locks_all_is_under_mmap_lock() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk_by::<false>(&space, 0, false), ids([1, 2, 3]));
        finished!(space, finds: 0, looks_again: 0, fallbacks: 1);
    }

    #[test]
    fn without_vma_locks_killed_at_the_start() {
        let space = Space::new(ABC, &[(LockMmap, 1, Act::Kill)]);

        assert!(walk_by::<false>(&space, 0, false).killed);
        finished!(space, finds: 0, looks_again: 0, fallbacks: 1);
    }

    /// Walks with a reader that sleeps at each VMA. At the first one, the address space changes to
    /// `$after`.
    macro_rules! changed_while_the_reader_sleeps {
        ([$($after:expr),*] => $ids:expr) => {
            const SCRIPT: &[Step] = &[(Unlocked, 1, Act::Change(&[$($after),*]))];
            let space = Space::new(ABC, SCRIPT);

            assert_eq!(walk_by::<true>(&space, 0, true), ids($ids));
            assert_eq!(space.violations.get(), 0);
            assert!(space.nothing_is_held());
            assert_eq!(space.fallbacks.get(), 0);
        };
    }

    #[test]
    fn nothing_while_asleep() {
        changed_while_the_reader_sleeps!(
            [vma(1, 10, 20), vma(2, 20, 30), vma(3, 40, 50)] =>
             [1, 2, 3]
        );
    }

    #[test]
    fn next_unmapped_while_asleep() {
        changed_while_the_reader_sleeps!([vma(1, 10, 20), vma(3, 40, 50)] => [1, 3]);
    }

    #[test]
    fn next_replaced_while_asleep() {
        changed_while_the_reader_sleeps!(
            [vma(1, 10, 20), vma(4, 25, 35), vma(3, 40, 50)] =>
             [1, 4, 3]
        );
    }

    #[test]
    fn next_merged_while_asleep() {
        changed_while_the_reader_sleeps!([vma(1, 10, 20), vma(2, 20, 50)] => [1, 2]);
    }

    #[test]
    fn next_split_while_asleep() {
        changed_while_the_reader_sleeps!(
            [vma(1, 10, 20), vma(4, 20, 25), vma(2, 25, 30), vma(3, 40, 50)] =>
             [1, 4, 2, 3]
        );
    }

    #[test]
    fn all_others_unmapped_while_asleep() {
        changed_while_the_reader_sleeps!([vma(1, 10, 20)] => [1]);
    }

    #[test]
    fn something_mapped_before_while_asleep() {
        changed_while_the_reader_sleeps!(
            [vma(4, 0, 10), vma(1, 10, 20), vma(2, 20, 30), vma(3, 40, 50)] => [1, 2, 3]
        );
    }

    #[test]
    fn asleep_under_mmap_lock() {
        let space = Space::new(ABC, &[]);

        assert_eq!(walk_by::<false>(&space, 0, true), ids([1, 2, 3]));
        assert_eq!(space.violations.get(), 0);
        assert!(space.nothing_is_held());
        assert_eq!(space.fallbacks.get(), 1);
    }
}
