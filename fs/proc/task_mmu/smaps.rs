// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    address_space::Held,
    entries::{Entry, Printed},
    lines::{print, State},
    records::{Process, Session},
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
    type State = State;
    type Session = Session;
    type Cursor<'s> = Entry<'s>;
    type Shown<'s> = Printed<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        state: &mut State,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        Ok(state.resume.first(session, index)?.map(Entry::from))
    }

    fn next<'s>(
        &self,
        state: &mut State,
        shown: Self::Shown<'s>,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        shown.next(&mut state.resume, index)
    }

    fn show<'s>(
        &self,
        state: &mut State,
        m: &SeqFile,
        entry: Self::Cursor<'s>,
    ) -> Result<Self::Shown<'s>> {
        let mut stats = MemSizeStats::new();

        match entry.sum(&state.resume, &mut stats)? {
            Entry::Vma(held) => {
                let values = SmapVma::of(held.vma());
                let released = print(m, held, &mut state.last_file, Held::release);
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

    #[inline]
    fn stop(&self, state: &mut State) {
        state.last_file = LastFile::default();
    }
}

impl PidFile for Smaps {
    fn open(inode: &PidInode) -> Result<(Self, State)> {
        Ok((Self(Process::open(inode)?), State::default()))
    }
}
