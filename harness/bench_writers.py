#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures how long a process waits for its own address space while others read
its /proc/PID files, in a guest with two CPUs, and prints the medians over all
rounds, each implementation in turn: C, C that holds mmap_lock (as before Linux
6.17), and Rust.

fragmented: the process unmaps and maps random pages of 128 MiB, or faults them in.
large: it changes the protection of a page, or faults pages in, in a VMA of 1 GiB
of 4 KiB pages.
hot: it changes the protection of a VMA of one page without pause.

Readers have a CPU of their own, alone or with two busy tasks, which starve them
the more the lower their priority is.

Fails when readers served by Rust hold the process up longer than those served
by C, or longer than they may. All measurements are in out/bench/writers.csv.
`make bench` does this, too.
"""

import argparse
import collections
import csv
import statistics

import build
import guest
import plots
from common import OUT, Failed, Progress, lock, main, say, shown
from run import build_all

STATISTICS = {"mean": "mean_ns", "p99": "p99_ns", "p99.9": "p999_ns", "max": "max_ns"}

# What readers of smaps_rollup may cost: the mean of operations and the longest as multiples
# of those without a reader, the 99th percentile as a part of the time that one reading takes.
FRAGMENTED_MEAN = 1.3
LARGE_P99 = 50
LARGE_MAX = 2
# What one reader of 1 GiB may cost, by what the process does and the file: operations as multiples
# of those without a reader, and the reading as a multiple of that in C.
LARGE = {
    ("mprotect", "smaps_rollup"): {"mean_ns": 4, "read_ns": 3},
    ("mprotect every 100 us", "smaps_rollup"): {"mean_ns": 1.5, "read_ns": 1.2},
    ("mprotect every 1 ms", "smaps_rollup"): {"mean_ns": 1.5, "p99_ns": 2},
    ("mprotect every 1 ms", "smaps"): {"mean_ns": 1.5, "p99_ns": 2},
    ("mprotect every 100 us", "numa_maps"): {"mean_ns": 2, "read_ns": 1.3},
}
NAMES = {"mean_ns": "the mean", "p99_ns": "the 99th percentile", "read_ns": "the reading"}
# How much worse may look what is as good, as a multiple of what it is beside
# readers served by C, or without a reader: the mean or, where readers are
# starved and a single one that loses its CPU decides that, the 99.9th percentile.
NOISE = 1.3
# That beside starved readers of maps as a part of what it is in C. It says
# nothing where readers served by C do no harm, up to this multiple of what it is
# without a reader.
STARVED_P999 = 0.5
UNHARMED_P999 = 3

Key = collections.namedtuple("Key", "workload operation readers priority file")
COLUMNS = ("operations", "mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns", "reads", "read_ns")


class Lines:
    """Tells how many lines the guest has written, of as many as there will be."""

    def __init__(self, progress, of=None):
        self.progress = progress
        self.of = f" of {of}" if of else ""
        self.count = 0

    def write(self, data):
        self.count += data.count(b"\n")
        self.progress.far = f"{max(0, self.count - 1)}{self.of} measurements"

    def flush(self):
        pass


def build_kernel():
    """Builds what is measured; gives the kernel."""
    build_all()
    with lock():
        return build.build_bench()


def measure(kernel, command, csv_name, **how):
    """Runs a program of the guest that prints CSV; gives its rows and keeps them
    in out/bench/CSV_NAME.csv."""
    result = guest.boot(command, kernel=kernel, **how)
    text = result.output.decode(errors="replace")
    if result.status:
        raise Failed(f"{command} failed: {(text.strip().splitlines() or ['it said nothing'])[-1]}")
    if result.reports():
        raise Failed(f"the kernel reports: {result.reports()[0]} (all of it: {shown(result.log_path)})")

    target = OUT / f"bench/{csv_name}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return list(csv.DictReader(text.splitlines())), target


class Measured:
    """What the rounds of one measurement come to."""

    def __init__(self, rows):
        self.spread = 0
        self.classes = collections.Counter()
        for column in COLUMNS:
            values = [int(row[column]) for row in rows if row[column]]
            setattr(self, column, statistics.median(values) if values else None)
            if column == "mean_ns" and values:
                self.spread = (max(values) - min(values)) / self.mean_ns
        for row in rows:
            for entry in row["classes"].split():
                number, count = map(int, entry.split(":"))
                self.classes[number] += count


def measured(rows):
    """What was measured, by key and implementation; without readers of the
    process that is "" """
    rounds = collections.defaultdict(list)
    for row in rows:
        rounds[Key(*(row[c] for c in Key._fields)), row["implementation"]].append(row)
    found = collections.defaultdict(dict)
    for (key, implementation), group in rounds.items():
        found[key][implementation] = Measured(group)
    return dict(found)


def show(found):
    """Prints a line for each number, priority and file of readers."""
    last = None
    for key, row in found.items():
        if not key.operation:
            continue
        title = f"{key.workload}: {key.operation}"
        if title != last:
            print(f"\n{title:32}" + "".join(f"{f'{name}, us':>24}" for name in STATISTICS) + f"{'mean':>16}")
            print(f"{'readers':32}" + f"{'C':>8}{'lock':>8}{'Rust':>8}" * len(STATISTICS) + f"{'Rust/C':>8}{'spread':>8}")
        last = title
        name = "none" if key.readers == "0" else f"{key.readers} of {key.file or 'another process'}"
        if key.priority != "alone":
            name += f", {key.priority}"
        line = f"  {name:30}"
        for column in STATISTICS.values():
            for implementation in plots.IMPLEMENTATIONS if key.file else ("",):
                value = row.get(implementation)
                line += f"{getattr(value, column) / 1000:8,.0f}" if value else " " * 8
            line += "" if key.file else " " * 16
        if key.file:
            line += f"{row['Rust'].mean_ns / row['C'].mean_ns:8.3f}{max(r.spread for r in row.values()):8.1%}"
        print(line.rstrip())


def requirements(found):
    """What was measured and what is allowed, for each thing that is required."""
    def both(workload, operation, readers, column):
        """What there is without readers and with those of Rust."""
        without = found[Key(workload, operation, "0", "alone", "")][""]
        beside = found[Key(workload, operation, readers, "alone", "smaps_rollup")]["Rust"]
        return getattr(without, column), getattr(beside, column)

    without, beside = both("fragmented", "mmap and munmap", "2", "mean_ns")
    yield ("fragmented: the mean with two readers of smaps_rollup", beside, FRAGMENTED_MEAN * without,
           f"{FRAGMENTED_MEAN} times that without")
    one_read = found[Key("large", "", "1", "alone", "smaps_rollup")]["Rust"].read_ns
    for (operation, file), most in LARGE.items():
        row = found[Key("large", operation, "1", "alone", file)]
        without = found[Key("large", operation, "0", "alone", "")][""]
        for column, factor in most.items():
            other, what = (row["C"], "that in C") if column == "read_ns" else (without, "that without")
            yield (f"large, {operation}: {NAMES[column]} with a reader of {file}", getattr(row["Rust"], column),
                   factor * getattr(other, column), f"{factor} times {what}")
    for operation in ("mprotect", "mprotect every 100 us", "mprotect every 1 ms"):
        _, beside = both("large", operation, "1", "p99_ns")
        yield (f"large, {operation}: the 99th percentile with a reader of smaps_rollup", beside,
               one_read / LARGE_P99, f"1/{LARGE_P99} of one reading")
    # not of the writer that pauses: it has so few operations that its longest
    # one without a reader is an ordinary one
    _, beside = both("large", "mprotect", "1", "max_ns")
    # a single pause of the guest's CPU is what the longest operation shows, and
    # there are some wherever nobody holds a lock
    without = max(row[""].max_ns for key, row in found.items() if key.operation and not key.file)
    yield ("large, mprotect: the longest with a reader of smaps_rollup", beside, LARGE_MAX * without,
           f"{LARGE_MAX} times the longest of all operations without, or with a reader of another process")
    for key, row in found.items():
        if not key.operation or not key.file:
            continue
        c, rust = row["C"], row["Rust"]
        without = found[Key(*key[:2], "0", "alone", "")][""]
        # what busy tasks and starved readers cost that take no lock of the process
        beside = found.get(Key(*key[:2], "4", key.priority, ""), {"": without})[""]
        what = f"{key.workload}, {key.operation}, {key.readers} of {key.file}, {key.priority}"
        if key.priority == "alone":
            yield (f"{what}: the mean", rust.mean_ns, NOISE * max(c.mean_ns, without.mean_ns),
                   f"{NOISE} times the larger of that of C and of no reader")
        else:
            part = STARVED_P999 if key.workload == "hot" and key.file == "maps" else NOISE
            yield (f"{what}: the 99.9th percentile", rust.p999_ns,
                   max(part * c.p999_ns, UNHARMED_P999 * without.p999_ns, NOISE * beside.p999_ns),
                   f"the largest of {part} times that of C, {UNHARMED_P999} times that of no reader, and {NOISE} "
                   "times that of starved readers of another process")


def bench(kernel, rounds):
    """Measures, prints and plots; gives what is worse than required, a line each."""
    with Progress(f"measuring writers beside readers ({rounds} rounds of 3 min)") as progress:
        rows, target = measure(kernel, f"writers-bench --rounds {rounds}", "writers", name="bench-writers",
                               timeout=120 + 900 * rounds, output=Lines(progress))
    found = measured(rows)
    show(found)
    plots.writers(found, OUT / "bench/writers.svg")
    print(f"\nAll measurements: {shown(target)}, {shown(OUT / 'bench/writers.svg')}")
    return [f"{what} is {value / 1000:,.0f} us, more than {allowed / 1000:,.0f} us, {why}"
            for what, value, allowed, why in requirements(found) if value > allowed]


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N",
                        help="measure N times, the implementations in turn (default: 3)")
    args = parser.parse_args()
    missed = bench(build_kernel(), args.rounds)
    for line in missed:
        say(line)
    return 1 if missed else 0


if __name__ == "__main__":
    main(run)
