// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    entries::Entry,
    lines::{print, State},
    records::{Process, Session},
};
use kernel::{
    fs::proc::{
        name::LastFile,
        page_walk::{
            show_smap_gate,
            show_smap_values,
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
    type State = State;
    type Session = Session;
    type Cursor<'s> = Entry<'s>;
    type Shown<'s> = Entry<'s>;

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

        let entry = entry.sum(&state.resume, &mut stats)?;
        match &entry {
            Entry::Vma(held) => {
                print(m, held, &mut state.last_file, |_| ());
                show_smap_values(m, held.vma(), &stats);
            }
            Entry::Gate(gate) => show_smap_gate(m, gate),
            Entry::Nothing => {}
        }
        Ok(entry)
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
