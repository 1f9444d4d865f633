// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/maps`

use crate::{
    address_space::At,
    position::Position,
    walk::{self, StableVma},
};
use kernel::{
    error::code::ENOIOCTLCMD,
    fs::proc::{
        procmap_query,
        show_map_gate,
        show_map_vma,
        PidFile,
        PidInode,
        PROCMAP_QUERY, //
    },
    mm::{
        vma_iter::{GateVma, VmaIter, VmaIterState},
        Mm, MmWithUser,
    },
    pid::Pid,
    prelude::*,
    seq_file::{Index, Operations, SeqFile},
    sync::aref::ARef,
    task::Task,
};

/// An open `/proc/PID/maps`.
pub(crate) struct Maps {
    pid: ARef<Pid>,
    /// The address space that the process had when the file was opened. A process that calls
    /// `execve` leaves it, and the file is at its end when nobody else uses it.
    mm: Option<ARef<Mm>>,
}

/// What keeps the process and its address space in place while VMAs are given out.
///
/// They are dropped in this order: the address space may be torn down before the task goes.
pub(crate) struct Session {
    iter: VmaIterState,
    mm: ARef<MmWithUser>,
    _task: ARef<Task>,
}

/// What a line is about.
pub(crate) enum Cursor<'s> {
    Vma(At<'s>),
    Gate(GateVma),
}

/// The address from which the last record was looked up.
///
/// `seq_file` may find a record that it has no room for. The index has moved past that record then,
/// but the next chunk has to begin with it.
#[derive(Default)]
pub(crate) struct Resume(usize);

impl Resume {
    /// Returns where a chunk begins for which `seq_file` has this index.
    fn from(&self, index: Index) -> Position {
        match Position::from(index) {
            Position::START => Position::START,
            Position::Address(_) => Position::Address(self.0),
            position => position,
        }
    }
}

/// Returns the record that was found: a VMA, or else the gate VMA. Sets `index` to what follows it.
#[inline]
fn arrive<'s>(at: Option<At<'s>>, mm: &'s MmWithUser, index: &mut Index) -> Option<Cursor<'s>> {
    match at {
        Some(at) => {
            *index = Position::Address(at.range().end).into();
            Some(Cursor::Vma(at))
        }
        None => {
            *index = Position::Gate.into();
            mm.gate_vma().map(Cursor::Gate)
        }
    }
}

impl Operations for Maps {
    type State = Resume;
    type Session = Session;
    type Cursor<'s> = Cursor<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        if Position::from(index) == Position::End {
            return Ok(None);
        }

        let task = self.pid.task().ok_or(ESRCH)?;
        let mm = self.mm.as_ref().and_then(|mm| mm.mmget_not_zero());

        Ok(mm.map(|mm| Session {
            iter: VmaIterState::new(),
            mm,
            _task: task,
        }))
    }

    #[inline]
    fn first<'s>(
        &self,
        resume: &mut Resume,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Cursor<'s>>> {
        let Session { iter, mm, .. } = session;
        let mut found = None;
        if let Position::Address(address) = resume.from(*index) {
            found = walk::first(VmaIter::new(mm, iter), address)?;
            resume.0 = address;
        }

        Ok(arrive(found, mm, index))
    }

    #[inline]
    fn next<'s>(
        &self,
        resume: &mut Resume,
        cursor: Self::Cursor<'s>,
        index: &mut Index,
    ) -> Result<Option<Self::Cursor<'s>>> {
        let Cursor::Vma(at) = cursor else {
            *index = Position::End.into();
            return Ok(None);
        };

        // All records before this have been shown. Whoever goes on with this file goes on from
        // here, even if the walk fails: the index only has to change then.
        resume.0 = at.range().end;
        *index += 1;

        let mm = at.mm();
        Ok(arrive(walk::next(at)?, mm, index))
    }

    #[inline]
    fn show(m: &SeqFile, cursor: &Cursor<'_>) -> Result {
        match cursor {
            Cursor::Vma(at) => show_map_vma(m, at.vma()),
            Cursor::Gate(gate) => show_map_gate(m, gate),
        }
        Ok(())
    }
}

impl PidFile for Maps {
    fn open(inode: &PidInode) -> Result<Self> {
        Ok(Self {
            mm: inode.mm_for_reading()?,
            pid: inode.pid().into(),
        })
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result<c_long> {
        match cmd {
            PROCMAP_QUERY => procmap_query(self.mm.as_deref(), arg).map(|()| 0),
            _ => Err(ENOIOCTLCMD),
        }
    }
}
