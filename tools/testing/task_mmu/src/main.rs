// SPDX-License-Identifier: GPL-2.0

//! Model checking of the protocols of `/proc/PID/maps` and its family.
//!
//! This compiles `fs/proc/task_mmu/walk.rs` and `sums.rs`, as they are, against a model of an
//! address space, and tries the interleavings of a reader with one and with two writers:
//!
//! ```text
//!   walk.rs, sums.rs              a reader        writers.rs    mmap, munmap, mprotect, mremap,
//!        |                                             |        stack growth, fork, in the steps
//!        | trait AddressSpace                          |        of mm/vma.c
//!        v                                             v
//!   model.rs   mm_lock_seq   tree   mmap_lock   vm_refcnt and vm_lock_seq of each VMA
//!        |
//!        v
//!   check.rs   the states between writers, and what the reader says
//! ```
//!
//! # What has to hold
//!
//! - An address that is mapped in all states during the walk is covered by a line.
//! - A VMA that is there unchanged is shown once.
//! - Each line was a VMA, and line ends rise.
//! - A sum has each address that is always mapped once; one over a VMA has those that the VMA had
//!   when it was begun, and the reader goes on from its end.
//! - Nothing is held at the end, nor when `mmap_lock` is taken, nobody sleeps in RCU, no thread
//!   waits forever, and no field is read while it can change.
//! - To get to one VMA takes at most `1 + MAX_RETRIES + MAX_WAITS` lookups under RCU,
//!   `MAX_GAP_WALKS` walks to verify, and one lookup under `mmap_lock`.
//! - All cases together take each way to the fallback.
//!
//! # Bounds
//!
//! Address spaces have one to three VMAs, writers one to five operations. A reader waits once for a
//! writer that has a VMA locked, during which at least one other thread takes a step if one can.
//! The short form tries all interleavings with one writer, except in the cases that `cases.rs`
//! calls large or huge and for readers that sleep or add up all VMAs, with at most five
//! preemptions, and those with two writers with at most two. The long form has no bound with one
//! writer except six preemptions in huge cases, and three preemptions with two.
//!
//! `loom` is used because it leaves out orders of independent steps: `shuttle`'s depth-first search
//! tries them all, and a reader of 40 steps and a writer of 14 have more than 10^12 of them.
//!
//! # What is not modelled
//!
//! All threads see all steps in one order: weaker memory orders are not tried. A store to the tree
//! is one step, in place if there are as many ranges as before, and there is one node. Of a lookup
//! from within a gap, the walk to the gap and the search from its end are two steps, any other
//! lookup is one: what is found has to be verified if there can have been a writer. A walk to
//! verify is two steps, the one reads ranges and the other what is there. To read a VMA without its
//! lock is a step for each field. The kernel compares
//! `vm_lock_seq` without a reference first, which is left out here. Numbers do not wrap.
//! Signals and failed allocations are left out.

#![deny(warnings)]

mod cases;
mod check;
mod history;
mod model;
#[path = "../../../../fs/proc/task_mmu/sums.rs"]
mod sums;
#[path = "../../../../fs/proc/task_mmu/walk.rs"]
mod walk;
mod writers;

use cases::{Case, Kind};
use history::{Area, History, Who, EMPTY, SLEEPY, SMALL};
use model::{Fault, Lookups, Model, Reader, Space};
use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{catch_unwind, AssertUnwindSafe},
    process::ExitCode,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
        Arc, Mutex,
    },
};
use walk::{AddressSpace, At, Budget, Event, Held, LockError, Next, Reason, Released, StableVma};

/// A sum, as the addresses that were added and the kind of VMA that each was in.
#[derive(Default)]
struct Added(Vec<(usize, u8)>);

impl Added {
    /// Adds addresses of a VMA of this kind, up to one at which a writer waits.
    fn put(&mut self, range: Range<usize>, kind: u8, is_waited_for: impl Fn() -> bool) -> usize {
        for address in range.clone() {
            self.0.push((address, kind));
            if address + 1 < range.end && is_waited_for() {
                return address + 1;
            }
        }
        range.end
    }
}

impl<'a> sums::Sum<Model<'a>> for Added {
    fn add(
        &mut self,
        at: &At<Model<'a>>,
        range: Range<usize>,
        budget: &mut Budget,
    ) -> Option<usize> {
        model::arrived_at(at);
        budget.entries -= 1;
        match model::area_at(at).kind {
            EMPTY => Some(range.end),
            SMALL => Some(self.put(range, SMALL, || false)),
            SLEEPY => None,
            kind => Some(self.put(range, kind, || budget.lets_go && Model::is_contended(at))),
        }
    }

    fn add_asleep(&mut self, held: &Held<Model<'a>>, range: Range<usize>) -> usize {
        self.put(range, SLEEPY, || model::is_waited_for(held))
    }
}

/// Walks over all VMAs, and locks those that it cannot copy otherwise.
fn copy_all<'a>(reader: &'a Reader<'a>) -> Vec<Area> {
    let mut lines = Vec::new();
    let Ok(first) = walk::first::<Model<'a>>(reader, 0);
    let mut next = first.map(Next::At);
    while let Some(here) = next {
        reader.arrived();
        let unlocked = match here {
            Next::Copied(copied) => {
                lines.push(copied.vma().area());
                copied.pass()
            }
            Next::At(at) => {
                lines.push(model::area_at(&at));
                at.unlock()
            }
        };
        Ok(next) = walk::next_or_copy(unlocked, &());
    }
    lines
}

/// Walks over all VMAs that end above `pos`.
fn walk_from<'a>(reader: &'a Reader<'a>, pos: usize, sleep: bool) -> Vec<Area> {
    let mut lines = Vec::new();
    let Ok(mut at) = walk::first::<Model<'a>>(reader, pos);
    while let Some(here) = at {
        reader.arrived();
        Ok(at) = if sleep {
            let area = model::area_at(&here);
            lines.push(area);
            walk::next_after_sleep(here.release(area.end))
        } else {
            lines.push(model::area_at(&here));
            walk::next(here.unlock())
        };
    }
    lines
}

/// A check that is made when all writers have finished.
type Check = Box<dyn FnOnce(&History)>;

/// Does what `kind` says.
fn read(reader: &Reader<'_>, case: &Case, kind: Kind) -> Check {
    let lines = |pos, sleep| -> Check {
        let lines = walk_from(reader, pos, sleep);
        Box::new(move |history| check::lines(history, pos, &lines))
    };
    match kind {
        Kind::Walk => lines(0, false),
        Kind::Sleep => lines(0, true),
        Kind::Copy => {
            let lines = copy_all(reader);
            Box::new(move |history| check::lines(history, 0, &lines))
        }
        Kind::Gap => lines(case.gap, false),
        Kind::SumAll => {
            let mut sum = Added::default();
            let Ok(range) = sums::sum_all::<Model<'_>, _>(reader, &mut sum);
            Box::new(move |history| check::sum_of_all(history, &range, &sum.0))
        }
        Kind::SumOne => {
            let pos = case.target;
            let mut sum = Added::default();
            let Ok(at) = walk::first::<Model<'_>>(reader, pos);
            let of = at.as_ref().map(model::area_at);
            let released = at.and_then(|at| {
                let Ok(released) = sums::sum_one(at, &mut sum);
                released
            });
            let pos_after = released.map(|released| match released {
                Released::Vma { pos, .. } => pos,
                Released::Mmap(at) => at.range().end,
            });
            Box::new(move |history| check::sum_of_one(history, pos, of, pos_after, &sum.0))
        }
    }
}

/// One reader in one case, with one or two writers.
#[derive(Clone, Copy)]
struct Run {
    case: usize,
    reader: (&'static str, Kind),
    writers: usize,
    preemptions: Option<usize>,
    fault: Option<Fault>,
}

/// What all interleavings of a run have come to.
#[derive(Default)]
struct Outcome {
    interleavings: usize,
    worst: Lookups,
    events: Vec<Event>,
    failure: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Tries one interleaving.
fn interleaving(run: Run, case: &Case, history: Arc<History>, outcome: &Mutex<Outcome>) {
    let has_copies = run.reader.1 == Kind::Copy;
    let space = Arc::new(Space::new(&case.areas(), case.full, has_copies, history));
    let writers = [&case.writer, &case.other];
    let threads: Vec<_> = (1..=run.writers)
        .map(|number| {
            let space = space.clone();
            let ops = writers[number - 1].clone();
            loom::thread::spawn(move || writers::run(&space, Who::Writer(number), &ops))
        })
        .collect();

    let reader = Reader::new(&space, run.fault);
    let check = read(&reader, case, run.reader.1);
    reader.require_idle("at the end");
    for thread in threads {
        thread.join().expect("a writer does not panic");
    }
    check(&space.history);
    check::lookups(&space.history, reader.worst.get());

    let mut outcome = lock(outcome);
    outcome.interleavings += 1;
    outcome.worst = outcome.worst.max_of_each(reader.worst.get());
    for event in reader.events.take() {
        if !outcome.events.contains(&event) {
            outcome.events.push(event);
        }
    }
}

/// Tries all interleavings, up to the first that violates something.
fn explore(run: Run) -> Outcome {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let current = Arc::new(Mutex::new(Arc::new(History::default())));

    let mut builder = loom::model::Builder::new();
    builder.max_threads = 1 + run.writers;
    builder.max_branches = 10_000;
    builder.preemption_bound = run.preemptions;
    let case = cases::all().swap_remove(run.case);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let (outcome, current) = (outcome.clone(), current.clone());
        builder.check(move || {
            let history = Arc::new(History::default());
            *lock(&current) = history.clone();
            interleaving(run, &case, history.clone(), &outcome);
            assert!(history.failure().is_none(), "{VIOLATED}");
        });
    }));

    let mut outcome = std::mem::take(&mut *lock(&outcome));
    if let Err(panic) = result {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let history = lock(&current).clone();
        if text != VIOLATED {
            history.violation(text.into());
        }
        outcome.failure = history.failure();
    }
    outcome
}

const VIOLATED: &str = "violated";

const HELP: &str = "\
usage: task-mmu-model [--long] [--case NAME] [--fault NAME] [--list] [--help]

Tries the interleavings of a reader of an address space with writers, and prints KTAP.
Exits with 1 if something that has to hold is violated, and tells what led to it.

  --long        higher bounds, and fewer runs that have one; takes longer
  --case NAME   only this case
  --fault NAME  breaks a step of the reader on purpose, to see it found
  --list        lists cases, readers and faults
";

struct Args {
    long: bool,
    case: Option<String>,
    fault: Option<Fault>,
}

/// Returns the arguments, or [`None`] if all that is wanted has been printed.
fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let mut parsed = Args {
        long: false,
        case: None,
        fault: None,
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a name"));
        match arg.as_str() {
            "--long" => parsed.long = true,
            "--case" => {
                let name = value()?;
                if !cases::all().iter().any(|case| case.name == name) {
                    return Err(format!("there is no case {name:?}, see --list"));
                }
                parsed.case = Some(name);
            }
            "--fault" => {
                let name = value()?;
                let fault = model::FAULTS.iter().find(|(known, _)| *known == name);
                let (_, fault) = fault.ok_or(format!("there is no fault {name:?}, see --list"))?;
                parsed.fault = Some(*fault);
            }
            "--list" => {
                for case in cases::all() {
                    println!("case {}", case.name);
                }
                for (name, _) in cases::READERS {
                    println!("reader {name}");
                }
                for (name, _) in model::FAULTS {
                    println!("fault {name}");
                }
                return Ok(None);
            }
            "--help" => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => return Err(format!("unknown argument {arg:?}, see --help")),
        }
    }
    Ok(Some(parsed))
}

/// What is tried.
fn plan(args: &Args) -> Vec<Run> {
    let mut runs = Vec::new();
    for (number, case) in cases::all().iter().enumerate() {
        if args.case.as_ref().is_some_and(|name| name != case.name) {
            continue;
        }
        for &reader in cases::READERS {
            if !case.has(reader.1) {
                continue;
            }
            let run = Run {
                case: number,
                reader,
                writers: 1,
                preemptions: case.preemptions(reader.1, args.long),
                fault: args.fault,
            };
            runs.push(run);
            runs.push(Run {
                writers: 2,
                preemptions: Some(if args.long { 3 } else { 2 }),
                ..run
            });
        }
    }
    runs
}

/// Says what was tried, as a line of KTAP.
fn report(number: usize, run: Run, outcome: &Outcome) {
    let Lookups {
        under_rcu,
        to_verify,
        under_mmap_lock,
    } = outcome.worst;
    let bound = match run.preemptions {
        Some(most) => format!("at most {most} preemptions"),
        None => "preemptions not bounded".into(),
    };
    if let Some(failure) = &outcome.failure {
        for line in failure.lines() {
            println!("# {line}");
        }
    }
    println!(
        "{} {number} {} {} # {} interleavings, {} writer{}, {bound}, \
         lookups at most {under_rcu}+{to_verify}+{under_mmap_lock}",
        if outcome.failure.is_some() {
            "not ok"
        } else {
            "ok"
        },
        cases::all()[run.case].name,
        run.reader.0,
        outcome.interleavings,
        run.writers,
        if run.writers == 1 { "" } else { "s" },
    );
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task-mmu-model: {error}");
            return ExitCode::from(2);
        }
    };

    // What goes wrong is told with what led to it.
    std::panic::set_hook(Box::new(|_| ()));

    let runs = plan(&args);
    println!("KTAP version 1\n1..{}", runs.len());
    println!("# a reader and 1 or 2 writers; lookups for one VMA: under RCU + to verify + under");
    let most = 1 + walk::MAX_RETRIES + Model::MAX_WAITS;
    println!("# mmap_lock, at most {most}+{}+1", walk::MAX_GAP_WALKS);

    // Workers take runs in turn, and report in the order of the plan.
    let taken = AtomicUsize::new(0);
    let (send, receive) = channel();
    let mut events: Vec<Event> = Vec::new();
    let (mut interleavings, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (send, runs, taken) = (send.clone(), &runs, &taken);
            scope.spawn(move || loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                let Some(&run) = runs.get(number) else {
                    break;
                };
                if send.send((number, explore(run))).is_err() {
                    break;
                }
            });
        }
        drop(send);

        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (number, outcome) in receive {
            waiting.insert(number, outcome);
            while let Some(outcome) = waiting.remove(&next) {
                report(next + 1, runs[next], &outcome);
                interleavings += outcome.interleavings;
                failed += usize::from(outcome.failure.is_some());
                events.extend(outcome.events);
                next += 1;
            }
        }
    });

    // Of all cases together, each way off the shortest one has been taken.
    let mut missing = Vec::new();
    if args.case.is_none() && args.fault.is_none() {
        missing.extend(
            [
                Event::Retry(LockError::Detached),
                Event::Retry(LockError::Contended),
                Event::Fallback(Reason::Contended),
                Event::Fallback(Reason::Detached),
                Event::Fallback(Reason::Behind),
                Event::Fallback(Reason::Gap),
                Event::Fallback(Reason::End),
            ]
            .into_iter()
            .filter(|event| !events.contains(event)),
        );
    }
    for event in &missing {
        println!("# {event:?} was never reached");
    }
    println!("# {interleavings} interleavings");
    println!("{} passed, {failed} failed", runs.len() - failed);
    if failed == 0 && missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
