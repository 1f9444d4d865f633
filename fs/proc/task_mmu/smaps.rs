// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    address_space::{At, Held, Pinned},
    entries::{Entry, Printed},
    lines::{print, State},
    records::{Process, Session},
    sums::Sum,
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

/// The sum of an entry, and the file that the last line was about.
///
/// To look at a VMA can take long. The file that it maps is open meanwhile, but no other must be
/// because of the reader.
struct EntrySum<'a> {
    stats: MemSizeStats,
    last_file: &'a mut LastFile,
}

impl<'s> Sum<Pinned<'s>> for EntrySum<'_> {
    fn clear(&mut self) {
        Sum::<Pinned<'s>>::clear(&mut self.stats);
    }

    fn add_in_rcu(&mut self, at: &At<'s>) -> Option<usize> {
        self.stats.add_in_rcu(at)
    }

    #[inline]
    fn add(&mut self, held: &Held<'s>, pos: usize, may_stop: bool) -> Result<usize> {
        self.last_file.forget_unless_of(held.vma());
        self.stats.add(held, pos, may_stop)
    }
}

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
        let mut sum = EntrySum {
            stats: MemSizeStats::new(),
            last_file: &mut state.last_file,
        };

        match entry.sum(&state.resume, &mut sum)? {
            Entry::Vma(held) => {
                let values = SmapVma::of(held.vma());
                let released = print(m, held, sum.last_file, Held::release);
                values.show(m, &sum.stats);
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
