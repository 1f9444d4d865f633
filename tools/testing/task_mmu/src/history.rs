// SPDX-License-Identifier: GPL-2.0

//! What has happened in one interleaving.
//!
//! The history of the address space is what it was between the writers' critical sections. A
//! reader may have seen the states from the one that was there at its first step to that of the
//! last writer that had begun at its last step.

use std::{
    fmt::Write,
    ops::Range,
    sync::{Mutex, MutexGuard},
};

/// Addresses go from 0 to this.
pub(crate) const ADDRESSES: usize = 16;

/// The kind of a VMA in which nothing is to be added to a sum.
pub(crate) const EMPTY: u8 = 9;

/// The kind of a VMA that is added to a sum at once.
pub(crate) const SMALL: u8 = 8;

/// The kind of a VMA that is added to a sum by a reader that may sleep.
pub(crate) const SLEEPY: u8 = 2;

/// A VMA as it was at some time. `kind` stands for everything that VMAs have to agree in to be
/// merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) vma: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: u8,
}

impl Area {
    pub(crate) fn new(vma: usize, range: Range<usize>, kind: u8) -> Self {
        Self {
            vma,
            start: range.start,
            end: range.end,
            kind,
        }
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// The thread that does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Reader,
    Writer(usize),
}

struct Step {
    who: Who,
    what: &'static str,
    numbers: [usize; 3],
    count: usize,
}

#[derive(Default)]
struct Record {
    steps: Vec<Step>,
    states: Vec<Vec<Area>>,
    begun: usize,
    /// The first state that the reader can have seen, and the last.
    seen: Option<(usize, usize)>,
    violations: Vec<String>,
}

/// What has happened in one interleaving.
#[derive(Default)]
pub(crate) struct History(Mutex<Record>);

impl History {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(crate) fn step(&self, who: Who, what: &'static str, numbers: &[usize]) {
        let mut record = self.record();
        let mut step = Step {
            who,
            what,
            numbers: [0; 3],
            count: numbers.len(),
        };
        step.numbers[..numbers.len()].copy_from_slice(numbers);
        record.steps.push(step);

        if who == Who::Reader {
            let last = record.begun;
            let now = record.states.len() - 1;
            let first = record.seen.map_or(now, |(first, _)| first);
            record.seen = Some((first, last));
        }
    }

    /// A writer begins.
    pub(crate) fn begin(&self) {
        self.record().begun += 1;
    }

    /// What `mm_lock_seq` is for the writer that has begun.
    pub(crate) fn seq(&self) -> u32 {
        2 * self.record().begun as u32 - 1
    }

    /// A writer ends, and leaves this.
    pub(crate) fn commit(&self, areas: &[Area]) {
        self.record().states.push(areas.to_vec());
    }

    /// What the last writer has left.
    pub(crate) fn areas(&self) -> Vec<Area> {
        self.record().states.last().cloned().unwrap_or_default()
    }

    pub(crate) fn violation(&self, what: String) {
        self.record().violations.push(what);
    }

    /// What went wrong and what led to it, if something did.
    pub(crate) fn failure(&self) -> Option<String> {
        let record = self.record();
        if record.violations.is_empty() {
            return None;
        }

        let mut text = String::new();
        for violation in &record.violations {
            let _ = writeln!(text, "{violation}");
        }
        for step in &record.steps {
            let who = match step.who {
                Who::Reader => "reader  ".to_string(),
                Who::Writer(number) => format!("writer {number}"),
            };
            let numbers = match step.numbers[..step.count] {
                [] => String::new(),
                [number] => format!(" {number}"),
                [vma, start, end, ..] => format!(" {vma} {start}-{end}"),
                _ => unreachable!("a step has no, one or three numbers"),
            };
            let _ = writeln!(text, "{who}  {}{numbers}", step.what);
        }
        for (number, state) in record.states.iter().enumerate() {
            let mut line = format!("state {number}:");
            for Area {
                vma,
                start,
                end,
                kind,
            } in state
            {
                let _ = write!(line, " {start}-{end} (VMA {vma}, kind {kind})");
            }
            let _ = writeln!(text, "{line}");
        }
        Some(text)
    }

    /// The states that the reader can have seen.
    pub(crate) fn seen(&self) -> Vec<Vec<Area>> {
        let record = self.record();
        let (first, last) = record.seen.expect("the reader has done something");
        record.states[first..=last].to_vec()
    }
}
