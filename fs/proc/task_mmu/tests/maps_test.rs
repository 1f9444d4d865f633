// SPDX-License-Identifier: GPL-2.0

//! KUnit tests of the walk over an address space of the kernel.

use crate::{
    address_space::{At, Next},
    last_file::LastFile,
    walk::{self, StableVma},
};
use core::ops::Range;
use kernel::{
    bindings,
    mm::{
        test_mm::{TestMm, PROT_NONE, PROT_READ, PROT_WRITE},
        vma_iter::{VmaIter, VmaIterState},
    },
    page::PAGE_SIZE,
    prelude::*,
};

#[cfg(CONFIG_PER_VMA_LOCK)]
use kernel::{
    processor::cpu_relax,
    time::{Delta, Instant, Monotonic},
};

pub(crate) const R: u32 = PROT_READ;
pub(crate) const RW: u32 = PROT_READ | PROT_WRITE;

/// Above the lowest address that may be mapped, below what is mapped for a process.
pub(crate) const BASE: usize = 0x1000_0000;

/// The addresses of these pages, counted from [`BASE`].
pub(crate) fn pages(range: Range<usize>) -> Range<usize> {
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

/// Returns whether `done` returns `true` within some seconds.
#[cfg(CONFIG_PER_VMA_LOCK)]
fn soon(done: impl Fn() -> bool) -> bool {
    let begin = Instant::<Monotonic>::now();

    while !done() {
        if begin.elapsed() > Delta::from_secs(5) {
            return false;
        }
        cpu_relax();
    }
    true
}

#[kunit_tests(task_mmu_maps)]
mod tests {
    use super::*;

    #[cfg(CONFIG_PER_VMA_LOCK)]
    use crate::address_space::{Held, Pinned};
    #[cfg(CONFIG_PER_VMA_LOCK)]
    use kernel::{
        mm::{test_mm::Writer, vma_iter::StartReadError},
        sync::rcu::synchronize_rcu,
        time::delay::udelay,
    };

    #[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_PAGE_MONITOR))]
    use crate::abstractions::page_walk::smaps::MemSizeStats;
    #[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_PAGE_MONITOR))]
    use crate::{
        sums::{self, Sum},
        walk::Budget,
    };

    #[test]
    fn no_vmas() -> Result {
        let mm = TestMm::attach()?;

        assert_eq!(first_from(&mm, 0)?, None);
        Ok(())
    }

    /// Whether nobody else uses the address space is what keeps a reader from holding the memory of
    /// a process that was killed.
    #[test]
    fn the_last_user_is_seen() -> Result {
        let mm = TestMm::attach()?;

        assert!(!mm.is_last_user());
        assert!(mm.another()?.is_last_user());
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

        let mut n = 0;
        let mut wrong = 0;
        let mut state = VmaIterState::new();
        let mut at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
        while let Some(here) = at {
            let same_mm = core::ptr::eq(here.vma().mm(), &*mm);
            if here.range() != place(n) || here.vma().start() != place(n).start || !same_mm {
                wrong += 1;
            }
            n += 1;
            at = walk::next(here.unlock())?;
        }

        // A test must not end with anything locked, so only now.
        assert_eq!(wrong, 0);
        assert_eq!(n, VMAS);
        Ok(())
    }

    /// What is copied without a lock is what a lock shows.
    #[test]
    fn copies_are_right() -> Result {
        const VMAS: usize = 100;
        let mm = TestMm::attach()?;
        for n in 0..VMAS {
            let prot = [PROT_NONE, R, RW, R | bindings::PROT_EXEC][n % 4];
            mm.map(pages(3 * n..3 * n + 1 + n % 3), prot)?;
        }

        let mut locked = KVec::with_capacity(VMAS, GFP_KERNEL)?;
        let mut state = VmaIterState::new();
        let mut at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
        while let Some(here) = at {
            let _ = locked.push_within_capacity((here.range(), here.vma().flags()));
            at = walk::next(here.unlock())?;
        }
        assert_eq!(locked.len(), VMAS);

        let mut wrong = 0;
        let mut copies = 0;
        let mut all = locked.iter();
        let mut state = VmaIterState::new();
        let at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
        let mut next = at.map(Next::At);
        while let Some(here) = next {
            let (same, unlocked) = match here {
                Next::Copied(copied) => {
                    copies += 1;
                    let vma = copied.vma();
                    let is = (vma.range(), vma.flags());
                    (all.next() == Some(&is), copied.pass())
                }
                Next::At(at) => {
                    let is = (at.range(), at.vma().flags());
                    (all.next() == Some(&is), at.unlock())
                }
            };
            wrong += usize::from(!same);
            next = walk::next_or_copy(unlocked, &LastFile::default())?;
        }
        assert_eq!(wrong, 0);
        assert_eq!(all.next(), None);
        // The first is locked, and another one each time that another task was to run.
        assert!(copies > VMAS / 2 || cfg!(not(CONFIG_PER_VMA_LOCK)));
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

    /// A writer that needs a VMA that a reader has left locked would wait for ever.
    #[test]
    fn a_reader_that_has_stopped_holds_nothing() -> Result {
        const VMAS: usize = 20;
        for stop_at in 0..VMAS {
            let mm = alternating(VMAS)?;
            let stopped = {
                let mut state = VmaIterState::new();
                let mut at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), 0)?;
                for _ in 0..stop_at {
                    if let Some(here) = at {
                        at = walk::next(here.unlock())?;
                    }
                }
                at.map(|at| at.range())
            };
            assert_eq!(stopped, Some(pages(stop_at..stop_at + 1)));
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

    /// Two VMAs with a gap between them, and nothing else.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    fn two_with_a_gap() -> Result<TestMm> {
        let mm = TestMm::attach()?;
        mm.map(pages(0..10), R)?;
        mm.map(pages(20..30), R)?;
        Ok(mm)
    }

    /// What a reader saw of a VMA that was changed between the lookup and the lock.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[derive(PartialEq)]
    struct Seen {
        locked: Range<usize>,
        gap: bool,
        next: Range<usize>,
    }

    /// Finds the first VMA from `pos`, has another thread make `change`, locks the VMA, asks if
    /// there is a gap before it, and locks the next one. Holds nothing when it returns, so that a
    /// test may fail.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    fn see(
        mm: &TestMm,
        pos: usize,
        change: fn(&TestMm) -> Result,
    ) -> Result<Result<Seen, StartReadError>> {
        let writer = mm.writer(change)?;
        let mut state = VmaIterState::new();
        let found = VmaIter::new(mm, &mut state)
            .enter_rcu(pos)
            .next()
            .map_err(|_| ENOENT)?;
        writer.run()?;

        let mut locked = match found.start_read() {
            Ok(locked) => locked,
            Err((error, _)) => return Ok(Err(error)),
        };
        let range = locked.range();
        let gap = range.start > pos && locked.gap_from(pos);
        let next = match locked.unlock_in_rcu().next() {
            Ok(found) => found.start_read().map_err(|_| EBUSY)?.range(),
            Err(_) => 0..0,
        };

        Ok(Ok(Seen {
            locked: range,
            gap,
            next,
        }))
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn nothing_changes_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, 0, |_| Ok(()))?;
        let expected = Seen {
            locked: pages(0..10),
            gap: true,
            next: pages(20..30),
        };
        assert!(seen == Ok(expected));
        Ok(())
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn unmapped_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, 0, |mm| mm.unmap(pages(0..10)))?;
        assert!(seen == Err(StartReadError::Detached));
        Ok(())
    }

    /// The tail that was split off is what comes next, though the VMA covered it when found.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn tail_split_off_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, BASE, |mm| mm.set_flag(pages(0..6)))?;
        let expected = Seen {
            locked: pages(0..6),
            gap: false,
            next: pages(6..10),
        };
        assert!(seen == Ok(expected));
        Ok(())
    }

    /// What the VMA has grown over does not come next.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn grown_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, BASE, |mm| mm.map(pages(10..15), R))?;
        let expected = Seen {
            locked: pages(0..15),
            gap: false,
            next: pages(20..30),
        };
        assert!(seen == Ok(expected));
        Ok(())
    }

    /// A second look tells that there is no gap where one seems to be.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn head_split_off_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, pages(20..30).start, |mm| mm.set_flag(pages(25..30)))?;
        let expected = Seen {
            locked: pages(25..30),
            gap: false,
            next: 0..0,
        };
        assert!(seen == Ok(expected));
        Ok(())
    }

    /// A second look tells that a gap is one.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn head_unmapped_before_the_lock() -> Result {
        let mm = two_with_a_gap()?;

        let seen = see(&mm, pages(20..30).start, |mm| {
            mm.set_flag(pages(25..30))?;
            mm.unmap(pages(20..25))
        })?;
        let expected = Seen {
            locked: pages(25..30),
            gap: true,
            next: 0..0,
        };
        assert!(seen == Ok(expected));
        Ok(())
    }

    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn speculation_notices_a_writer() -> Result {
        let mm = two_with_a_gap()?;

        let quiet = mm.mmap_lock_speculate_begin();
        assert!(!quiet.retry());
        mm.unmap(pages(20..30))?;
        assert!(quiet.retry());
        Ok(())
    }

    /// Lets the writer begin, and returns whether it waits for the VMA within five seconds.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    fn waits_for(writer: &Writer, held: &Held<'_>) -> bool {
        writer.start();
        soon(|| matches!(held, Held::Vma(vma) if vma.is_contended()))
    }

    /// Returns in how many of these rounds a writer waits for a reader without going to sleep. The
    /// reader has the VMA locked for that long from when the writer waits.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    fn times_awake(rounds: usize, locked_for: Delta) -> Result<usize> {
        let mm = TestMm::attach()?;
        let mut awake = 0;

        for _ in 0..rounds {
            mm.map(pages(0..10), RW)?;
            let writer =
                mm.writer_on_another_cpu(|mm| mm.without_sleep(|mm| mm.unmap(pages(0..10))))?;

            let mut state = VmaIterState::new();
            let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
            let held = at.hold();
            let waits = waits_for(&writer, &held);
            udelay(locked_for);
            drop(held);
            awake += usize::from(writer.finish().is_ok());

            assert!(waits);
            assert_eq!(first_from(&mm, 0)?, None);
        }
        Ok(awake)
    }

    /// A writer does not go to sleep for a reader that is about to unlock the VMA.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn a_writer_spins_for_a_moment() -> Result {
        const ROUNDS: usize = 20;
        const ATTEMPTS: usize = 50;
        let mut awake = 0;
        if cfg!(CONFIG_PREEMPT_RT) {
            return Ok(());
        }

        // A virtual CPU may stop at any time, and those of a busy host do in most rounds.
        for _ in 0..ATTEMPTS {
            let moment = times_awake(ROUNDS, Delta::from_micros(10));
            if moment == Err(ENODEV) {
                return Ok(());
            }
            awake += moment?;
            if awake > ROUNDS / 4 {
                break;
            }
        }

        assert!(awake > ROUNDS / 4);
        assert!(times_awake(ROUNDS, Delta::from_millis(1))? < ROUNDS / 4);
        Ok(())
    }

    /// A writer that is at work when a lookup begins may make changes after it.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn a_writer_at_work_may_change_what_follows() -> Result {
        let mm = two_with_a_gap()?;
        let writer = mm.writer(|mm| mm.unmap(pages(0..10)))?;

        let mut state = VmaIterState::new();
        let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
        let held = at.hold();
        let waits = waits_for(&writer, &held);
        let doubtful = mm.mmap_lock_speculate_begin().retry();
        drop(held);
        writer.finish()?;

        assert!(waits);
        assert!(doubtful);
        Ok(())
    }

    /// The nodes of the tree in which the reader has found the VMA are replaced and freed while it
    /// sleeps.
    #[cfg(CONFIG_PER_VMA_LOCK)]
    #[test]
    fn the_tree_changes_while_the_reader_sleeps() -> Result {
        const VMAS: usize = 500;
        let mm = alternating(VMAS)?;
        let writer = mm.writer(|mm| {
            mm.unmap(pages(0..200))?;
            mm.unmap(pages(201..VMAS))?;
            // Freed nodes are given back in batches.
            for _ in 0..100 {
                mm.map(pages(300..310), R)?;
                mm.map(pages(303..307), RW)?;
            }
            mm.map(pages(300..310), R)
        })?;

        let mut state = VmaIterState::new();
        let at: Option<At<'_>> = walk::first(VmaIter::new(&mm, &mut state), pages(200..201).start)?;
        let held = at.ok_or(ENOENT)?.hold();
        writer.run()?;
        // The first waits for the readers, the second for what is done after them.
        synchronize_rcu();
        synchronize_rcu();
        let next =
            walk::first::<Pinned<'_>>(held.unlock(), pages(200..201).end)?.map(|at| at.range());

        assert_eq!(next, Some(pages(300..310)));
        Ok(())
    }

    /// What four page tables map.
    // With larger pages a page table maps more than a test should allocate.
    #[cfg(all(
        CONFIG_PER_VMA_LOCK,
        CONFIG_PROC_PAGE_MONITOR,
        CONFIG_64BIT,
        CONFIG_PAGE_SIZE_4KB
    ))]
    const PAGES: usize = 4 * 512;

    /// A writer waits for the VMA while its page tables are walked in a way that may sleep.
    #[cfg(all(
        CONFIG_PER_VMA_LOCK,
        CONFIG_PROC_PAGE_MONITOR,
        CONFIG_64BIT,
        CONFIG_PAGE_SIZE_4KB
    ))]
    #[test]
    fn a_walk_of_page_tables_stops_for_a_writer() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..PAGES))?;
        let writer = mm.writer(|mm| mm.unmap(pages(PAGES - 512..PAGES)))?;
        let all = pages(0..PAGES);
        let mut part = MemSizeStats::new();

        let mut state = VmaIterState::new();
        let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
        let held = at.hold();
        let waits = waits_for(&writer, &held);
        let stopped = part.add_asleep(&held, all.clone());
        let idle = held.unlock();
        writer.finish()?;

        // The writer has been there, and this is the rest.
        let rest: At<'_> = walk::first(idle, stopped)?.ok_or(ENOENT)?;
        let end = rest.range().end;
        let reached = part.add_asleep(&rest.hold(), stopped..end);

        assert!(waits);
        assert!(all.start < stopped && stopped <= pages(0..PAGES - 512).end);
        assert_eq!(end, pages(0..PAGES - 512).end);
        assert_eq!(reached, end);
        assert_eq!(part.resident(), (PAGES - 512) * PAGE_SIZE);
        Ok(())
    }

    /// A sum that lets a writer begin after it has begun itself.
    #[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_PAGE_MONITOR))]
    struct Interrupted<'w> {
        stats: MemSizeStats,
        writer: &'w Writer,
        waits: Option<bool>,
    }

    #[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_PAGE_MONITOR))]
    impl<'a> Sum<Pinned<'a>> for Interrupted<'_> {
        fn add(&mut self, at: &At<'a>, range: Range<usize>, budget: &mut Budget) -> Option<usize> {
            self.waits.and_then(|_| self.stats.add(at, range, budget))
        }

        fn add_asleep(&mut self, held: &Held<'a>, range: Range<usize>) -> usize {
            self.waits = Some(waits_for(self.writer, held));
            self.stats.add_asleep(held, range)
        }
    }

    /// Sums up the first VMA, with a writer that makes a change in the middle of that. Returns
    /// whether the writer had to wait, from where the reader goes on, and how much was mapped.
    #[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_PAGE_MONITOR))]
    fn sum_beside(mm: &TestMm, writer: Writer) -> Result<(Option<bool>, Option<usize>, usize)> {
        let mut sum = Interrupted {
            stats: MemSizeStats::new(),
            writer: &writer,
            waits: None,
        };

        let mut state = VmaIterState::new();
        let at: At<'_> = walk::first(VmaIter::new(mm, &mut state), 0)?.ok_or(ENOENT)?;
        let released = sums::sum_one(at, &mut sum)?;
        let (waits, resident) = (sum.waits, sum.stats.resident());
        let next = released.map(|released| released.pos());
        writer.finish()?;
        Ok((waits, next, resident))
    }

    /// The writer unmaps a part of the VMA that is summed up. What the sum is about is the VMA as
    /// it was before.
    #[cfg(all(
        CONFIG_PER_VMA_LOCK,
        CONFIG_PROC_PAGE_MONITOR,
        CONFIG_64BIT,
        CONFIG_PAGE_SIZE_4KB
    ))]
    #[test]
    fn a_sum_lets_a_writer_go_first() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..PAGES))?;
        mm.map(pages(PAGES..PAGES + 1), R)?;
        let writer = mm.writer(|mm| mm.unmap(pages(PAGES - 512..PAGES)))?;

        let (waits, next, resident) = sum_beside(&mm, writer)?;
        assert_eq!(waits, Some(true));
        assert_eq!(next, Some(pages(0..PAGES).end));
        assert_eq!(resident, (PAGES - 512) * PAGE_SIZE);
        Ok(())
    }

    /// The writer splits the VMA, which changes nothing in the sum.
    #[cfg(all(
        CONFIG_PER_VMA_LOCK,
        CONFIG_PROC_PAGE_MONITOR,
        CONFIG_64BIT,
        CONFIG_PAGE_SIZE_4KB
    ))]
    #[test]
    fn a_sum_over_a_vma_that_is_split() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..PAGES))?;
        let writer = mm.writer(|mm| mm.set_flag(pages(700..900)))?;

        let (waits, _, resident) = sum_beside(&mm, writer)?;
        assert_eq!(waits, Some(true));
        assert_eq!(first_from(&mm, 0)?, Some(pages(0..700)));
        assert_eq!(resident, PAGES * PAGE_SIZE);
        Ok(())
    }
}

/// How much of page tables a reader looks at before it lets others go first.
// With larger pages a page table maps more than a test should allocate.
#[cfg(all(
    CONFIG_PER_VMA_LOCK,
    CONFIG_PROC_PAGE_MONITOR,
    CONFIG_64BIT,
    CONFIG_PAGE_SIZE_4KB,
    // Page tables have 256 entries.
    not(CONFIG_S390)
))]
#[kunit_tests(task_mmu_page_walk)]
mod page_walk {
    use super::*;
    use crate::{
        abstractions::page_walk::smaps::MemSizeStats,
        address_space::{Held, Pinned},
        sums::{self, Sum},
        walk::{AddressSpace, Budget},
    };
    use kernel::{mm::vma_iter::RcuSection, preempt, workqueue};

    /// How often a test tries what another task that is to run may spoil.
    const ATTEMPTS: usize = 50;

    /// A sum that counts the calls in each RCU section.
    struct Sections {
        stats: MemSizeStats,
        calls: KVec<(Option<RcuSection>, usize)>,
    }

    impl<'a> Sum<Pinned<'a>> for Sections {
        fn add(&mut self, at: &At<'a>, range: Range<usize>, budget: &mut Budget) -> Option<usize> {
            let before = self.stats.resident();
            let added = self.stats.add(at, range, budget);
            let pages = (self.stats.resident() - before) / PAGE_SIZE;

            // That each has found room is seen from the number of pages.
            let _ = self
                .calls
                .push_within_capacity((at.seen().map(|seen| seen.section), pages));
            added
        }

        fn add_asleep(&mut self, held: &Held<'a>, range: Range<usize>) -> usize {
            self.stats.add_asleep(held, range)
        }
    }

    /// Where nobody waits, a reader looks at as many entries of page tables as it may.
    #[test]
    fn as_many_entries_as_it_may() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(500..1020))?;
        mm.populate(pages(1500..1600))?;
        let mut state = VmaIterState::new();

        for (from, end, to) in [
            // There are more entries in the second page table than are left.
            (500, 1020, 512),
            (512, 1020, 1020),
            (600, 1020, 1020),
            // Two page tables have few entries.
            (1500, 1600, 1600),
        ] {
            let (from, all, to) = (pages(0..from).end, pages(from..end), pages(0..to).end);
            let mut reached = None;
            for _ in 0..ATTEMPTS {
                let mut stats = MemSizeStats::new();
                let mut budget = Budget::FULL;
                budget.entries = 512;
                let iter = VmaIter::new(&mm, &mut state);
                let at: At<'_> = walk::first(iter, from)?.ok_or(ENOENT)?;
                reached = stats.add(&at, all.clone(), &mut budget);
                drop(at);

                let added = stats.resident();
                assert_eq!(reached, Some(from + added));
                if reached == Some(to) {
                    assert_eq!(budget.entries as usize, 512 - added / PAGE_SIZE);
                    break;
                }
            }
            assert_eq!(reached, Some(to));
        }
        Ok(())
    }

    /// The entries for the page tables of a VMA are in two tables.
    #[test]
    fn two_tables_of_pmds() -> Result {
        const GIB: usize = ((1 << 30) - BASE) / PAGE_SIZE;
        let mm = TestMm::attach()?;
        mm.populate(pages(GIB - 3..GIB + 517))?;
        let mut stats = MemSizeStats::new();
        let mut state = VmaIterState::new();

        sums::sum_all::<Pinned<'_>, _>(VmaIter::new(&mm, &mut state), &mut stats)?;
        assert_eq!(stats.resident(), 520 * PAGE_SIZE);
        Ok(())
    }

    /// A reader keeps a VMA for which nobody waits, but leaves RCU after four page tables.
    #[test]
    fn four_page_tables_in_an_rcu_section() -> Result {
        const TABLES: usize = 10;
        let mm = TestMm::attach()?;
        mm.populate(pages(0..TABLES * 512))?;
        let mut most = 0;

        for _ in 0..ATTEMPTS {
            let mut sum = Sections {
                stats: MemSizeStats::new(),
                calls: KVec::with_capacity(TABLES * 4 + 1, GFP_KERNEL)?,
            };
            let mut state = VmaIterState::new();
            let range = sums::sum_all::<Pinned<'_>, _>(VmaIter::new(&mm, &mut state), &mut sum)?;

            assert_eq!(range, pages(0..TABLES * 512));
            assert_eq!(sum.stats.resident(), TABLES * 512 * PAGE_SIZE);
            let noted = sum.calls.iter().map(|&(_, pages)| pages);
            assert_eq!(noted.sum::<usize>(), TABLES * 512);
            let (mut last, mut added) = (None, 0);
            for &(section, pages) in sum.calls.iter() {
                added = pages + if section == last { added } else { 0 };
                last = section;
                assert!(added <= 4 * 512);
                most = most.max(added);
            }
            if most == 4 * 512 {
                break;
            }
        }
        assert_eq!(most, 4 * 512);
        Ok(())
    }

    /// Returns how many pages a reader looks at that has locked a VMA, if others wait.
    fn looks_at(at: At<'_>, mut budget: Budget) -> Option<usize> {
        let all = at.range();
        let mut stats = MemSizeStats::new();

        let reached = stats.add(&at, all.clone(), &mut budget)?;
        (stats.resident() == reached - all.start).then_some(stats.resident() / PAGE_SIZE)
    }

    /// Makes a writer wait for a reader of a VMA with two page tables, which the reader has locked
    /// in the way that `lock` does. Returns how many pages the reader looks at.
    ///
    /// Returns [`None`] if no writer can come, because there is no other CPU.
    fn beside_a_writer(
        budget: Budget,
        lock: impl for<'a> FnOnce(VmaIter<'a>) -> Result<Option<At<'a>>>,
    ) -> Result<Option<usize>> {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..1024))?;
        let writer = match mm.writer_on_another_cpu(|mm| mm.unmap(pages(0..1024))) {
            Err(error) if error == ENODEV => return Ok(None),
            writer => writer?,
        };
        let mut state = VmaIterState::new();
        let at = lock(VmaIter::new(&mm, &mut state))?.ok_or(ENOENT)?;

        writer.start();
        let waits = soon(|| Pinned::is_contended(&at));
        let pages = looks_at(at, budget);
        writer.finish()?;
        assert!(waits);
        Ok(Some(pages.ok_or(EINVAL)?))
    }

    #[test]
    fn a_writer_waits_for_the_vma() -> Result {
        let pages = beside_a_writer(Budget::FULL, |iter| walk::first(iter, 0))?;
        assert!(matches!(pages, None | Some(128)));
        Ok(())
    }

    #[test]
    fn a_writer_waits_for_mmap_lock() -> Result {
        let pages = beside_a_writer(Budget::FULL, |iter| {
            Ok(iter.find_under_mmap_lock(0)?.map(At::Mmap))
        })?;
        assert!(matches!(pages, None | Some(128)));
        Ok(())
    }

    /// The reader has just let a writer go first.
    #[test]
    fn another_writer_waits() -> Result {
        let pages = beside_a_writer(Budget::AFTER_WRITER, |iter| walk::first(iter, 0))?;
        assert!(matches!(pages, None | Some(512)));
        Ok(())
    }

    #[test]
    fn another_task_is_to_run() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..1024))?;
        if cfg!(CONFIG_PREEMPT_RT) {
            // The other task has run before the reader could see that it is to.
            return Ok(());
        }

        let mut state = VmaIterState::new();
        let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
        // A task of this CPU.
        let spawned = workqueue::system().try_spawn(GFP_ATOMIC, || ());
        let guard = preempt::disable_unless_rt();
        let waits = soon(|| guard.need_resched());
        let pages = looks_at(at, Budget::FULL);
        drop(guard);
        spawned?;
        assert!(waits);
        assert_eq!(pages, Some(128));
        Ok(())
    }

    /// Pages are made a huge page when a part of them has been looked at.
    #[cfg(all(CONFIG_TRANSPARENT_HUGEPAGE, CONFIG_ADVISE_SYSCALLS))]
    #[test]
    fn a_part_of_a_huge_page() -> Result {
        let mm = TestMm::attach()?;
        mm.populate(pages(0..512))?;
        let mut state = VmaIterState::new();
        let mut stats = MemSizeStats::new();
        let mut budget = Budget::FULL;

        let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
        let reached = stats.add(&at, pages(0..128), &mut budget);
        drop(at);
        assert_eq!(reached, Some(pages(0..128).end));
        let mut collapsed = Err(EAGAIN);
        for _ in 0..ATTEMPTS {
            collapsed = mm.collapse(pages(0..512));
            if collapsed != Err(EAGAIN) {
                break;
            }
        }
        collapsed?;

        budget = Budget::FULL;
        let at: At<'_> = walk::first(VmaIter::new(&mm, &mut state), 0)?.ok_or(ENOENT)?;
        let reached = stats.add(&at, pages(128..512), &mut budget);
        drop(at);
        assert_eq!(reached, Some(pages(0..512).end));
        assert_eq!(stats.resident(), 512 * PAGE_SIZE);
        // It has no entries that were looked at.
        assert!(budget.entries > 4 * 512 - 384);
        Ok(())
    }
}
