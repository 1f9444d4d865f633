// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps`

use crate::{
    abstractions::{query::PROCMAP_QUERY, show_map_gate},
    address_space::{Next, Unlocked},
    last_file::LastFile,
    lines::print,
    query,
    records::{self, LastPosition, Process, Record, Session},
};
use kernel::{
    error::code::ENOIOCTLCMD,
    fs::proc::{PidFile, PidInode},
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
    uaccess::UserPtr,
};

/// An open `/proc/PID/maps`.
pub(crate) struct Maps(Process);

/// What is kept from one line to the next.
#[derive(Default)]
pub(crate) struct State {
    last_pos: LastPosition,
    /// It is forgotten at the end of each chunk.
    last_file: LastFile,
}

impl Operations for Maps {
    type State = State;
    type Session = Session;
    type Cursor<'s> = Record<Next<'s>>;
    /// There is nothing after the gate VMA.
    type AfterShow<'s> = Option<Unlocked<'s>>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    #[inline]
    fn first<'s>(
        &self,
        state: &mut State,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>> {
        let first = state.last_pos.first(session, index)?;
        Ok(first.map(Record::from))
    }

    #[inline]
    fn next<'s>(
        &self,
        state: &mut State,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>> {
        match shown {
            Some(unlocked) => state
                .last_pos
                .next_or_copy(unlocked, &state.last_file, index),
            None => {
                records::end(index);
                Ok(None)
            }
        }
    }

    #[inline]
    fn show<'s>(
        &self,
        state: &mut State,
        m: &SeqFile,
        record: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        match record {
            Record::Vma(next) => Ok(Some(print(m, next, &mut state.last_file))),
            Record::Gate(gate) => {
                show_map_gate(m, &gate);
                Ok(None)
            }
        }
    }

    #[inline]
    fn stop(&self, state: &mut State) {
        state.last_file = LastFile::default();
    }
}

impl PidFile for Maps {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<State>)> {
        Ok((Self(Process::open(inode)?), State::default()))
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<c_long> {
        match cmd {
            PROCMAP_QUERY => query::answer(self.0.mm(), UserPtr::from_addr(arg)).map(|()| 0),
            _ => Err(ENOIOCTLCMD),
        }
    }
}
