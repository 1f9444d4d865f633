// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/smaps_rollup`

use crate::{
    abstractions::page_walk::smaps::MemSizeStats,
    lines,
    records::{Process, Session},
    sums,
};
use core::ops::Range;
use kernel::{
    fs::proc::{PidFile, PidInode},
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
};

/// An open `/proc/PID/smaps_rollup`.
pub(crate) struct Rollup(Process);

/// The sums over all VMAs, and the range that they are in.
pub(crate) struct Totals {
    range: Range<usize>,
    stats: MemSizeStats,
}

impl Operations for Rollup {
    type State = ();
    type Session = Session;
    type Cursor<'s> = Totals;
    type AfterShow<'s> = ();

    fn start(&self, index: Index) -> Result<Option<Session>> {
        match index {
            0 => self.0.pin()?.ok_or(ESRCH).map(Some),
            _ => Ok(None),
        }
    }

    fn first<'s>(
        &self,
        _state: &mut (),
        session: &'s mut Session,
        _index: &mut Index,
    ) -> Result<Option<Totals>> {
        let mut stats = MemSizeStats::new();
        let range = sums::sum_all(session.iter(), &mut stats)?;

        Ok(Some(Totals { range, stats }))
    }

    fn next<'s>(
        &self,
        _state: &mut (),
        _shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>> {
        *index += 1;
        Ok(None)
    }

    fn show<'s>(
        &self,
        _state: &mut (),
        m: &SeqFile,
        mut totals: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        let mut line = m.line();

        lines::put_rollup(&mut line, totals.range);
        totals.stats.put(&mut line, true);
        line.end_without_newline();
        Ok(())
    }
}

impl PidFile for Rollup {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<()>)> {
        let process = Process::open(inode)?;
        process.mm().ok_or(ESRCH)?;

        Ok((Self(process), ()))
    }
}
