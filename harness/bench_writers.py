#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures how long a process waits for its own address space while others read
its /proc/PID files, C and Rust in turn, in a guest with two CPUs, and prints
the medians over all rounds.

fragmented: the process unmaps and maps random pages of 128 MiB; two readers.
hot: it changes the protection of a page, or faults pages in, in a VMA of 1 GiB
of 4 KiB pages; one reader.

Fails when readers of smaps_rollup served by Rust hold the process up too long.
All measurements are in out/bench/writers.csv. `make bench` does this, too.
"""

import argparse
import collections
import csv
import statistics

import guest
from common import OUT, Failed, Progress, main, say, shown
from run import build_all

ROLLUP = "smaps_rollup"
# What readers of smaps_rollup may cost: the mean and the longest operation as
# multiples of those without a reader, the 99th percentile as a part of the time
# that one reading takes.
FRAGMENTED_MEAN = 1.3
HOT_MEAN = 4
HOT_P99 = 50
HOT_MAX = 2

COLUMNS = ("operations", "mean_ns", "p50_ns", "p99_ns", "p999_ns", "max_ns", "reads", "read_ns")

Key = collections.namedtuple("Key", "workload operation readers file implementation")


class Lines:
    """Tells how many lines the guest has written."""

    def __init__(self, progress):
        self.progress = progress
        self.count = 0

    def write(self, data):
        self.count += data.count(b"\n")
        self.progress.far = f"{max(0, self.count - 1)} measurements"

    def flush(self):
        pass


def measure(command, csv_name, **how):
    """Runs a program of the guest that prints CSV; gives its rows and keeps them
    in out/bench/CSV_NAME.csv."""
    result = guest.boot(command, **how)
    text = result.output.decode(errors="replace")
    if result.status:
        raise Failed(f"{command} failed: {(text.strip().splitlines() or ['it said nothing'])[-1]}")
    if result.reports():
        raise Failed(f"the kernel reports: {result.reports()[0]} (all of it: {shown(result.log_path)})")

    target = OUT / f"bench/{csv_name}.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return csv.DictReader(text.splitlines()), target


def measured(rows):
    """The medians over the rounds, each by its column's name."""
    rounds = collections.defaultdict(list)
    for row in rows:
        rounds[Key(*(row[c] for c in Key._fields))].append(row)
    return {key: {c: statistics.median(int(row[c]) for row in group) for c in COLUMNS if group[0][c]}
            for key, group in rounds.items()}


def show(found):
    last = None
    for key, row in found.items():
        title = f"{key.workload}: {key.operation or 'readers alone'}"
        if title != last:
            print(f"{title:40}{'mean us':>9}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>9}"
                  f"{'operations':>12}{'reads':>7}{'ms each':>9}")
        last = title
        name = f"{key.file}, {key.implementation}"
        if not key.file:
            name = "no reader" if key.readers == "0" else "readers of another process"
        times = [f"{row[c] / 1000:9,.0f}" if c in row else " " * 9 for c in COLUMNS[1:6]]
        operations = f"{row['operations']:12,.0f}" if "operations" in row else " " * 12
        reads = f"{row['reads']:7,.0f}{row['read_ns'] / 1e6:9,.1f}" if "reads" in row else ""
        print(f"  {name:38}{''.join(times)}{operations}{reads}".rstrip())


def requirements(found):
    """What was measured and what is allowed, for each thing that is required."""
    def both(workload, operation, readers, column):
        """What there is without readers and with those of Rust."""
        without = found[Key(workload, operation, "0", "", "")][column]
        return without, found[Key(workload, operation, readers, ROLLUP, "Rust")][column]

    without, beside = both("fragmented", "mmap and munmap", "2", "mean_ns")
    yield ("fragmented: the mean with two readers", beside, FRAGMENTED_MEAN * without,
           f"{FRAGMENTED_MEAN} times that without")
    one_read = found[Key("hot", "", "1", ROLLUP, "Rust")]["read_ns"]
    for operation in ("mprotect", "mprotect every 1 ms"):
        without, beside = both("hot", operation, "1", "mean_ns")
        yield (f"hot, {operation}: the mean with a reader", beside, HOT_MEAN * without,
               f"{HOT_MEAN} times that without")
        _, beside = both("hot", operation, "1", "p99_ns")
        yield (f"hot, {operation}: the 99th percentile with a reader", beside, one_read / HOT_P99,
               f"1/{HOT_P99} of one reading")
    # not of the writer that pauses: it has so few operations that its longest
    # one without a reader is an ordinary one
    without, beside = both("hot", "mprotect", "1", "max_ns")
    # a reader of another process keeps the host as busy, and a single pause of
    # the guest's CPU is what the longest operation shows
    without = max(without, found[Key("hot", "mprotect", "1", "", "")]["max_ns"])
    yield ("hot, mprotect: the longest with a reader", beside, HOT_MAX * without,
           f"{HOT_MAX} times that without")


def bench(rounds):
    """Measures and prints; gives what is worse than required, a line each."""
    with Progress(f"measuring writers beside readers ({rounds} rounds of 45 s)") as progress:
        rows, target = measure(f"writers-bench --rounds {rounds}", "writers", name="bench-writers",
                               timeout=120 + 120 * rounds, output=Lines(progress))
    found = measured(rows)
    show(found)
    print(f"All measurements: {shown(target)}")
    return [f"{what} is {value / 1000:,.0f} us, more than {allowed / 1000:,.0f} us, {why}"
            for what, value, allowed, why in requirements(found) if value > allowed]


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N",
                        help="measure N times, C and Rust in turn (default: 5)")
    args = parser.parse_args()
    build_all()
    missed = bench(args.rounds)
    for line in missed:
        say(f"readers of {ROLLUP}: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    main(run)
