// SPDX-License-Identifier: GPL-2.0

//! The line of a VMA, in `/proc/PID/maps` and at the head of an entry of `/proc/PID/smaps`.

use crate::{
    abstractions::name::{offset, VmaFile, VmaName},
    address_space::{Next, Unlocked},
    last_file::LastFile,
    walk::StableVma,
};
use core::ops::Range;
use kernel::{
    mm::virt::{flags, vm_flags_t, VmaRef},
    seq_file::{self, SeqFile},
};

/// The column at which names begin, if what is before them is not longer.
const NAME: usize = 25 + 6 * core::mem::size_of::<usize>();

/// What a line says of a VMA before its file or name.
struct Fields {
    range: Range<usize>,
    columns: &'static Columns,
}

impl Fields {
    #[inline(always)]
    fn of(vma: &VmaRef) -> Self {
        Self {
            range: vma.start()..vma.end(),
            columns: columns(vma.flags()),
        }
    }

    /// `offset` is the offset in its file, if the VMA maps one.
    #[inline(always)]
    fn print(&self, line: &mut seq_file::Line<'_>, offset: Option<u64>) {
        line.put_range(self.range.clone());
        match offset {
            None => line.put(&self.columns.0),
            Some(0) => line.put(&self.columns.0[..INODE]),
            Some(offset) => {
                line.put(&self.columns.0[..OFFSET]);
                line.put_hexadecimal(offset, 8);
                line.put(b" ");
            }
        }
    }
}

/// Prints the line of a VMA, and unlocks it if it is locked: before printing if everything has been
/// copied, or stands in the line of `last_file`; otherwise after printing, because the VMA keeps
/// the file open and may own the name.
///
/// Mirrors `show_map_vma`.
#[inline(always)]
pub(crate) fn print<'s>(m: &SeqFile, next: Next<'s>, last_file: &mut LastFile) -> Unlocked<'s> {
    let at = match next {
        Next::Copied(copied) => {
            let vma = copied.vma();
            let fields = Fields {
                range: vma.range(),
                columns: columns(vma.flags()),
            };
            let offset = vma.offset();
            let mut line = m.line();
            fields.print(&mut line, offset);
            if offset.is_some() {
                last_file.same().print(&mut line, NAME);
            }
            line.finish();
            return copied.pass();
        }
        Next::At(at) => at,
    };
    let vma = at.vma();
    let fields = Fields::of(vma);

    let Some(file) = VmaFile::of(vma) else {
        return match VmaName::of(vma) {
            None => {
                let unlocked = at.unlock();
                let mut line = m.line();
                fields.print(&mut line, None);
                line.finish();
                unlocked
            }
            Some(name) => {
                let mut line = m.line();
                put_named(&mut line, fields, None, name);
                line.finish();
                at.unlock()
            }
        };
    };

    let offset = offset(vma);
    if let Some(name) = VmaName::of_memory(vma) {
        let mut line = m.line();
        put_named(&mut line, fields, Some((offset, file)), name);
        line.finish();
        return at.unlock();
    }

    let seen = at.seen();
    let mut line = m.line();
    if let Some(same) = last_file.again(file, seen, &line) {
        let unlocked = at.unlock();
        fields.print(&mut line, Some(offset));
        same.print(&mut line, NAME);
        line.finish();
        return unlocked;
    }
    fields.print(&mut line, Some(offset));
    line.out_of_line(|line| last_file.print(file, seen, line, NAME));
    line.finish();
    at.unlock()
}

/// Writes the line of a VMA that is locked, with its newline.
///
/// Mirrors `show_map_vma`.
pub(crate) fn put(line: &mut seq_file::Line<'_>, vma: &VmaRef) {
    let fields = Fields::of(vma);

    if let Some(file) = VmaFile::of(vma) {
        let offset = offset(vma);
        if let Some(name) = VmaName::of_memory(vma) {
            put_named(line, fields, Some((offset, file)), name);
        } else {
            fields.print(line, Some(offset));
            LastFile::default().print(file, None, line, NAME);
        }
    } else if let Some(name) = VmaName::of(vma) {
        put_named(line, fields, None, name);
    } else {
        fields.print(line, None);
    }
    line.put(b"\n");
}

/// Writes the line of a VMA with a name that is not the path of its file, but for the newline.
fn put_named(
    line: &mut seq_file::Line<'_>,
    fields: Fields,
    file: Option<(u64, VmaFile<'_>)>,
    name: VmaName<'_>,
) {
    fields.print(line, file.map(|(offset, _)| offset));
    if let Some((_, file)) = file {
        file.print_inode(line);
    }
    line.pad_to(NAME);
    name.print(line);
}

/// Writes the first line of `/proc/PID/smaps_rollup`, for the range that all VMAs are in.
pub(crate) fn put_rollup(line: &mut seq_file::Line<'_>, range: Range<usize>) {
    let fields = Fields {
        range,
        columns: columns(0),
    };

    fields.print(line, None);
    line.pad_to(NAME);
    line.put(b"[rollup]\n");
}

/// The columns of memory without a file.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Columns([u8; 23]);

/// The bits of the index are `VM_READ`, `VM_WRITE` and `VM_EXEC`, the lowest of the flags, and
/// above them `VM_MAYSHARE`.
static COLUMNS: [Columns; 16] = {
    let mut all = [Columns(*b" ---p 00000000 00:00 0 "); 16];
    let mut n = 0;
    while n < 16 {
        if n as vm_flags_t & flags::READ != 0 {
            all[n].0[1] = b'r';
        }
        if n as vm_flags_t & flags::WRITE != 0 {
            all[n].0[2] = b'w';
        }
        if n as vm_flags_t & flags::EXEC != 0 {
            all[n].0[3] = b'x';
        }
        if n & 8 != 0 {
            all[n].0[4] = b's';
        }
        n += 1;
    }
    all
};

/// Where the offset begins in these columns.
const OFFSET: usize = 6;

/// Where the device and inode begin in these columns.
const INODE: usize = 15;

/// Returns what follows the addresses of memory without a file.
#[inline]
fn columns(flags: vm_flags_t) -> &'static Columns {
    const LOW: vm_flags_t = flags::READ | flags::WRITE | flags::EXEC;
    const { assert!(LOW == 7) };

    let shared = (flags & flags::MAYSHARE) / (flags::MAYSHARE / 8);
    &COLUMNS[(flags & LOW | shared) & 15]
}
