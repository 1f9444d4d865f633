// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    entries::Entry,
    records::{Process, Resume, Session},
};
use kernel::{
    fs::proc::{
        page_walk::{
            show_smap_gate,
            show_smap_vma,
            MemSizeStats, //
        },
        PidFile, PidInode,
    },
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
};

/// An open `/proc/PID/smaps`.
pub(crate) struct Smaps(Process);

impl Operations for Smaps {
    type State = Resume;
    type Session = Session;
    type Cursor<'s> = Entry<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        resume: &mut Resume,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        Ok(resume.first(session, index)?.map(Entry::from))
    }

    fn next<'s>(
        &self,
        resume: &mut Resume,
        entry: Self::Cursor<'s>,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        entry.next(resume, index)
    }

    fn show<'s>(&self, resume: &mut Resume, m: &SeqFile, entry: &mut Self::Cursor<'s>) -> Result {
        let mut stats = MemSizeStats::new();

        entry.sum(resume, &mut stats)?;
        match entry {
            Entry::Vma(held) => show_smap_vma(m, held.vma(), &stats),
            Entry::Gate(gate) => show_smap_gate(m, gate),
            Entry::Nothing => {}
        }
        Ok(())
    }
}

impl PidFile for Smaps {
    fn open(inode: &PidInode) -> Result<(Self, Resume)> {
        Ok((Self(Process::open(inode)?), Resume::default()))
    }
}
