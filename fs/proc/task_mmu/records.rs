// SPDX-License-Identifier: GPL-2.0

//! What the files that have a record for each VMA have in common.

use crate::{
    address_space::{At, Next, Released, Unlocked},
    last_file::LastFile,
    position::Position,
    walk::{self, StableVma},
};
use kernel::{
    fs::proc::PidInode,
    mm::{
        vma_iter::{GateVma, VmaIter, VmaIterState},
        Mm, MmWithUser,
    },
    pid::Pid,
    prelude::*,
    seq_file::Index,
    sync::aref::ARef,
    task::Task,
};

/// The process that an open file is about.
pub(crate) struct Process {
    pid: ARef<Pid>,
    /// The address space that the process had when the file was opened. A process that calls
    /// `execve` leaves it, and the file ends when the address space has no other user.
    mm: Option<ARef<Mm>>,
}

impl Process {
    pub(crate) fn open(inode: &PidInode) -> Result<Self> {
        Ok(Self {
            mm: inode.mm_for_reading()?,
            pid: inode.pid().into(),
        })
    }

    pub(crate) fn mm(&self) -> Option<&Mm> {
        self.mm.as_deref()
    }

    /// Pins the process and its address space. Returns [`None`] if the address space has no user
    /// any more. Errors: `ESRCH` if the process has been reaped.
    #[inline]
    pub(crate) fn pin(&self) -> Result<Option<Session>> {
        let task = self.pid.task().ok_or(ESRCH)?;
        let mm = self.mm().and_then(|mm| mm.mmget_not_zero());

        Ok(mm.map(|mm| Session {
            iter: VmaIterState::new(),
            mm,
            task,
        }))
    }

    /// Begins a chunk of records.
    #[inline]
    pub(crate) fn begin(&self, index: Index) -> Result<Option<Session>> {
        match Position::from(index) {
            Position::End => Ok(None),
            _ => self.pin(),
        }
    }
}

/// The references to the process and its address space that are held while records are shown.
///
/// They are dropped in this order: the address space may be torn down before the task goes.
pub(crate) struct Session {
    iter: VmaIterState,
    mm: ARef<MmWithUser>,
    task: ARef<Task>,
}

impl Session {
    #[inline]
    pub(crate) fn iter(&mut self) -> VmaIter<'_> {
        VmaIter::new(&self.mm, &mut self.iter)
    }

    pub(crate) fn task(&self) -> &Task {
        &self.task
    }
}

/// What a record is about. A VMA is locked, or it is what a [`Next`] says.
pub(crate) enum Record<V> {
    Vma(V),
    Gate(GateVma),
}

impl<'s> From<Record<At<'s>>> for Record<Next<'s>> {
    #[inline]
    fn from(record: Record<At<'s>>) -> Self {
        match record {
            Record::Vma(at) => Self::Vma(Next::At(at)),
            Record::Gate(gate) => Self::Gate(gate),
        }
    }
}

/// The address from which the last record was looked up.
///
/// `seq_file` may find a record that it has no room for. The index has moved past that record then,
/// but the next chunk has to begin with it.
#[derive(Default)]
pub(crate) struct LastPosition(usize);

impl LastPosition {
    /// Finds the first record of a chunk for which `seq_file` has this index, and sets `index` to
    /// what follows it.
    #[inline]
    pub(crate) fn first<'s>(
        &mut self,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        let Session { iter, mm, .. } = session;
        let mut found = None;
        let begin = match Position::from(*index) {
            Position::START => Position::START,
            Position::Address(_) => Position::Address(self.0),
            position => position,
        };
        if let Position::Address(address) = begin {
            found = walk::first(VmaIter::new(mm, iter), address)?;
            self.0 = address;
        }

        Ok(arrive(found, mm, index))
    }

    /// Finds the record after the one that was unlocked, without locking it if that is possible,
    /// and sets `index` to what follows it.
    ///
    /// All records before this have been shown. The next read of this file continues from here,
    /// even if the walk fails. In that case only the index has to change.
    // Runs for each line, see `walk::next()`.
    #[inline(always)]
    pub(crate) fn next_or_copy<'s>(
        &mut self,
        unlocked: Unlocked<'s>,
        known: &LastFile,
        index: &mut Index,
    ) -> Result<Option<Record<Next<'s>>>> {
        let mm = unlocked.mm();
        self.0 = unlocked.pos();

        // The index is the end of the VMA, and the next one ends above it.
        let next = walk::next_or_copy(unlocked, known).inspect_err(|_| *index += 1)?;
        Ok(arrive(next, mm, index))
    }

    /// Finds the record after the one that was released, like [`LastPosition::next_or_copy`], and
    /// locks it.
    #[inline]
    pub(crate) fn next_after_sleep<'s>(
        &mut self,
        released: Released<'s>,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        let mm = released.mm();
        self.0 = released.pos();

        let at = walk::next_after_sleep(released).inspect_err(|_| *index += 1)?;
        Ok(arrive(at, mm, index))
    }
}

/// Returns the record that was found: a VMA, or else the gate VMA. Sets `index` to what follows it.
#[inline(always)]
fn arrive<V: StableVma>(found: Option<V>, mm: &MmWithUser, index: &mut Index) -> Option<Record<V>> {
    match found {
        Some(vma) => {
            *index = Position::Address(vma.range().end).into();
            Some(Record::Vma(vma))
        }
        None => after_last_vma(mm, index),
    }
}

/// Returns the record after the last VMA, if there is one, and sets `index` to what follows it.
#[inline]
pub(crate) fn after_last_vma<V>(mm: &MmWithUser, index: &mut Index) -> Option<Record<V>> {
    *index = Position::Gate.into();
    mm.gate_vma().map(Record::Gate)
}

/// Sets `index` to the end of the file, which is after the gate VMA.
#[inline]
pub(crate) fn end(index: &mut Index) {
    *index = Position::End.into();
}
