// SPDX-License-Identifier: GPL-2.0

//! The operations on an address space, in the order of steps that `mm/vma.c` and `mm/mremap.c`
//! have.
//!
//! In all of them the fields of a VMA change before the tree does. A VMA that is unmapped is
//! detached before it is gone from the tree, one that is merged away is gone from the tree before
//! it is detached.

use crate::{
    history::{Area, Who},
    model::Space,
};
use std::ops::Range;

/// What a writer does in one critical section.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// `mprotect()`: everything in the range gets this kind. VMAs are split and merged.
    Protect(Range<usize>, u8),
    /// `mmap()` with `MAP_FIXED`: merged with its neighbours, or a VMA of its own.
    Map(Range<usize>, u8),
    /// `munmap()`.
    Unmap(Range<usize>),
    /// `mremap()` of the VMA that begins at the first address to the second.
    Move(usize, usize),
    /// The stack, which begins at the first address, grows down to the second.
    Grow(usize, usize),
    /// `fork()`, which write-locks all VMAs.
    Fork,
    /// Another process maps something.
    MapElsewhere,
}

/// A writer in a critical section.
struct Writer<'a> {
    space: &'a Space,
    who: Who,
    /// The entries of the tree, as far as this writer has got.
    areas: Vec<Area>,
    write_locked: Vec<usize>,
}

/// Does all of `ops`.
pub(crate) fn run(space: &Space, who: Who, ops: &[Op]) {
    for op in ops {
        if matches!(op, Op::MapElsewhere) {
            space.mmap_elsewhere(who);
            continue;
        }

        space.mmap_write_lock(who);
        let writer = Writer {
            space,
            who,
            areas: space.history.areas(),
            write_locked: Vec::new(),
        };
        match op.clone() {
            Op::Protect(range, kind) => writer.protect(range, kind),
            Op::Map(range, kind) => writer.map(range, kind),
            Op::Unmap(range) => writer.unmap(range),
            Op::Move(from, to) => writer.move_vma(from, to),
            Op::Grow(start, to) => writer.grow(start, to),
            Op::Fork => writer.fork(),
            Op::MapElsewhere => unreachable!("it takes no lock of this address space"),
        }
    }
}

impl Writer<'_> {
    fn unlock(self) {
        self.space.mmap_write_unlock(self.who, &self.areas);
    }

    /// `vma_start_write`.
    fn start_write(&mut self, vma: usize) {
        if !self.write_locked.contains(&vma) {
            self.space.vma_start_write(self.who, vma);
            self.write_locked.push(vma);
        }
    }

    /// Sets the range and kind of the VMA of an entry, which is not stored yet.
    fn set(&mut self, at: usize, range: Range<usize>, kind: u8) {
        let area = Area::new(self.areas[at].vma, range, kind);
        self.areas[at] = area;
        self.space.vma_set(self.who, area);
    }

    fn store(&self) {
        self.space.store(self.who, &self.areas);
    }

    fn detach(&mut self, vma: usize) {
        self.space.vma_mark_detached(self.who, vma);
        self.write_locked.retain(|&locked| locked != vma);
    }

    fn detach_and_free(&mut self, area: Area) {
        self.detach(area.vma);
        self.space.vm_area_free(self.who, area.vma);
    }

    /// `vma_start_write` and `vma_iter_store_new` of a VMA that is new.
    fn insert(&mut self, area: Area) {
        let at = self.areas.partition_point(|other| other.end <= area.start);
        self.areas.insert(at, area);
        self.space.vma_mark_attached(self.who, area.vma);
        self.store();
    }

    /// The entries that have an address in the range.
    fn within(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.areas.partition_point(|area| area.end <= range.start);
        let end = self.areas.partition_point(|area| area.start < range.end);
        first..end
    }

    /// `__split_vma`. Returns where the upper part is.
    fn split(&mut self, at: usize, addr: usize, new_below: bool) -> usize {
        let Area {
            vma,
            start,
            end,
            kind,
        } = self.areas[at];
        let (rest, new) = if new_below {
            (addr..end, start..addr)
        } else {
            (start..addr, addr..end)
        };
        let new_vma = self.space.vm_area_alloc(self.who, new.clone(), kind);
        self.start_write(vma);
        self.start_write(new_vma);
        self.set(at, rest, kind);
        self.insert(Area::new(new_vma, new, kind));
        at + 1
    }

    /// Whether two neighbouring VMAs can be merged, if the second gets this kind.
    fn can_merge(&self, left: Option<usize>, start: usize, kind: u8) -> bool {
        left.and_then(|at| self.areas.get(at))
            .is_some_and(|area| area.end == start && area.kind == kind)
    }

    fn can_merge_right(&self, right: usize, end: usize, kind: u8) -> bool {
        self.areas
            .get(right)
            .is_some_and(|area| area.start == end && area.kind == kind)
    }

    /// `mprotect_fixup` for each VMA in the range.
    fn protect(mut self, range: Range<usize>, kind: u8) {
        let mut pos = range.start;
        while pos < range.end {
            let Some(at) = self.within(&(pos..range.end)).next() else {
                break;
            };
            let middle = self.areas[at];
            let part = middle.start.max(pos)..middle.end.min(range.end);
            pos = part.end;
            if middle.kind != kind && !self.merge_existing(at, &part, kind) {
                self.modify(at, &part, kind);
            }
        }
        self.unlock();
    }

    /// `vma_modify` where nothing can be merged, and the change of the flags after it.
    fn modify(&mut self, mut at: usize, part: &Range<usize>, kind: u8) {
        if self.areas[at].start < part.start {
            at = self.split(at, part.start, true);
        }
        if self.areas[at].end > part.end {
            self.split(at, part.end, false);
        }
        let area = self.areas[at];
        self.start_write(area.vma);
        self.set(at, area.range(), kind);
    }

    /// `vma_merge_existing_range`.
    fn merge_existing(&mut self, at: usize, part: &Range<usize>, kind: u8) -> bool {
        let middle = self.areas[at];
        let left_side = part.start == middle.start;
        let right_side = part.end == middle.end;
        let merge_left = left_side && self.can_merge(at.checked_sub(1), part.start, kind);
        let merge_right = right_side && self.can_merge_right(at + 1, part.end, kind);
        if !merge_left && !merge_right {
            return false;
        }

        self.start_write(middle.vma);
        if merge_right {
            self.start_write(self.areas[at + 1].vma);
        }
        if merge_left {
            self.start_write(self.areas[at - 1].vma);
        }

        // commit_merge()
        let mut removed = Vec::new();
        if merge_left {
            let end = if merge_right {
                self.areas[at + 1].end
            } else {
                part.end
            };
            self.set(at - 1, self.areas[at - 1].start..end, kind);
            if right_side {
                removed.extend(self.areas.drain(at..=at + usize::from(merge_right)));
            } else {
                self.set(at, part.end..middle.end, middle.kind);
            }
        } else {
            if !left_side {
                self.set(at, middle.start..part.start, middle.kind);
            }
            self.set(at + 1, part.start..self.areas[at + 1].end, kind);
            if left_side {
                removed.push(self.areas.remove(at));
            }
        }
        self.store();

        // vma_complete()
        for area in removed {
            self.detach_and_free(area);
        }
        true
    }

    /// `vms_gather_munmap_vmas`. What is returned is still in the tree, but not in `areas`.
    fn gather(&mut self, range: &Range<usize>) -> Vec<Area> {
        let at = self.within(range).start;
        if self
            .areas
            .get(at)
            .is_some_and(|area| area.start < range.start && area.end > range.start)
        {
            self.split(at, range.start, true);
        }

        let mut detached = Vec::new();
        let mut at = self.within(range).start;
        while self
            .areas
            .get(at)
            .is_some_and(|area| area.start < range.end)
        {
            if self.areas[at].end > range.end {
                self.split(at, range.end, false);
            }
            let area = self.areas[at];
            self.start_write(area.vma);
            self.detach(area.vma);
            detached.push(area);
            at += 1;
        }
        self.areas.retain(|area| !detached.contains(area));
        detached
    }

    /// `do_vmi_align_munmap`, of the system call.
    fn unmap(mut self, range: Range<usize>) {
        let detached = self.gather(&range);
        if detached.is_empty() {
            return self.unlock();
        }

        self.store();
        self.space.mmap_write_downgrade(self.who, &self.areas);
        for area in detached {
            self.space.vm_area_free(self.who, area.vma);
        }
        self.space.mmap_read_unlock(self.who);
    }

    /// `__mmap_region`.
    fn map(mut self, range: Range<usize>, kind: u8) {
        let detached = self.gather(&range);

        let next = self.areas.partition_point(|area| area.end <= range.start);
        let merge_left = self.can_merge(next.checked_sub(1), range.start, kind);
        let merge_right = self.can_merge_right(next, range.end, kind);
        if merge_left || merge_right {
            // vma_expand()
            let target = if merge_left { next - 1 } else { next };
            self.start_write(self.areas[target].vma);
            let removed = (merge_left && merge_right).then(|| self.areas[next]);
            if let Some(removed) = removed {
                self.start_write(removed.vma);
                self.areas.remove(next);
            }
            let end = removed.map_or(range.end, |removed| removed.end);
            let old = self.areas[target];
            self.set(target, old.start.min(range.start)..old.end.max(end), kind);
            self.store();
            if let Some(removed) = removed {
                self.detach_and_free(removed);
            }
        } else {
            let vma = self.space.vm_area_alloc(self.who, range.clone(), kind);
            self.start_write(vma);
            self.insert(Area::new(vma, range, kind));
        }

        // vms_complete_munmap_vmas()
        for area in detached {
            self.space.vm_area_free(self.who, area.vma);
        }
        self.unlock();
    }

    /// `move_vma`, to where there are no neighbours.
    fn move_vma(mut self, from: usize, to: usize) {
        let Some(area) = self.areas.iter().copied().find(|area| area.start == from) else {
            return self.unlock();
        };
        let target = to..to + area.range().len();
        if !self.within(&target).is_empty() {
            return self.unlock();
        }

        self.start_write(area.vma);
        let vma = self
            .space
            .vm_area_alloc(self.who, target.clone(), area.kind);
        self.start_write(vma);
        self.insert(Area::new(vma, target, area.kind));

        // unmap_source_vma()
        let detached = self.gather(&area.range());
        self.store();
        for area in detached {
            self.space.vm_area_free(self.who, area.vma);
        }
        self.unlock();
    }

    /// `expand_downwards`, from a page fault.
    fn grow(mut self, start: usize, to: usize) {
        if let Some(at) = self.areas.iter().position(|area| area.start == start) {
            let area = self.areas[at];
            self.start_write(area.vma);
            self.set(at, to..area.end, area.kind);
            self.store();
        }
        self.space.mmap_write_downgrade(self.who, &self.areas);
        self.space.mmap_read_unlock(self.who);
    }

    fn fork(mut self) {
        for at in 0..self.areas.len() {
            self.start_write(self.areas[at].vma);
        }
        self.unlock();
    }
}
