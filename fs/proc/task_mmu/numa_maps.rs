// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/numa_maps`

use crate::{
    abstractions::{
        name::{kernel_page_size, Initial, VmaFile},
        page_walk::{
            numa::{NumaMaps, Policy},
            PageStats, //
        },
    },
    address_space::Held,
    entries::{Entry, Printed},
    records::{LastPosition, Process, Session},
};
use kernel::{
    fs::proc::{PidFile, PidInode},
    mm::virt::{flags, VmaRef},
    preempt,
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

/// Prints the line of a VMA, and unlocks it as soon as all has been copied.
///
/// Mirrors `show_numa_map`.
fn print<'s>(m: &SeqFile, held: Held<'s>, task_policy: &Policy, stats: &NumaMaps) -> Printed<'s> {
    let mut line = m.line();

    // As in `maps`, the reader does not lose its CPU while it prints with the VMA locked.
    let on_cpu = preempt::disable_unless_rt();
    let vma = held.vma();
    put_vma(&mut line, vma, task_policy);
    let is_huge = vma.flags() & flags::HUGETLB != 0;
    let page_size = kernel_page_size(vma);
    let released = held.release();
    drop(on_cpu);

    if is_huge {
        line.put(b" huge");
    }
    stats.put(&mut line, is_huge, page_size);
    line.finish();
    Printed::Vma(released)
}

impl Operations for Numa {
    type State = State;
    type Session = Session;
    type Cursor<'s> = Entry<'s>;
    type AfterShow<'s> = Printed<'s>;

    fn start(&self, index: Index) -> Result<Option<Session>> {
        self.0.begin(index)
    }

    fn first<'s>(
        &self,
        state: &mut State,
        session: &'s mut Session,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        state.task_policy = Policy::of_task(session.task());
        Ok(state.last_pos.first(session, index)?.map(Entry::from))
    }

    fn next<'s>(
        &self,
        state: &mut State,
        shown: Self::AfterShow<'s>,
        index: &mut Index,
    ) -> Result<Option<Entry<'s>>> {
        shown.next(&mut state.last_pos, index)
    }

    fn show<'s>(
        &self,
        state: &mut State,
        m: &SeqFile,
        entry: Self::Cursor<'s>,
    ) -> Result<Self::AfterShow<'s>> {
        let State {
            last_pos,
            task_policy,
            stats,
        } = state;

        stats.clear();
        Ok(match entry.sum(last_pos, stats)? {
            Entry::Vma(held) => print(m, held, task_policy, stats),
            // The gate VMA has neither pages nor a policy.
            other => other.into(),
        })
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
