// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps`

use crate::{
    abstractions::page_walk::smaps::{show_smap_gate, MemSizeStats, SmapVma},
    address_space::At,
    entries::{sum_up, Printed},
    lines,
    records::{LastPosition, Process, Record, Session},
};
use kernel::{
    fs::proc::{PidFile, PidInode},
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
};

/// An open `/proc/PID/smaps`.
pub(crate) struct Smaps(Process);

impl Operations for Smaps {
    type State = LastPosition;
    type Session = Session;
    type Cursor<'s> = Record<At<'s>>;
    type AfterShow<'s> = Printed<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        last_pos: &mut LastPosition,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        last_pos.first(session, index)
    }

    fn next<'s>(
        &self,
        last_pos: &mut LastPosition,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        shown.next(last_pos, index)
    }

    fn show<'s>(
        &self,
        _last_pos: &mut LastPosition,
        m: &SeqFile,
        record: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        let at = match record {
            Record::Vma(at) => at,
            Record::Gate(gate) => {
                show_smap_gate(m, &gate);
                return Ok(Printed::Last);
            }
        };
        let mut stats = MemSizeStats::new();
        let mut line = m.line();

        lines::put(&mut line, at.vma());
        let values = SmapVma::of(at.vma());
        let Some(printed) = sum_up(at, &mut stats)? else {
            return Ok(Printed::Last);
        };
        values.put(&mut line, &mut stats);
        line.finish();
        Ok(printed)
    }
}

impl PidFile for Smaps {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<LastPosition>)> {
        Ok((Self(Process::open(inode)?), LastPosition::default()))
    }
}
