// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/numa_maps`

use crate::{
    abstractions::page_walk::numa::{show_numa_map_values, Mempolicy, NumaMaps},
    entries::{Entry, Printed},
    records::{LastPosition, Process, Session},
};
use kernel::{
    fs::proc::{PidFile, PidInode},
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
};

/// An open `/proc/PID/numa_maps`.
pub(crate) struct Numa(Process);

/// What is kept from one chunk to the next.
pub(crate) struct State {
    last_pos: LastPosition,
    /// They are large where there can be many nodes, too large for the stack.
    stats: NumaMaps,
}

/// A VMA, and the policy for those that have none of their own.
pub(crate) struct Cursor<'s> {
    entry: Entry<'s>,
    mempolicy: Mempolicy,
}

impl Operations for Numa {
    type State = State;
    type Session = Session;
    type Cursor<'s> = Cursor<'s>;
    type AfterShow<'s> = (Printed<'s>, Mempolicy);

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        state: &mut State,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Cursor<'s>>> {
        let mempolicy = Mempolicy::of(session.task());
        let record = state.last_pos.first(session, index)?;

        Ok(record.map(|record| Cursor {
            entry: record.into(),
            mempolicy,
        }))
    }

    fn next<'s>(
        &self,
        state: &mut State,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Cursor<'s>>> {
        let (printed, mempolicy) = shown;

        let next = printed.next(&mut state.last_pos, index)?;
        Ok(next.map(|entry| Cursor { entry, mempolicy }))
    }

    fn show<'s>(
        &self,
        state: &mut State,
        m: &SeqFile,
        cursor: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        let State { last_pos, stats } = state;
        let Cursor { entry, mempolicy } = cursor;

        let entry = entry.sum(last_pos, stats)?;
        // The gate VMA has neither pages nor a policy.
        if let Entry::Vma(held) = &entry {
            let mut line = m.line();
            line.put_hexadecimal(held.vma().start() as u64, 8);
            line.put(b" ");
            line.end_without_newline();
            show_numa_map_values(m, held.vma(), stats, &mempolicy);
        }
        Ok((entry.into(), mempolicy))
    }
}

impl PidFile for Numa {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<State>)> {
        let state = init!(State {
            last_pos: LastPosition::default(),
            stats <- pin_init::init_zeroed(),
        });

        Ok((Self(Process::open(inode)?), state))
    }
}
