// SPDX-License-Identifier: GPL-2.0

//! What lines say of a file, taken from the line before.

use crate::abstractions::name::{PathSeq, VmaFile};
use kernel::{
    mm::vma_iter::RcuSection,
    seq_file::{Line, Place}, //
};

/// What the last line about a file says of it, to be copied to the next line about it.
///
/// It holds no reference. What is kept of the file are addresses and numbers, which are compared
/// with those of another VMA while that is locked. They stand for the same file only in the RCU
/// section in which they were noted, because a dentry and a mount are freed a grace period after
/// their last user is gone. Within the section a dentry may have been unlinked, which [`PathSeq`]
/// tells, and may have been given another inode, which has another number.
#[derive(Default)]
pub(crate) struct LastFile {
    section: Option<RcuSection>,
    dentry: usize,
    mount: usize,
    inode: u64,
    seq: PathSeq,
    place: Place,
    /// The column at which this text begins in its line.
    column: u32,
    /// From there to the end of `MAJOR:MINOR INODE `.
    inode_end: u32,
    /// From there to the path.
    path: u32,
}

/// What a line says of a file, taken from the line before.
pub(crate) struct SameFile<'a>(&'a LastFile);

impl LastFile {
    /// Returns what the last line has said of `file`, if that stands in the buffer before the line
    /// that begins now and is still right. The VMA of `file` is locked in `section`.
    ///
    /// What is returned may be printed when the VMA has been unlocked.
    #[inline]
    pub(crate) fn again(
        &self,
        file: VmaFile<'_>,
        section: Option<RcuSection>,
        line: &Line<'_>,
    ) -> Option<SameFile<'_>> {
        let path = file.path();
        let (dentry, mount) = path.address();

        let is_same = section.is_some()
            && self.section == section
            && self.dentry == dentry
            && self.mount == mount
            && self.inode == file.inode()
            && line.is_before(self.place)
            && !path.has_changed_since(&self.seq);
        is_same.then_some(SameFile(self))
    }

    /// Ends a line by what it says of `file`, whose VMA is locked in `section`: `MAJOR:MINOR
    /// INODE`, and the path at the column `column` or behind that.
    #[inline(never)]
    pub(crate) fn print(
        &mut self,
        file: VmaFile<'_>,
        section: Option<RcuSection>,
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
            section: section.filter(|_| seq.is_some()),
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
