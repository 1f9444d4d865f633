#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures reading /proc/PID/maps, smaps, smaps_rollup and numa_maps, Rust
against C, and beside them C that holds mmap_lock, in a guest that counts
instructions, and prints what a line of maps or a VMA of the others takes, on the
slim kernel and on that of the small Debian packages; then, in other guests, what a
page takes, how long readers hold up the process, and what an application notices
(harness/host bench_pages.py --help, bench_writers.py --help,
bench_proc_vs_map.py --help and bench_application.py --help tell about these parts).

Fails when Rust needs more than C: more instructions (beyond what the ticks of
the guest's clock can make), or for maps more calls or memory that grows with
the number of mappings; when many lines of maps take more than is promised (MOST
in the source); or when readers hold up the process longer than they may. All
measurements are in bench.csv, pages.csv, writers.csv and proc-vs-map.csv in
out/bench, and beside them are plots of each. The first two parts give the same
numbers every time; the others need a machine that does nothing else.
"""

import argparse
import collections
import statistics

import bench_application
import bench_pages
import bench_proc_vs_map
import bench_writers
import deb
import plots
from common import OUT, Failed, Progress, main, say, shown

# The ticks of the guest's clock fall into one round more often than into
# another, which makes up to 0.1 %.
TOLERANCE = 1.002
# The most instructions of Rust for a line or an entry, or their ratio to those of C, and of calls.
MOST = {"anonymous": 480, "files in fives": 875, "smaps": 3200, "numa_maps": 900}
MOST_RATIO = {"different files": 0.8}
MOST_CALLS = 0.1
# The most instructions of Rust as a part of those of C on Debian's configuration.
MOST_DEBIAN = 0.95
MANY = collections.defaultdict(lambda: 2_000, maps=10_000)    # mappings of a file, from which on these hold
# A reader has a buffer of a page, else the measurement is wrong. Memory is
# counted in slabs, over 64 readers: what they hold is known to some 100 bytes.
BUFFER = 4096
HELD_TOLERANCE = 512

Row = collections.namedtuple("Row", "file median spread calls bytes held units")


def measured(rows):
    """What the rounds of each workload and implementation come to."""
    rounds = collections.defaultdict(list)
    for row in rows:
        rounds[row["workload"], int(row["mappings"]), row["implementation"]].append(row)
    result = {}
    for key, group in rounds.items():
        instructions = [int(row["instructions"]) for row in group]
        calls, read, held = (int(group[0][c]) for c in ("calls", "bytes", "held_bytes"))
        result[key] = Row(group[0]["file"], statistics.median(instructions),
                          max(instructions) - min(instructions), calls, read, held, int(group[0]["units"]))
    return result


def compare(found, most_ratio=TOLERANCE, promises=True):
    """Prints the table; gives what Rust does worse: what takes more than most_ratio of C, and
    what takes more than is promised."""
    worse = []
    last = None
    for workload, count in dict.fromkeys(key[:2] for key in found):
        c, locked, rust = (found.get((workload, count, i)) for i in plots.IMPLEMENTATIONS)
        title = "instructions a line of maps" if c.file == "maps" else "instructions a VMA"
        if title != last:
            more = f"   {'calls C, Rust':>15}   {'a MB':>11}"
            more += f"   {'bytes held':>12}" if c.file == "maps" else ""
            print(f"{title:35}{'C':>10}{'mmap_lock':>10}{'Rust':>10}{'Rust/C':>8}   {'spread C, Rust':>16}{more}")
        last = title
        ratio = rust.median / c.median
        name = f"{workload}, {count:,}"
        calls = f"{c.calls:,} {rust.calls:,}"
        # of what is read in one or two calls that says nothing
        per_mb = " ".join(f"{r.calls * 1e6 / r.bytes:,.1f}" for r in (c, rust)) if c.bytes > 100_000 else ""
        held = f"{c.held:,} {rust.held:,}" if c.held else ""
        third = f"{locked.median / locked.units:10,.1f}" if locked else f"{'as C' if promises else '':>10}"
        line = (f"{name:35}{c.median / c.units:10,.1f}{third}{rust.median / rust.units:10,.1f}{ratio:8.4f}   "
                f"{c.spread / c.median:8.2%}{rust.spread / rust.median:8.2%}   {calls:>15}   {per_mb:>11}   {held:>12}")
        print(line.rstrip())
        if ratio > most_ratio:
            worse.append(f"{name}: {ratio:.4f} times the instructions of C")
        if rust.calls > c.calls:
            worse.append(f"{name}: {rust.calls} calls, C {c.calls}")
        if promises and count >= MANY[c.file]:
            most = MOST.get(workload, MOST_RATIO.get(workload, 1) * c.median / c.units)
            if rust.median / rust.units > most:
                worse.append(f"{name}: {rust.median / rust.units:.1f} instructions, at most {most:.0f} expected")
            if c.file == "maps" and workload in MOST and rust.calls > c.calls * MOST_CALLS:
                worse.append(f"{name}: {rust.calls} calls, more than {MOST_CALLS} of {c.calls}")
    return worse


def growth(found):
    """Prints what each further line takes; gives what grows that must not."""
    worse = []
    for workload in dict.fromkeys(key[0] for key in found):
        counts = sorted({key[1] for key in found if key[0] == workload})
        if len(counts) < 2:
            continue
        steps = {}
        for implementation in plots.IMPLEMENTATIONS:
            few, many = (found[workload, n, implementation] for n in (counts[0], counts[-1]))
            steps[implementation] = (many.median - few.median) / (many.units - few.units)
            if few.held < BUFFER:
                raise Failed(f"{workload}: a reader is said to hold {few.held} bytes, less than its "
                             "buffer; slab accounting is not what maps-bench expects")
            if many.held - few.held > HELD_TOLERANCE and implementation == "Rust":
                worse.append(f"{workload}: a reader holds {few.held} bytes with {counts[0]} mappings, "
                             f"{many.held} with {counts[-1]:,}")
        name = f"{workload}, each more"
        print(f"{name:35}" + "".join(f"{step:10,.1f}" for step in steps.values()) +
              f"{steps['Rust'] / steps['C']:8.4f}")
    return worse


def plot(found, target):
    """A group of bars for each workload."""
    rows = []
    for workload, count in dict.fromkeys(key[:2] for key in found):
        spent = {i: found[workload, count, i] for i in plots.IMPLEMENTATIONS
                 if (workload, count, i) in found}
        name = {"query": "PROCMAP_QUERY"}.get(workload, f"maps: {workload}") if spent["C"].file == "maps" else workload
        rows.append((f"{name}, {count:,}", {i: row.median / row.units for i, row in spent.items()}))
    plots.cost(rows, target)


def debian(rounds):
    """The same instructions on the kernel of the small Debian packages; gives what is worse than it
    has to be."""
    kernel = deb.small_kernel()
    # until what a kernel does in the background after its start is done
    with Progress("measuring on Debian's configuration (about 5 min)"):
        rows, target = bench_writers.measure(kernel, f"sleep 120; maps-bench --rounds {rounds}", "bench-debian",
                                             name="bench-debian", accel="icount", timeout=3600)
    print("On Debian's configuration:")
    worse = compare(measured(rows), MOST_DEBIAN, promises=False)
    print(f"All measurements: {shown(target)}\n")
    return [f"on Debian's configuration, {line}" for line in worse]


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N",
                        help="measure N times, the implementations in turn (default: 3)")
    parser.add_argument("--instructions", action="store_true", help="only the first part")
    parser.add_argument("--debian", action="store_true", help="only the first part, on Debian's configuration")
    args = parser.parse_args()
    if args.debian:
        bench_writers.build_all()
        worse = debian(args.rounds)
        for line in worse:
            say(line)
        return 1 if worse else 0
    kernel = bench_writers.build_kernel()
    with Progress("measuring, with a guest that counts instructions (about 1 min)"):
        rows, target = bench_writers.measure(kernel, f"maps-bench --rounds {args.rounds}", "bench", name="bench",
                                             accel="icount", timeout=1800)
    found = measured(rows)
    worse = compare(found)
    worse += growth(found)
    plot(found, OUT / "bench/cost.svg")
    print(f"All measurements: {shown(target)}, {shown(OUT / 'bench/cost.svg')}\n")
    missed = []
    if not args.instructions:
        worse += debian(args.rounds)
        worse += bench_pages.bench()
        missed += bench_writers.bench(kernel, args.rounds)
        print()
        missed += bench_proc_vs_map.bench(kernel, args.rounds)
        print()
        missed += bench_application.bench(args.rounds)
    for line in worse:
        say(f"worse than it has to be: {line}")
    for line in missed:
        say(line)
    return 1 if worse or missed else 0


if __name__ == "__main__":
    main(run)
