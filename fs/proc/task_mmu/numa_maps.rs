// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/numa_maps`

use crate::{
    abstractions::{
        name::{kernel_page_size, Initial, VmaFile},
        page_walk::numa::{NumaMaps, Policy},
    },
    address_space::At,
    entries::{sum_up, Printed},
    records::{LastPosition, Process, Record, Session},
};
use kernel::{
    fs::proc::{PidFile, PidInode},
    mm::virt::{flags, VmaRef},
    prelude::*,
    seq_file::{Index, Line, Operations, SeqFile},
};

/// An open `/proc/PID/numa_maps`.
pub(crate) struct Numa(Process);

/// What is kept from one chunk to the next.
pub(crate) struct State {
    last_pos: LastPosition,
    /// The policy of memory that has none of its own, from the start of a chunk to its end.
    task_policy: Policy,
    /// They are large where there can be many nodes, too large for the stack.
    stats: NumaMaps,
}

/// Writes what a line says of a VMA that is locked: where it starts, its policy, and what it maps.
fn put_vma(line: &mut Line<'_>, vma: &VmaRef, task_policy: &Policy) {
    line.put_hexadecimal(vma.start() as u64, 8);
    line.put(b" ");
    match Policy::of_vma(vma) {
        Some(policy) => policy.put(line),
        None => task_policy.put(line),
    }
    if let Some(file) = VmaFile::of(vma) {
        line.put(b" file=");
        file.path().print(line, c"\n\t= ");
    } else {
        match Initial::of(vma) {
            Some(Initial::Heap) => line.put(b" heap"),
            Some(Initial::Stack) => line.put(b" stack"),
            None => {}
        }
    }
}

impl Operations for Numa {
    type State = State;
    type Session = Session;
    type Cursor<'s> = Record<At<'s>>;
    type AfterShow<'s> = Printed<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        state: &mut State,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        state.task_policy = Policy::of_task(session.task());
        state.last_pos.first(session, index)
    }

    fn next<'s>(
        &self,
        state: &mut State,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Record<At<'s>>>> {
        shown.next(&mut state.last_pos, index)
    }

    /// Mirrors `show_numa_map`.
    fn show<'s>(
        &self,
        state: &mut State,
        m: &SeqFile,
        record: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        // The gate VMA has neither pages nor a policy.
        let Record::Vma(at) = record else {
            return Ok(Printed::Last);
        };
        let State {
            task_policy, stats, ..
        } = state;
        let mut line = m.line();

        let vma = at.vma();
        put_vma(&mut line, vma, task_policy);
        let is_huge = vma.flags() & flags::HUGETLB != 0;
        let page_size = kernel_page_size(vma);
        stats.clear();
        let Some(printed) = sum_up(at, stats)? else {
            return Ok(Printed::Last);
        };
        if is_huge {
            line.put(b" huge");
        }
        stats.put(&mut line, is_huge, page_size);
        line.finish();
        Ok(printed)
    }
}

impl PidFile for Numa {
    fn open(inode: &PidInode) -> Result<(Self, impl Init<State>)> {
        let state = init!(State {
            last_pos: LastPosition::default(),
            task_policy <- pin_init::init_zeroed(),
            stats <- pin_init::init_zeroed(),
        });

        Ok((Self(Process::open(inode)?), state))
    }
}
