// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps`

use crate::{
    query,
    records::{self, Process, Record, Resume, Session},
};
use kernel::{
    error::code::ENOIOCTLCMD,
    fs::proc::{
        query::PROCMAP_QUERY,
        show_map_gate,
        show_map_vma,
        PidFile,
        PidInode, //
    },
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
    uaccess::UserPtr,
};

/// An open `/proc/PID/maps`.
pub(crate) struct Maps(Process);

impl Operations for Maps {
    type State = Resume;
    type Session = Session;
    type Cursor<'s> = Record<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    #[inline]
    fn first<'s>(
        &self,
        resume: &mut Resume,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Record<'s>>> {
        resume.first(session, index)
    }

    #[inline]
    fn next<'s>(
        &self,
        resume: &mut Resume,
        record: Self::Cursor<'s>,
        index: &mut Index,
    ) -> Result<Option<Record<'s>>> {
        match record {
            Record::Vma(at) => resume.next(at, index),
            Record::Gate(_) => {
                records::end(index);
                Ok(None)
            }
        }
    }

    #[inline]
    fn show<'s>(&self, _resume: &mut Resume, m: &SeqFile, record: &mut Self::Cursor<'s>) -> Result {
        match record {
            Record::Vma(at) => show_map_vma(m, at.vma()),
            Record::Gate(gate) => show_map_gate(m, gate),
        }
        Ok(())
    }
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
