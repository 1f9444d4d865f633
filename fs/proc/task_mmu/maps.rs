// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps`

use crate::{
    query,
    records::{self, Process, Record, Resume, Session},
};
use kernel::{
    error::code::ENOIOCTLCMD,
    fs::proc::{
        name::{offset, FileColumns, VmaFile, VmaName},
        query::PROCMAP_QUERY,
        show_map_gate,
        PidFile,
        PidInode, //
    },
    mm::virt::{flags, vm_flags_t, VmaRef},
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
    uaccess::UserPtr,
};

/// An open `/proc/PID/maps`.
pub(crate) struct Maps(Process);

/// What is held while a chunk of lines is printed.
pub(crate) struct Chunk {
    session: Session,
    /// The end of the last line about a file.
    last_file: Option<FileColumns>,
}

/// What a line is about.
pub(crate) struct Line<'s> {
    record: Record<'s>,
    last_file: &'s mut Option<FileColumns>,
}

impl Operations for Maps {
    type State = Resume;
    type Session = Chunk;
    type Cursor<'s> = Line<'s>;

    fn start(&self, index: Index) -> Result<Option<Chunk>> {
        let session = self.0.begin(index)?;
        Ok(session.map(|session| Chunk {
            session,
            last_file: None,
        }))
    }

    #[inline]
    fn first<'s>(
        &self,
        resume: &mut Resume,
        chunk: &'s mut Chunk,
        index: &mut Index,
    ) -> Result<Option<Line<'s>>> {
        let Chunk { session, last_file } = chunk;
        let record = resume.first(session, index)?;
        Ok(record.map(|record| Line { record, last_file }))
    }

    #[inline]
    fn next<'s>(
        &self,
        resume: &mut Resume,
        line: Self::Cursor<'s>,
        index: &mut Index,
    ) -> Result<Option<Line<'s>>> {
        let Line { record, last_file } = line;
        match record {
            Record::Vma(at) => {
                let record = resume.next(at, index)?;
                Ok(record.map(|record| Line { record, last_file }))
            }
            Record::Gate(_) => {
                records::end(index);
                Ok(None)
            }
        }
    }

    #[inline]
    fn show<'s>(&self, _resume: &mut Resume, m: &SeqFile, line: &mut Self::Cursor<'s>) -> Result {
        match &line.record {
            Record::Vma(at) => print(m, at.vma(), line.last_file),
            Record::Gate(gate) => show_map_gate(m, gate),
        }
        Ok(())
    }
}

/// The column at which names begin, if what is before them is not longer.
const NAME: usize = 25 + 6 * core::mem::size_of::<usize>();

/// Prints the line of a VMA.
///
/// Mirrors `show_map_vma`.
#[inline(always)]
fn print(m: &SeqFile, vma: &VmaRef, last_file: &mut Option<FileColumns>) {
    let mut line = m.line();

    line.put_range(vma.start()..vma.end());
    let columns = columns(vma.flags());

    match VmaFile::of(vma) {
        Some(file) => {
            match offset(vma) {
                0 => line.put(&columns[..INODE]),
                offset => {
                    line.put(&columns[..OFFSET]);
                    line.put_hexadecimal(offset, 8);
                    line.put(b" ");
                }
            }
            match VmaName::of_memory(vma) {
                None => FileColumns::print(last_file, file, &mut line, NAME),
                Some(name) => {
                    file.print_inode(&mut line);
                    line.pad_to(NAME);
                    name.print(&mut line);
                }
            }
        }
        None => {
            line.put(columns);
            if let Some(name) = VmaName::of(vma) {
                line.pad_to(NAME);
                name.print(&mut line);
            }
        }
    }
    line.finish();
}

/// The columns of memory without a file. `VM_READ`, `VM_WRITE` and `VM_EXEC`, the lowest of the
/// flags, and above them `VM_MAYSHARE` say which.
static COLUMNS: [[u8; 23]; 16] = {
    let mut all = [*b" ---p 00000000 00:00 0 "; 16];
    let mut n = 0;
    while n < 16 {
        if n as vm_flags_t & flags::READ != 0 {
            all[n][1] = b'r';
        }
        if n as vm_flags_t & flags::WRITE != 0 {
            all[n][2] = b'w';
        }
        if n as vm_flags_t & flags::EXEC != 0 {
            all[n][3] = b'x';
        }
        if n & 8 != 0 {
            all[n][4] = b's';
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
fn columns(flags: vm_flags_t) -> &'static [u8; 23] {
    const LOW: vm_flags_t = flags::READ | flags::WRITE | flags::EXEC;
    const { assert!(LOW == 7) };

    let shared = (flags & flags::MAYSHARE) / (flags::MAYSHARE / 8);
    &COLUMNS[(flags & LOW | shared) & 15]
}

impl PidFile for Maps {
    fn open(inode: &PidInode) -> Result<(Self, Resume)> {
        Ok((Self(Process::open(inode)?), Resume::default()))
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<c_long> {
        match cmd {
            PROCMAP_QUERY => query::answer(self.0.mm(), UserPtr::from_addr(arg)).map(|()| 0),
            _ => Err(ENOIOCTLCMD),
        }
    }
}
