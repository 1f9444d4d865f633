// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    address_space::Held,
    entries::{Entry, Printed},
    lines::print,
    records::{Process, Resume, Session},
};
use kernel::{
    fs::proc::{
        name::LastFile,
        page_walk::{
            show_smap_gate,
            MemSizeStats,
            SmapVma, //
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
    type Shown<'s> = Printed<'s>;

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
        shown: Self::Shown<'s>,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        shown.next(resume, index)
    }

    fn show<'s>(
        &self,
        resume: &mut Resume,
        m: &SeqFile,
        entry: Self::Cursor<'s>,
    ) -> Result<Self::Shown<'s>> {
        let mut stats = MemSizeStats::new();

        match entry.sum(resume, &mut stats)? {
            Entry::Vma(held) => {
                let values = SmapVma::of(held.vma());
                // There is no RCU section from one entry to the next in which a file could be the
                // same.
                let released = print(m, held, &mut LastFile::default(), Held::release);
                values.show(m, &stats);
                Ok(Printed::Vma(released))
            }
            entry => {
                if let Entry::Gate(gate) = &entry {
                    show_smap_gate(m, gate);
                }
                Ok(entry.into())
            }
        }
    }
}

impl PidFile for Smaps {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<Resume>)> {
        Ok((Self(Process::open(inode)?), Resume::default()))
    }
}
