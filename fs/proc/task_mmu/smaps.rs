// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    abstractions::page_walk::smaps::{show_smap_gate, MemSizeStats, SmapVma},
    address_space::Held,
    entries::{Entry, Printed},
    last_file::LastFile,
    lines::print,
    records::{LastPosition, Process, Session},
};
use kernel::{
    fs::proc::{PidFile, PidInode},
    preempt,
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
};

/// An open `/proc/PID/smaps`.
pub(crate) struct Smaps(Process);

impl Operations for Smaps {
    type State = LastPosition;
    type Session = Session;
    type Cursor<'s> = Entry<'s>;
    type AfterShow<'s> = Printed<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        last_pos: &mut LastPosition,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        Ok(last_pos.first(session, index)?.map(Entry::from))
    }

    fn next<'s>(
        &self,
        last_pos: &mut LastPosition,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        shown.next(last_pos, index)
    }

    fn show<'s>(
        &self,
        last_pos: &mut LastPosition,
        m: &SeqFile,
        entry: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        let mut stats = MemSizeStats::new();

        match entry.sum(last_pos, &mut stats)? {
            Entry::Vma(held) => {
                let values = SmapVma::of(held.vma());
                // As in `maps`, the reader does not lose its CPU while it prints a line with the
                // VMA locked.
                let on_cpu = preempt::disable_unless_rt();
                // There is no RCU section from one entry to the next in which a file could be the
                // same.
                let released = print(m, held, &mut LastFile::default(), Held::release);
                drop(on_cpu);
                values.print(m, &stats);
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
    fn open(inode: &PidInode) -> Result<(Self, impl Init<LastPosition>)> {
        Ok((Self(Process::open(inode)?), LastPosition::default()))
    }
}
