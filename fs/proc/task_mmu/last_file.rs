// SPDX-License-Identifier: GPL-2.0

//! What lines say of a file, taken from the line before.

use crate::abstractions::name::{PathSeq, VmaFile};
use kernel::{
    mm::vma_iter::RcuSection,
    seq_file::{Line, Place}, //
};

#[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST))]
use kernel::prelude::*;

/// What the last line about a file says of it, to be copied to the next line about it.
///
/// It holds no reference. What is kept of the file are addresses and numbers, which are compared
/// with those of another VMA.
///
/// If that VMA is locked, the dentry and the mount tell. Their addresses stand for the same file
/// only in the RCU section in which they were noted, because they are freed a grace period after
/// their last user is gone. Within the section a dentry may have been unlinked, which [`PathSeq`]
/// tells, and may have been given another inode, which has another number.
///
/// If that VMA is not locked, the address of the file tells, as long as `mm_lock_seq` is what it
/// was before the path was looked up. So no writer has come since, the VMA of that line still maps
/// the file, and the other one mapped it as well when the path was looked up. The new line was true
/// at that moment, whatever has become of the path. It is too late to lock the VMA when its line is
/// begun, so that the line before must be one that stays in the buffer.
#[derive(Default)]
pub(crate) struct LastFile {
    seen: Option<Seen>,
    /// Zero if the line may not stay in the buffer.
    file: usize,
    dentry: usize,
    mount: usize,
    inode: u64,
    /// Whether `seq` tells that the text is still right.
    has_seq: bool,
    seq: PathSeq,
    place: Place,
    /// The column at which this text begins in its line.
    column: u32,
    /// From there to the end of `MAJOR:MINOR INODE `.
    inode_end: u32,
    /// From there to the path.
    path: u32,
}

/// When a VMA was looked at: in which RCU section, and at which value of `mm_lock_seq`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) section: RcuSection,
    pub(crate) sequence: u32,
}

/// What a line says of a file, taken from the line before.
pub(crate) struct SameFile<'a>(&'a LastFile);

impl LastFile {
    /// Returns what the last line has said of `file`, if that stands in the buffer before the line
    /// that begins now and is still right. The VMA of `file` is locked since before `seen`.
    ///
    /// What is returned may be printed when the VMA has been unlocked.
    #[inline]
    pub(crate) fn again(
        &mut self,
        file: VmaFile<'_>,
        seen: Option<Seen>,
        line: &Line<'_>,
    ) -> Option<SameFile<'_>> {
        let path = file.path();
        let (dentry, mount) = path.address();
        let (before, now) = (self.seen?, seen?);

        let is_same = before.section == now.section
            && self.has_seq
            && self.dentry == dentry
            && self.mount == mount
            && self.inode == file.inode()
            && line.is_before(self.place)
            && !path.has_changed_since(&self.seq);
        if !is_same {
            return None;
        }
        self.seen = seen;
        self.file = file.address();
        Some(SameFile(self))
    }

    /// Returns whether a VMA that is not locked maps the file of the last line, if no writer comes
    /// meanwhile. `file` is the address of its file, and what was looked up since `now` is what is
    /// there.
    #[inline(always)]
    pub(crate) fn is_mapped(&self, file: usize, now: Seen) -> bool {
        self.file == file && self.seen == Some(now)
    }

    /// Returns what the last line has said of its file.
    #[inline(always)]
    pub(crate) fn same(&self) -> SameFile<'_> {
        SameFile(self)
    }

    /// Ends a line by what it says of `file`, whose VMA is locked since before `seen`: `MAJOR:MINOR
    /// INODE`, and the path at the column `column` or behind that.
    #[inline(never)]
    pub(crate) fn print(
        &mut self,
        file: VmaFile<'_>,
        seen: Option<Seen>,
        line: &mut Line<'_>,
        column: usize,
    ) {
        let path = file.path();
        let seq = path.seq();
        let start = line.column();
        file.print_inode(line);
        let inode_end = line.column();
        line.pad_to(column);
        let text = line.column();
        path.print(line, c"\n");

        let (dentry, mount) = path.address();
        *self = Self {
            seen,
            file: if line.is_first() { 0 } else { file.address() },
            has_seq: seq.is_some(),
            dentry,
            mount,
            inode: file.inode(),
            seq: seq.unwrap_or_default(),
            place: line.place(start),
            column: start as u32,
            inode_end: (inode_end - start) as u32,
            path: (text - start) as u32,
        };
    }
}

impl SameFile<'_> {
    /// Ends a line like [`LastFile::print`].
    #[inline(always)]
    pub(crate) fn print(self, line: &mut Line<'_>, column: usize) {
        let Self(last) = self;
        if last.column as usize == line.column() {
            line.put_copy_of(last.place, 0..last.place.len());
        } else {
            line.out_of_line(|line| {
                line.put_copy_of(last.place, 0..last.inode_end as usize);
                line.pad_to(column);
                line.put_copy_of(last.place, last.path as usize..last.place.len());
            });
        }
    }
}

#[cfg(all(CONFIG_PER_VMA_LOCK, CONFIG_PROC_TASK_MMU_RUST_KUNIT_TEST))]
#[kunit_tests(task_mmu_last_file)]
mod tests {
    use super::*;
    use kernel::{
        mm::{
            test_mm::{TestMm, PROT_READ},
            vma_iter::{VmaIter, VmaIterState},
        },
        page::PAGE_SIZE,
    };

    #[test]
    fn a_file_is_known_until_a_writer_comes() -> Result {
        let mm = TestMm::attach()?;
        mm.map(0x1000_0000..0x1000_0000 + PAGE_SIZE, PROT_READ)?;
        let mut state = VmaIterState::new();
        let mut at = |sequence| -> Result<Seen> {
            let found = VmaIter::new(&mm, &mut state).enter_rcu(0).next();
            let section = found.ok().ok_or(ENOENT)?.section();
            Ok(Seen { section, sequence })
        };
        let seen = at(4)?;
        let last = LastFile {
            seen: Some(seen),
            file: 0x1000,
            ..LastFile::default()
        };

        assert!(last.is_mapped(0x1000, seen));
        assert!(!last.is_mapped(
            0x1000,
            Seen {
                sequence: 6,
                ..seen
            }
        ));
        assert!(!last.is_mapped(0x1000, at(4)?));
        assert!(!last.is_mapped(0x2000, seen));
        assert!(!LastFile::default().is_mapped(0, seen));
        Ok(())
    }
}
