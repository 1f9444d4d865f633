// SPDX-License-Identifier: GPL-2.0

//! KUnit tests in which a writer comes between two chosen steps of a reader, in an address space of
//! the kernel.
//!
//! Each case has a layout and a change. It is read once for each moment at which the change can be
//! made, at each VMA, and each time it is checked what must hold of what was read: nothing that was
//! mapped before and after the change is missing, no VMA that was not changed is there twice, and
//! the ends rise. For the VMA that is changed, each case also says which events the reader has to
//! report.

use crate::{
    last_file::LastFile,
    tests::{
        forced::{Forced, Moment, Script, Step, With},
        maps_test::{pages, BASE, R, RW}, //
    },
    walk::{
        self,
        Event::{self, Fallback, Retry},
        LockError,
        Next,
        Reason::{Behind, Contended, Detached, End, Gap},
        StableVma, //
    },
};
use core::{cell::Cell, ops::Range};
use kernel::{
    mm::{
        test_mm::{TestMm, PROT_NONE},
        vma_iter::{SleepableVma, VmaIter, VmaIterState},
        MmWithUser,
    },
    page::PAGE_SIZE,
    prelude::*,
};

/// What is changed is on the pages from 1 to this, with a VMA that stays before and after it.
const LAST: usize = 2000;

/// All moments of a reader that locks each VMA, in the order in which it reaches them on its way to
/// one.
const MOMENTS: [Moment; 4] = [Moment::Unlocked, Moment::Find, Moment::Lock, Moment::Verify];

/// What was found was detached, and is looked up again.
const DETACHED: Event = Retry(LockError::Detached);

/// What was found is being changed, and is looked up again after a while.
const CONTENDED: Event = Retry(LockError::Contended);

type Change = fn(&TestMm) -> Result;

/// A layout, and what a writer makes of it.
struct Case {
    layout: Change,
    change: Change,
}

/// The outcome of a reading.
struct Reading {
    /// How often a rule was broken: gaps, repetitions, ends that do not rise, absent writers.
    violations: usize,
    /// Whether the writer has come.
    met: bool,
    events: [Option<Event>; 8],
    /// How often the reader has searched the tree at most for one line.
    lookups: usize,
}

impl Reading {
    /// The outcome as far as the script tells, of a reader for which one line took `lookups`.
    fn of(script: &Script<'_>, lookups: usize) -> Self {
        Self {
            violations: script.failures.get(),
            met: script.is_over(),
            events: script.events.get(),
            lookups,
        }
    }
}

/// The events of a reader that has reported these, and no others.
fn noted<const N: usize>(events: [Event; N]) -> [Option<Event>; 8] {
    let mut all = [None; 8];
    for (place, event) in all.iter_mut().zip(events) {
        *place = Some(event);
    }
    all
}

/// The ranges of all VMAs, in order, as they are under `mmap_lock`.
fn layout(mm: &MmWithUser) -> Result<KVec<Range<usize>>> {
    let mut ranges = KVec::with_capacity(64, GFP_KERNEL)?;
    let mut state = VmaIterState::new();
    let mut at = VmaIter::new(mm, &mut state).find_under_mmap_lock(0)?;
    while let Some(vma) = at {
        // There is room for them, and a lock is held.
        let _ = ranges.push_within_capacity(vma.start()..vma.end());
        at = vma.next();
    }
    Ok(ranges)
}

/// What a reader does with a VMA after the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// It locks it.
    Locks,
    /// It copies it, and locks it if that is not possible.
    Copies,
}

/// Reads the VMAs that end above `pos`, while the script interferes with the reader. Returns them,
/// and how often the tree was searched at most for one of them.
fn read(
    mm: &MmWithUser,
    script: &Script<'_>,
    pos: usize,
    by: By,
) -> Result<(KVec<Range<usize>>, usize)> {
    let mut lines = KVec::with_capacity(64, GFP_KERNEL)?;
    let mut worst = 0;
    let mut state = VmaIterState::new();
    let idle = With::new(VmaIter::new(mm, &mut state), script);
    let mut next = walk::first::<Forced<'_, '_, '_>>(idle, pos)?.map(Next::At);
    loop {
        worst = worst.max(script.lookups.take());
        let Some(here) = next else {
            break;
        };
        let _ = lines.push_within_capacity(here.range());
        next = match (here, by) {
            (Next::Copied(copied), _) => walk::next_or_copy(copied.pass(), &LastFile::default())?,
            (Next::At(at), By::Copies) => walk::next_or_copy(at.unlock(), &LastFile::default())?,
            (Next::At(at), By::Locks) => walk::next(at.unlock())?.map(Next::At),
        };
    }
    script.release();
    Ok((lines, worst))
}

fn covers(ranges: &[Range<usize>], address: usize) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// Counts the broken rules in what was read while `before` became `after`.
fn violations(lines: &[Range<usize>], before: &[Range<usize>], after: &[Range<usize>]) -> usize {
    let falls = lines.windows(2).filter(|pair| pair[0].end >= pair[1].end);
    let strange = lines
        .iter()
        .filter(|line| !before.contains(line) && !after.contains(line));
    let gaps = (0..=LAST)
        .map(|page| BASE + page * PAGE_SIZE)
        .filter(|&page| covers(before, page) && covers(after, page) && !covers(lines, page));
    let not_once = before
        .iter()
        .filter(|vma| after.contains(vma))
        .filter(|vma| lines.iter().filter(|line| line == vma).count() != 1);

    falls.count() + strange.count() + gaps.count() + not_once.count()
}

fn step(mm: &TestMm, moment: Moment, occasion: usize, change: Change) -> Result<Step> {
    Ok(Step {
        moment,
        occasion,
        writer: Cell::new(Some(mm.writer(change)?)),
    })
}

impl Case {
    /// Reads the layout with the change made at this occasion of this moment.
    fn read(&self, moment: Moment, occasion: usize, by: By) -> Result<Reading> {
        let mm = TestMm::attach()?;
        mm.unmap(pages(0..2 * LAST))?;
        mm.map(pages(0..1), PROT_NONE)?;
        mm.map(pages(LAST..LAST + 1), PROT_NONE)?;
        (self.layout)(&mm)?;

        let before = layout(&mm)?;
        let (lines, mut reading) = read_against(&mm, &[(moment, occasion, self.change)], by)?;
        let after = layout(&mm)?;

        reading.violations += violations(&lines, &before, &after);
        Ok(reading)
    }

    /// Reads with the change made at each moment of each VMA, up to the first violation, and then
    /// the same for a reader that copies what it can. Returns the number of violations, and of
    /// readings in which the change was made while the reader locked each VMA.
    fn everywhere(&self) -> Result<(usize, usize)> {
        let (mut wrong, met) = self.at_each(&MOMENTS, By::Locks)?;
        if wrong == 0 {
            let (wrong_copies, met) = self.at_each(&[Moment::Find, Moment::Copy], By::Copies)?;
            // It has met the change at the VMA before those of the case at least.
            wrong += wrong_copies + usize::from(met < 4);
        }
        Ok((wrong, met))
    }

    fn at_each(&self, moments: &[Moment], by: By) -> Result<(usize, usize)> {
        let mut met = 0;
        for &moment in moments {
            for occasion in 1.. {
                let reading = self.read(moment, occasion, by)?;
                if !reading.met {
                    break;
                }
                met += 1;
                if reading.violations != 0 {
                    return Ok((reading.violations, met));
                }
            }
        }
        Ok((0, met))
    }

    /// Returns whether these are the events that the reader reports when the change is made at each
    /// moment of its way to this VMA, counted from one.
    fn notes(&self, vma: usize, expected: [&[Event]; 4]) -> Result<bool> {
        let mut same = true;
        for (moment, expected) in MOMENTS.into_iter().zip(expected) {
            let occasion = match moment {
                // it is the VMA before this that is left
                Moment::Unlocked => vma - 1,
                _ => vma,
            };
            let reading = self.read(moment, occasion, By::Locks)?;
            same &= reading.met
                && reading.violations == 0
                && reading.events.iter().flatten().eq(expected);
        }
        Ok(same)
    }
}

/// Reads all VMAs while a writer makes each of the changes at this occasion of this moment. Returns
/// them, and the outcome.
fn read_against(
    mm: &TestMm,
    changes: &[(Moment, usize, Change)],
    by: By,
) -> Result<(KVec<Range<usize>>, Reading)> {
    let mut steps = KVec::new();
    for &(moment, occasion, change) in changes {
        steps.push(step(mm, moment, occasion, change)?, GFP_KERNEL)?;
    }
    let script = Script::new(steps, None);
    let (lines, lookups) = read(mm, &script, 0, by)?;

    Ok((lines, Reading::of(&script, lookups)))
}

/// A case by the operations that make its layout, and those of the writer.
macro_rules! case {
    ($($layout:ident($range:expr $(, $prot:expr)?)),+
        => $($change:ident($to:expr $(, $with:expr)?)),+) => {
        Case {
            layout: |mm| {
                $(mm.$layout(pages($range) $(, $prot)?)?;)+
                Ok(())
            },
            change: |mm| {
                $(mm.$change(pages($to) $(, $with)?)?;)+
                Ok(())
            },
        }
    };
}

#[kunit_tests(task_mmu_forced)]
mod tests {
    use super::*;

    /// ```text
    ///    [  A  ][ B ][  C  ]    ->    [       A       ]
    /// ```
    #[test]
    fn merge_both_over_an_existing_vma() -> Result {
        let case = case!(map(1..10, R), set_flag(4..6) => clear_flag(4..6));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[Fallback(Gap)], &[DETACHED], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [  A  ][ B ][ rw ]    ->    [    A   ][ rw ]
    /// ```
    #[test]
    fn merge_left_full() -> Result {
        let case = case!(map(1..6, R), map(6..10, RW), set_flag(4..6) => clear_flag(4..6));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[Fallback(Gap)], &[DETACHED], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [  A  ][    B    ]    ->    [    A    ][  B  ]
    /// ```
    #[test]
    fn merge_left_partial() -> Result {
        let case = case!(map(1..10, R), set_flag(4..10) => clear_flag(4..6));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[Fallback(Gap)], &[Fallback(Gap)], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [ rw ][  A  ][  B  ]    ->    [ rw ][    B    ]
    /// ```
    #[test]
    fn merge_right_full() -> Result {
        let case = case!(map(1..4, RW), map(4..10, R), set_flag(4..6) => clear_flag(4..6));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [    A    ][  B  ]    ->    [  A  ][    B    ]
    /// ```
    #[test]
    fn merge_right_partial() -> Result {
        let case = case!(map(1..10, R), set_flag(1..6) => clear_flag(4..6));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(2, [&[], &[], &[], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [  A  ]     [  B  ]    ->    [       A       ]
    /// ```
    #[test]
    fn insert_and_merge_both() -> Result {
        let case = case!(map(1..4, R), map(6..10, R) => map(4..6, R));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[Fallback(Gap)], &[DETACHED], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [  A  ]     [  B  ]    ->    [   A   ]   [  B  ]
    /// ```
    #[test]
    fn insert_and_merge_left() -> Result {
        let case = case!(map(1..4, R), map(8..10, R) => map(4..6, R));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(
            3,
            [&[], &[Fallback(Gap)], &[Fallback(Gap)], &[Fallback(Gap)]]
        )?);
        Ok(())
    }

    /// ```text
    ///    [  A  ]     [  B  ]    ->    [  A  ]   [   B   ]
    /// ```
    #[test]
    fn insert_and_merge_right() -> Result {
        let case = case!(map(1..4, R), map(8..10, R) => map(6..8, R));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[], &[], &[]])?);
        Ok(())
    }

    /// ```text
    ///              [  A  ]    ->      [ new ]  [  A  ]
    /// ```
    #[test]
    fn insert_into_a_gap() -> Result {
        let case = case!(map(10..20, R) => map(5..7, RW));

        assert_eq!(case.everywhere()?, (0, 13));
        assert!(case.notes(2, [&[], &[], &[Fallback(Gap)], &[Fallback(Gap)]])?);
        Ok(())
    }

    /// ```text
    ///    [       A       ]    ->    [ new ][    A    ]
    /// ```
    #[test]
    fn split_with_the_new_vma_low() -> Result {
        let case = case!(map(2..10, R) => set_flag(4..10));

        assert_eq!(case.everywhere()?, (0, 13));
        assert!(case.notes(2, [&[], &[], &[Fallback(Gap)], &[]])?);
        Ok(())
    }

    /// ```text
    ///    [       A       ]    ->    [    A    ][ new ]
    /// ```
    #[test]
    fn split_with_the_new_vma_high() -> Result {
        let case = case!(map(2..10, R) => set_flag(2..6));

        assert_eq!(case.everywhere()?, (0, 13));
        assert!(case.notes(2, [&[], &[], &[], &[]])?);
        Ok(())
    }

    #[test]
    fn unmap_all() -> Result {
        let case = case!(map(1..4, R), map(4..8, RW), map(8..12, R) => unmap(4..8));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    #[test]
    fn unmap_the_head() -> Result {
        let case = case!(map(1..4, R), map(4..8, RW) => unmap(4..6));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    #[test]
    fn unmap_the_tail() -> Result {
        let case = case!(map(1..4, R), map(4..8, RW), map(8..12, R) => unmap(6..8));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    #[test]
    fn unmap_the_middle() -> Result {
        let case = case!(map(1..4, R), map(4..12, RW) => unmap(6..8));

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    #[test]
    fn map_over() -> Result {
        let case = case!(map(1..10, R) => map(4..6, RW));

        assert_eq!(case.everywhere()?, (0, 13));
        assert!(case.notes(2, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    /// What `mremap` does to the tree, in the same order.
    #[test]
    fn move_up() -> Result {
        let case =
            case!(map(1..4, R), map(4..6, RW), map(8..10, R) => map(20..22, RW), unmap(4..6));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(3, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    /// What `mremap` does to the tree, in the same order.
    #[test]
    fn move_down() -> Result {
        let case =
            case!(map(1..4, R), map(8..10, R), map(20..22, RW) => map(5..7, RW), unmap(20..22));

        assert_eq!(case.everywhere()?, (0, 21));
        assert!(case.notes(4, [&[], &[], &[DETACHED], &[]])?);
        Ok(())
    }

    #[cfg(not(CONFIG_STACK_GROWSUP))]
    #[test]
    fn a_stack_grows() -> Result {
        let case = Case {
            layout: |mm| mm.map_stack(pages(1000..1010)),
            change: |mm| mm.grow_stack(pages(990..991).start),
        };

        assert_eq!(case.everywhere()?, (0, 13));
        assert!(case.notes(2, [&[], &[], &[], &[]])?);
        Ok(())
    }

    /// `fork` write-locks all VMAs of the parent.
    #[test]
    fn fork() -> Result {
        let case = Case {
            layout: |mm| {
                mm.map(pages(1..4), R)?;
                mm.populate(pages(4..6))
            },
            change: |mm| mm.fork(),
        };

        assert_eq!(case.everywhere()?, (0, 17));
        assert!(case.notes(3, [&[], &[], &[], &[]])?);
        Ok(())
    }

    /// There is no other VMA, but a writer was there while that was looked up.
    #[test]
    fn the_end_is_confirmed() -> Result {
        let case = case!(map(1..4, R) => map(6..8, R));

        // The first, the one that is mapped, the last, and then nothing.
        let reading = case.read(Moment::Find, 4, By::Locks)?;
        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        assert_eq!(reading.events, noted([]));
        // One finds nothing, one confirms it.
        assert_eq!(reading.lookups, 2);
        Ok(())
    }

    /// Reads an address space with one VMA against changes.
    fn read_the_end(changes: &[(Moment, usize, Change)]) -> Result<(KVec<Range<usize>>, Reading)> {
        let mm = TestMm::attach()?;
        mm.unmap(pages(0..2 * LAST))?;
        mm.map(pages(1..4), R)?;
        read_against(&mm, changes, By::Locks)
    }

    /// Nothing at all is left when the next VMA is looked up.
    #[test]
    fn an_empty_address_space_is_confirmed() -> Result {
        let (lines, reading) =
            read_the_end(&[(Moment::Find, 2, |mm| mm.unmap(pages(0..2 * LAST)))])?;

        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        assert_eq!(reading.events, noted([]));
        assert_eq!(lines.len(), 1);
        // One finds nothing, one confirms it.
        assert_eq!(reading.lookups, 2);
        Ok(())
    }

    /// Something is mapped after the reader has found no other VMA, and that a writer was there.
    #[test]
    fn an_end_that_is_none_is_refused() -> Result {
        let (lines, reading) = read_the_end(&[
            (Moment::Find, 2, |mm| mm.map(pages(0..1), RW)),
            (Moment::Verify, 2, |mm| mm.map(pages(6..8), R)),
        ])?;

        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        assert_eq!(reading.events, noted([Fallback(End)]));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1], pages(6..8));
        // One finds nothing, one does not confirm it, one is the fallback.
        assert_eq!(reading.lookups, 3);
        Ok(())
    }

    /// A gap before a VMA that was split before it was locked.
    #[test]
    fn a_gap_that_is_none_is_refused() -> Result {
        let case = case!(map(4..10, R) => set_flag(6..10));

        let reading = case.read(Moment::Lock, 2, By::Locks)?;
        assert_eq!(reading.violations, 0);
        assert_eq!(reading.events, noted([Fallback(Gap)]));
        // One finds the VMA, one refuses the gap, one is the fallback.
        assert_eq!(reading.lookups, 3);
        Ok(())
    }

    /// What was found at the position of the reader has been split off before it was locked.
    #[test]
    fn a_vma_behind_the_reader_is_refused() -> Result {
        let mm = TestMm::attach()?;
        mm.map(pages(1..10), R)?;
        let mut steps = KVec::new();
        let split: Change = |mm| mm.set_flag(pages(1..6));
        steps.push(step(&mm, Moment::Lock, 1, split)?, GFP_KERNEL)?;
        let script = Script::new(steps, None);

        let (lines, lookups) = read(&mm, &script, pages(6..7).start, By::Locks)?;
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0], pages(6..10));
        assert_eq!(script.events.get(), noted([Fallback(Behind)]));
        assert_eq!(lookups, 2);
        assert_eq!(script.failures.get(), 0);
        Ok(())
    }

    /// Reads while a writer has unmapped the second of three VMAs, and waits for the third with
    /// both locked, until the reader has waited so many times, or queues up for `mmap_lock`.
    fn beside_a_writer_at_work(release_at: usize) -> Result<Reading> {
        let mm = TestMm::attach()?;
        mm.map(pages(1..4), R)?;
        mm.map(pages(4..6), RW)?;
        mm.map(pages(6..8), R)?;
        let mut steps = KVec::new();
        let unmap: Change = |mm| mm.unmap(pages(4..8));
        steps.push(step(&mm, Moment::Lock, 2, unmap)?, GFP_KERNEL)?;

        let mut state = VmaIterState::new();
        let found = VmaIter::new(&mm, &mut state)
            .enter_rcu(pages(6..8).start)
            .next();
        let locked = found.map_err(|_| ENOENT)?.start_read();
        let barrier: SleepableVma<'_> = locked.map_err(|_| EBUSY)?.leave_rcu();
        let script = Script::new(steps, Some(barrier));
        script.release_at.set(release_at);
        let (lines, lookups) = read(&mm, &script, 0, By::Locks)?;

        let mut reading = Reading::of(&script, lookups);
        reading.violations += usize::from(lines[..] != [pages(1..4)]);
        Ok(reading)
    }

    #[test]
    fn a_vma_that_is_being_changed_is_waited_for() -> Result {
        for (release_at, events) in [(1, noted([CONTENDED])), (2, noted([CONTENDED, CONTENDED]))] {
            let reading = beside_a_writer_at_work(release_at)?;

            assert!(reading.met);
            assert_eq!(reading.violations, 0);
            assert_eq!(reading.events, events);
            assert_eq!(reading.lookups, 1 + release_at);
        }
        Ok(())
    }

    #[test]
    fn a_vma_that_is_being_changed_for_longer_is_the_fallback() -> Result {
        let reading = beside_a_writer_at_work(0)?;

        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        let events = noted([CONTENDED, CONTENDED, Fallback(Contended)]);
        assert_eq!(reading.events, events);
        // One, one after each wait, one under `mmap_lock`.
        assert_eq!(reading.lookups, 4);
        Ok(())
    }

    /// From a VMA that cannot have another reader on, all is read under `mmap_lock`.
    #[test]
    fn a_vma_with_too_many_readers() -> Result {
        let mm = TestMm::attach()?;
        mm.map(pages(1..4), R)?;
        mm.map(pages(4..6), RW)?;
        mm.map(pages(7..8), R)?;
        let script = Script::new(KVec::new(), None);

        let (lines, lookups) =
            mm.with_too_many_readers(pages(4..6).start, || read(&mm, &script, 0, By::Locks))??;
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], pages(1..4));
        assert_eq!(lines[1], pages(4..6));
        assert_eq!(lines[2], pages(7..8));
        let events = noted([CONTENDED, CONTENDED, Fallback(Contended)]);
        assert_eq!(script.events.get(), events);
        assert_eq!(lookups, 4);
        Ok(())
    }

    /// In this case, page tables are walked under `mmap_lock`.
    #[cfg(CONFIG_PROC_PAGE_MONITOR)]
    #[test]
    fn a_sum_with_too_many_readers() -> Result {
        use crate::abstractions::page_walk::smaps::MemSizeStats;
        use crate::{address_space::Pinned, sums};

        let mm = TestMm::attach()?;
        mm.populate(pages(1..4))?;
        mm.map(pages(4..6), R)?;
        mm.populate(pages(7..9))?;
        let mut stats = MemSizeStats::new();

        let range = mm.with_too_many_readers(pages(4..6).start, || {
            let mut state = VmaIterState::new();
            sums::sum_all::<Pinned<'_>, _>(VmaIter::new(&mm, &mut state), &mut stats)
        })??;
        assert_eq!(range, pages(1..9));
        assert_eq!(stats.resident(), 5 * PAGE_SIZE);
        Ok(())
    }

    /// Each VMA that the reader finds is unmapped before it is locked.
    #[test]
    fn a_writer_that_never_stops() -> Result {
        let mm = TestMm::attach()?;
        for page in [0, 2, 4, 6, 8] {
            mm.map(pages(page..page + 1), R)?;
        }

        let (lines, reading) = read_against(
            &mm,
            &[
                (Moment::Lock, 1, |mm| mm.unmap(pages(0..1))),
                (Moment::Lock, 2, |mm| mm.unmap(pages(2..3))),
                (Moment::Lock, 3, |mm| mm.unmap(pages(4..5))),
                (Moment::Lock, 4, |mm| mm.unmap(pages(6..7))),
            ],
            By::Locks,
        )?;
        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        let events = noted([DETACHED, DETACHED, DETACHED, Fallback(Detached)]);
        assert_eq!(reading.events, events);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0], pages(8..9));
        assert_eq!(reading.lookups, 5);
        Ok(())
    }

    /// A VMA is mapped far away while the reader looks at the gap before another one.
    #[test]
    fn a_gap_while_something_is_mapped_elsewhere() -> Result {
        let mm = TestMm::attach()?;
        mm.map(pages(4..6), R)?;

        let (lines, reading) = read_against(
            &mm,
            &[
                (Moment::Lock, 1, |mm| mm.map(pages(8..9), R)),
                (Moment::Walk, 1, |mm| mm.map(pages(10..11), R)),
            ],
            By::Locks,
        )?;
        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        assert_eq!(reading.events, noted([]));
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], pages(4..6));
        // One under RCU, two to verify.
        assert_eq!(reading.lookups, 3);
        Ok(())
    }

    /// Something is mapped elsewhere, instead, each time that the reader looks at the gap before
    /// the last VMA that it finds. Where no writer has to be waited for, there is nothing that
    /// would take more lookups for one line.
    #[test]
    fn a_writer_that_does_the_worst() -> Result {
        let mm = TestMm::attach()?;
        for page in [0, 2, 4] {
            mm.map(pages(page..page + 1), R)?;
        }
        mm.map(pages(6..8), R)?;

        let (lines, reading) = read_against(
            &mm,
            &[
                (Moment::Lock, 1, |mm| mm.unmap(pages(0..1))),
                (Moment::Lock, 2, |mm| mm.unmap(pages(2..3))),
                (Moment::Lock, 3, |mm| mm.unmap(pages(4..5))),
                (Moment::Lock, 4, |mm| mm.map(pages(10..11), R)),
                (Moment::Walk, 1, |mm| mm.map(pages(12..13), R)),
                (Moment::Walk, 2, |mm| mm.map(pages(14..15), R)),
                (Moment::Walk, 3, |mm| mm.map(pages(16..17), R)),
            ],
            By::Locks,
        )?;
        assert!(reading.met);
        assert_eq!(reading.violations, 0);
        let events = noted([DETACHED, DETACHED, DETACHED, Fallback(Gap)]);
        assert_eq!(reading.events, events);
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[0], pages(6..8));
        // Four under RCU, three to verify, one under `mmap_lock`.
        assert_eq!(reading.lookups, 8);
        Ok(())
    }

    /// The memory of a VMA that was found is that of one of another address space by the time it is
    /// locked.
    // With this option memory is not used again within a grace period.
    #[cfg(not(CONFIG_SLUB_RCU_DEBUG))]
    #[test]
    fn a_vma_is_recycled_into_another_address_space() -> Result {
        // The memory is used again on the CPU on which the VMA was mapped. The reader keeps its
        // own, so another thread maps the VMA, on a CPU where a writer can be.
        for _ in 0..100 {
            let mm = TestMm::attach()?;
            mm.unmap(pages(0..100))?;
            mm.map(pages(0..1), PROT_NONE)?;
            mm.writer_on_another_cpu(|mm| mm.map(pages(1..2), R))?
                .run()?;
            mm.map(pages(3..4), R)?;
            let other = mm.another()?;
            let place = other.clone();
            let writer = mm.writer(move |mm| {
                mm.unmap(pages(1..2))?;
                mm.elsewhere(&place, |mm| {
                    for n in 0..32 {
                        mm.map(pages(2 * n..2 * n + 1), R)?;
                    }
                    Ok(())
                })
            })?;
            let mut steps = KVec::new();
            steps.push(
                Step {
                    moment: Moment::Lock,
                    occasion: 2,
                    writer: Cell::new(Some(writer)),
                },
                GFP_KERNEL,
            )?;
            let script = Script::new(steps, None);
            let (lines, _) = read(&mm, &script, 0, By::Locks)?;

            assert_eq!(script.failures.get(), 0);
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[1], pages(3..4));
            if script.events.get() == noted([CONTENDED]) {
                return Ok(());
            }
            // It was not used again.
            assert_eq!(script.events.get(), noted([DETACHED]));
        }
        Err(EAGAIN)
    }
}
