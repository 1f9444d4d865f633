// SPDX-License-Identifier: GPL-2.0

//! The line of a VMA, in `/proc/PID/maps` and at the head of an entry of `/proc/PID/smaps`.

use crate::records::Resume;
use core::ops::Range;
use kernel::{
    fs::proc::name::{offset, LastFile, VmaFile, VmaName},
    mm::virt::{flags, vm_flags_t, VmaRef},
    seq_file::{self, SeqFile},
};

/// What is kept from one line to the next.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) resume: Resume,
    /// It is let go at the end of each chunk.
    pub(crate) last_file: LastFile,
}

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

    /// `offset` is that in a file, if it maps one.
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

/// Prints the line of the VMA that `at` has locked, and lets it go by `leave` as soon as it is not
/// needed any more.
///
/// That is when all numbers have been copied, and the reader has a reference to the file, which it
/// keeps for the next lines. A name that is part of the VMA is printed while that is locked.
///
/// Mirrors `show_map_vma`.
#[inline(always)]
pub(crate) fn print<V: AsRef<VmaRef>, T>(
    m: &SeqFile,
    at: V,
    last_file: &mut LastFile,
    leave: impl FnOnce(V) -> T,
) -> T {
    let vma = at.as_ref();

    match VmaFile::of(vma) {
        None => match VmaName::of(vma) {
            None => {
                let fields = Fields::of(vma);
                let left = leave(at);
                let mut line = m.line();
                fields.print(&mut line, None);
                line.finish();
                left
            }
            Some(name) => {
                print_named(m, Fields::of(vma), None, name);
                leave(at)
            }
        },
        Some(file) => {
            let fields = Fields::of(vma);
            let offset = offset(vma);
            match VmaName::of_memory(vma) {
                None => {
                    let file = last_file.keep(file);
                    let left = leave(at);
                    let mut line = m.line();
                    fields.print(&mut line, Some(offset));
                    file.print(&mut line, NAME);
                    line.finish();
                    left
                }
                Some(name) => {
                    print_named(m, fields, Some((offset, file)), name);
                    leave(at)
                }
            }
        }
    }
}

/// Prints the line of a VMA with a name that is not the path of its file.
fn print_named(m: &SeqFile, fields: Fields, file: Option<(u64, VmaFile<'_>)>, name: VmaName<'_>) {
    let mut line = m.line();

    fields.print(&mut line, file.map(|(offset, _)| offset));
    if let Some((_, file)) = file {
        file.print_inode(&mut line);
    }
    line.pad_to(NAME);
    name.print(&mut line);
    line.finish();
}

/// The columns of memory without a file.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Columns([u8; 23]);

/// `VM_READ`, `VM_WRITE` and `VM_EXEC`, the lowest of the flags, and above them `VM_MAYSHARE` say
/// which.
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

/// Where the offset begins in these.
const OFFSET: usize = 6;

/// Where the device and inode begin in these.
const INODE: usize = 15;

/// Returns what follows the addresses of memory without a file.
#[inline]
fn columns(flags: vm_flags_t) -> &'static Columns {
    const LOW: vm_flags_t = flags::READ | flags::WRITE | flags::EXEC;
    const { assert!(LOW == 7) };

    let shared = (flags & flags::MAYSHARE) / (flags::MAYSHARE / 8);
    &COLUMNS[(flags & LOW | shared) & 15]
}
