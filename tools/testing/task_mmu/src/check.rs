// SPDX-License-Identifier: GPL-2.0

//! Whether what a reader says of an address space is right, after what has happened to that.

use crate::{
    history::{Area, History, ADDRESSES, EMPTY},
    model::{Lookups, Model},
    walk::{AddressSpace, MAX_GAP_WALKS, MAX_RETRIES},
};
use std::ops::Range;

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
/// added, with the kind of VMA that they were in.
pub(crate) fn sum_of_all(history: &History, range: &Range<usize>, added: &[(usize, u8)]) {
    each_once(history, 0..ADDRESSES, range, added);
}

/// Checks a sum over one VMA, which was the first that ended above `pos`: what the VMA was, from
/// where the reader goes on, and the addresses that were added.
pub(crate) fn sum_of_one(
    history: &History,
    pos: usize,
    of: Option<Area>,
    pos_after: Option<usize>,
    added: &[(usize, u8)],
) {
    let states = history.seen();
    let ends_at = |pos: usize| {
        let none = |state: &Vec<Area>| state.iter().all(|area| area.end <= pos);
        if !states.iter().any(none) {
            history.violation(format!("there always was a VMA that ends above {pos}"));
        }
    };
    let Some(of) = of else {
        return ends_at(pos);
    };

    if !states.iter().any(|state| state.contains(&of)) {
        history.violation(format!("the sum is about {of:?}, which never was a VMA"));
    }
    match pos_after {
        None => ends_at(of.end),
        Some(after) if after == of.end => {}
        Some(after) => history.violation(format!("the reader goes on from {after} after {of:?}")),
    }
    each_once(history, of.range(), &of.range(), added);
}

/// Checks that a sum over `range` has each of `addresses` that is always mapped once, and no
/// address more than that. Those of VMAs in which there is nothing need not be among them.
fn each_once(
    history: &History,
    addresses: Range<usize>,
    range: &Range<usize>,
    added: &[(usize, u8)],
) {
    let states = history.seen();
    for address in 0..ADDRESSES {
        let times = added.iter().filter(|(it, _)| *it == address).count();
        let maps_nothing = |area: &Area| area.kind == EMPTY && area.range().contains(&address);
        let may_skip = states.iter().flatten().any(maps_nothing) || !addresses.contains(&address);
        let least = usize::from(always_mapped(&states, address) && !may_skip);
        let most = usize::from(range.contains(&address));
        if times < least || times > most {
            history.violation(format!(
                "{address} is added {times} times, of a sum over {range:?}: {added:?}"
            ));
        }
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
