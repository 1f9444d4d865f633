// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the walk over an address space of the kernel.

use crate::{
    address_space::At,
    walk::{self, StableVma},
};
use core::ops::Range;
use kernel::{
    bindings::{PROT_READ, PROT_WRITE},
    mm::{
        test_mm::TestMm,
        vma_iter::{VmaIter, VmaIterState},
    },
    page::PAGE_SIZE,
    prelude::*,
};

const R: u32 = PROT_READ;
const RW: u32 = PROT_READ | PROT_WRITE;

/// Above the lowest address that may be mapped, below what is mapped for a process.
const BASE: usize = 0x1000_0000;

/// The addresses of these pages, counted from [`BASE`].
fn pages(range: Range<usize>) -> Range<usize> {
    BASE + range.start * PAGE_SIZE..BASE + range.end * PAGE_SIZE
}

/// Makes an address space of consecutive one-page VMAs, alternately read-only and writable so that
/// they are not merged.
fn alternating(vmas: usize) -> Result<TestMm> {
    let mm = TestMm::attach()?;
    for page in 0..vmas {
        mm.map(pages(page..page + 1), if page % 2 == 0 { R } else { RW })?;
    }
    Ok(mm)
}

/// Returns the first VMA that ends above `pos`, as a chunk that begins there finds it.
fn first_from(mm: &TestMm, pos: usize) -> Result<Option<Range<usize>>> {
    let mut state = VmaIterState::new();
    let at: Option<At<'_>> = walk::first(VmaIter::new(mm, &mut state), pos)?;
    Ok(at.map(|at| at.range()))
}

#[kunit_tests(task_mmu_maps)]
mod tests {
    use super::*;

    #[test]
    fn no_vmas() -> Result {
        let mm = TestMm::attach()?;

        assert_eq!(first_from(&mm, 0)?, None);
        Ok(())
    }

    /// More VMAs than one node of the tree holds, a gap after every third.
    #[test]
    fn every_vma_once_and_in_order() -> Result {
        const VMAS: usize = 500;
        let mm = TestMm::attach()?;
        let place = |n: usize| pages(n + n / 3..n + n / 3 + 1);
        for n in 0..VMAS {
            mm.map(place(n), if n % 2 == 0 { R } else { RW })?;
        }

        let mut state = VmaIterState::new();
        let mut at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
        let mut n = 0;
        while let Some(here) = at {
            assert_eq!(here.range(), place(n));
            assert_eq!(here.vma().start(), place(n).start);
            assert!(core::ptr::eq(here.vma().mm(), &*mm));
            n += 1;
            at = walk::next(here)?;
        }

        assert_eq!(n, VMAS);
        Ok(())
    }

    #[test]
    fn begins_anywhere() -> Result {
        let mm = TestMm::attach()?;
        mm.map(pages(10..20), R)?;
        mm.map(pages(30..40), R)?;

        for (pos, found) in [
            (0, Some(10..20)),
            (pages(10..20).start, Some(10..20)),
            (pages(15..20).start, Some(10..20)),
            (pages(10..20).end - 1, Some(10..20)),
            (pages(10..20).end, Some(30..40)),
            (pages(30..40).end - 1, Some(30..40)),
            (pages(30..40).end, None),
        ] {
            assert_eq!(first_from(&mm, pos)?, found.map(pages));
        }
        Ok(())
    }

    /// A writer who needs a VMA that a reader has left locked would wait for ever.
    #[test]
    fn a_reader_that_has_stopped_holds_nothing() -> Result {
        const VMAS: usize = 20;
        for stop_at in 0..VMAS {
            let mm = alternating(VMAS)?;
            {
                let mut state = VmaIterState::new();
                let mut at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
                for _ in 0..stop_at {
                    if let Some(here) = at {
                        at = walk::next(here)?;
                    }
                }
                assert!(at.is_some());
            }
            mm.unmap(pages(0..VMAS))?;
            assert_eq!(first_from(&mm, 0)?, None);
        }
        Ok(())
    }

    #[test]
    fn merged_between_two_chunks() -> Result {
        let mm = alternating(3)?;

        assert_eq!(first_from(&mm, 0)?, Some(pages(0..1)));
        // The first becomes like the second, and one with it.
        mm.map(pages(0..1), RW)?;
        assert_eq!(first_from(&mm, pages(0..1).end)?, Some(pages(0..2)));
        assert_eq!(first_from(&mm, pages(0..2).end)?, Some(pages(2..3)));
        Ok(())
    }

    #[test]
    fn split_between_two_chunks() -> Result {
        let mm = TestMm::attach()?;
        mm.map(pages(0..2), R)?;
        mm.map(pages(2..6), RW)?;

        assert_eq!(first_from(&mm, 0)?, Some(pages(0..2)));
        mm.map(pages(3..4), R)?;
        assert_eq!(first_from(&mm, pages(0..2).end)?, Some(pages(2..3)));
        assert_eq!(first_from(&mm, pages(2..3).end)?, Some(pages(3..4)));
        assert_eq!(first_from(&mm, pages(3..4).end)?, Some(pages(4..6)));
        Ok(())
    }

    #[test]
    fn unmapped_between_two_chunks() -> Result {
        let mm = alternating(4)?;

        assert_eq!(first_from(&mm, 0)?, Some(pages(0..1)));
        mm.unmap(pages(0..3))?;
        assert_eq!(first_from(&mm, pages(0..1).end)?, Some(pages(3..4)));
        Ok(())
    }

    /// What a second thread does between finding a VMA and locking it.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    mod between_find_and_lock {
        use super::*;
        use kernel::mm::{
            vma_iter::{FoundVma, RcuVmaIter, StartReadError},
            VmaReadGuard,
        };

        /// Two VMAs with a gap between them, and nothing else.
        pub(super) fn two_with_a_gap() -> Result<TestMm> {
            let mm = TestMm::attach()?;
            mm.map(pages(0..10), R)?;
            mm.map(pages(20..30), R)?;
            Ok(mm)
        }

        /// Finds the first VMA from `pos`, has `change` made, and tries to lock the VMA.
        pub(super) fn with_change<'a>(
            mm: &'a TestMm,
            state: &'a mut VmaIterState,
            pos: usize,
            change: fn(&TestMm) -> Result,
        ) -> Result<Result<(VmaReadGuard<'a>, RcuVmaIter<'a>), StartReadError>> {
            let writer = mm.writer(change)?;
            let found = VmaIter::new(mm, state)
                .enter_rcu(pos)
                .next()
                .ok_or(ENOENT)?;
            writer.run()?;
            Ok(found.start_read().map_err(|(error, _)| error))
        }

        /// Locks the VMA that comes next after the one that was found before.
        pub(super) fn lock_next(iter: RcuVmaIter<'_>) -> Result<Range<usize>> {
            let found: FoundVma<'_> = iter.next().ok_or(ENOENT)?;
            let (locked, _) = found.start_read().map_err(|_| EBUSY)?;
            Ok(locked.range())
        }
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    use {
        between_find_and_lock::{lock_next, two_with_a_gap, with_change},
        kernel::mm::vma_iter::StartReadError,
    };

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn nothing_changes_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();

        let (locked, iter) =
            with_change(&mm, &mut state, 0, |_| Ok(()))?.map_err(|_| EBUSY)?;
        assert_eq!(locked.range(), pages(0..10));
        assert_eq!(lock_next(iter)?, pages(20..30));
        Ok(())
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn unmapped_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();

        let outcome = with_change(&mm, &mut state, 0, |mm| mm.unmap(pages(0..10)))?;
        assert_eq!(outcome.err(), Some(StartReadError::Detached));
        Ok(())
    }

    /// The tail that was split off is what comes next, though the VMA covered it when found.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn tail_split_off_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();

        let (locked, iter) = with_change(&mm, &mut state, 0, |mm| mm.set_flag(pages(0..6)))?
            .map_err(|_| EBUSY)?;
        assert_eq!(locked.range(), pages(0..6));
        assert_eq!(lock_next(iter)?, pages(6..10));
        Ok(())
    }

    /// What the VMA has grown over does not come next.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn grown_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();

        let (locked, iter) = with_change(&mm, &mut state, 0, |mm| mm.map(pages(10..15), R))?
            .map_err(|_| EBUSY)?;
        assert_eq!(locked.range(), pages(0..15));
        assert_eq!(lock_next(iter)?, pages(20..30));
        Ok(())
    }

    /// A second lookup tells that there is no gap where one seems to be.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn head_split_off_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();
        let pos = pages(20..30).start;

        let (locked, mut iter) = with_change(&mm, &mut state, pos, |mm| mm.set_flag(pages(25..30)))?
            .map_err(|_| EBUSY)?;
        assert_eq!(locked.range(), pages(25..30));
        iter.set(pos);
        assert!(!iter.next_is(&locked));
        Ok(())
    }

    /// A second lookup tells that a gap is one.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn head_unmapped_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;
        let mut state = VmaIterState::new();
        let pos = pages(20..30).start;

        let (locked, mut iter) = with_change(&mm, &mut state, pos, |mm| {
            mm.set_flag(pages(25..30))?;
            mm.unmap(pages(20..25))
        })?
        .map_err(|_| EBUSY)?;
        assert_eq!(locked.range(), pages(25..30));
        iter.set(pos);
        assert!(iter.next_is(&locked));
        Ok(())
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn speculation_notices_a_writer() -> Result {
        let mm = two_with_a_gap()?;

        let quiet = mm.mmap_lock_speculate_try_begin().ok_or(EBUSY)?;
        assert!(!quiet.retry());
        mm.unmap(pages(20..30))?;
        assert!(quiet.retry());
        Ok(())
    }
}
