// SPDX-License-Identifier: GPL-2.0

//! What has happened in one interleaving, and whether what a reader says of it is right.
//!
//! The history of the address space is what it was between the writers' critical sections. A
//! reader may have seen the states from the one that was there at its first step to that of the
//! last writer that had begun at its last step.

use crate::{
    cases::EMPTY,
    model::{Lookups, Model},
    walk::{AddressSpace, MAX_GAP_WALKS, MAX_RETRIES},
};
use std::{
    fmt::Write,
    ops::Range,
    sync::{Mutex, MutexGuard},
};

/// Addresses go from 0 to this.
pub(crate) const ADDRESSES: usize = 16;

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

    /// A writer ends, and this is what he leaves.
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
    fn seen(&self) -> Vec<Vec<Area>> {
        let record = self.record();
        let (first, last) = record.seen.expect("the reader has done something");
        record.states[first..=last].to_vec()
    }
}

/// Whether an address is mapped in all of these states.
fn always_mapped(states: &[Vec<Area>], address: usize) -> bool {
    let maps = |state: &Vec<Area>| state.iter().any(|area| area.range().contains(&address));
    states.iter().all(maps)
}

/// Checks the lines of a reader that began at `pos`.
pub(crate) fn lines(history: &History, pos: usize, lines: &[Area]) {
    let states = history.seen();
    let shown = format!(
        "with the lines{}",
        lines.iter().fold(String::new(), |text, line| {
            format!("{text} {}-{} (VMA {})", line.start, line.end, line.vma)
        })
    );

    for pair in lines.windows(2) {
        if pair[0].end >= pair[1].end {
            history.violation(format!("ends do not rise, {shown}"));
        }
    }
    for line in lines {
        if !states.iter().any(|state| state.contains(line)) {
            let Area { start, end, .. } = line;
            history.violation(format!("{start}-{end} never was a VMA, {shown}"));
        }
    }
    for area in &states[0] {
        if area.end <= pos || !states.iter().all(|state| state.contains(area)) {
            continue;
        }
        let times = lines.iter().filter(|line| *line == area).count();
        if times != 1 {
            let Area { start, end, .. } = area;
            history.violation(format!(
                "{start}-{end} did not change and is shown {times} times, {shown}"
            ));
        }
    }
    for address in pos..ADDRESSES {
        let covered = lines.iter().any(|line| line.range().contains(&address));
        if always_mapped(&states, address) && !covered {
            history.violation(format!("{address} was always mapped, {shown}"));
        }
    }
}

/// Checks a sum over all VMAs: the range that it is said to be about, and the addresses that were
/// added. Those of VMAs in which there is nothing need not be among them.
pub(crate) fn sum_of_all(history: &History, range: &Range<usize>, added: &[(usize, u8)]) {
    let states = history.seen();
    for address in 0..ADDRESSES {
        let times = added.iter().filter(|(it, _)| *it == address).count();
        let maps_nothing = |area: &Area| area.kind == EMPTY && area.range().contains(&address);
        let may_skip = states.iter().flatten().any(maps_nothing);
        let least = usize::from(always_mapped(&states, address) && !may_skip);
        let most = usize::from(range.contains(&address));
        if times < least || times > most {
            history.violation(format!(
                "{address} is added {times} times, of a sum over {range:?}: {added:?}"
            ));
        }
    }
}

/// Checks a sum over one VMA, which was the first that ends above `pos`: the VMA, and the addresses
/// that were added with the kind of VMA that they were in.
pub(crate) fn sum_of_one(history: &History, pos: usize, of: Option<Area>, added: &[(usize, u8)]) {
    let states = history.seen();
    let Some(of) = of else {
        let none = |state: &Vec<Area>| state.iter().all(|area| area.end <= pos);
        if !states.iter().any(none) {
            history.violation(format!("there always was a VMA that ends above {pos}"));
        }
        return;
    };

    if !states.iter().any(|state| state.contains(&of)) {
        history.violation(format!("the sum is about {of:?}, which never was a VMA"));
    }
    let fits = of.range().map(|address| (address, of.kind));
    if !fits.eq(added.iter().copied()) {
        history.violation(format!("the sum is about {of:?} and contains {added:?}"));
    }
}

/// Checks how often a reader has looked for one VMA.
pub(crate) fn lookups(history: &History, worst: Lookups) {
    let most = Lookups {
        under_rcu: 1 + MAX_RETRIES + Model::MAX_WAITS,
        to_verify: MAX_GAP_WALKS,
        under_mmap_lock: 1,
    };
    if worst.under_rcu > most.under_rcu
        || worst.to_verify > most.to_verify
        || worst.under_mmap_lock > most.under_mmap_lock
    {
        history.violation(format!("it took {worst:?} to get to one VMA"));
    }
}
