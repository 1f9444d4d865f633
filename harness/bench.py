#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures reading /proc/PID/maps, Rust against C, in a guest that counts
instructions, and prints what a line takes.

Fails when Rust needs more than C: more instructions for a line (beyond what the
ticks of the guest's clock can make), more calls, or memory that grows with the
number of mappings. All measurements are in out/bench/bench.csv.
"""

import argparse
import collections
import csv
import statistics

import guest
from common import OUT, Failed, main, say, shown
from run import build_all

# The ticks of the guest's clock fall into one round more often than into
# another, which makes up to 0.1 %.
TOLERANCE = 1.002
# A reader has a buffer of a page, else the measurement is wrong. Memory is
# counted in slabs, over 64 readers: what they hold is known to some 100 bytes.
BUFFER = 4096
HELD_TOLERANCE = 512

Row = collections.namedtuple("Row", "median spread calls held lines")


def measured(rows):
    """What the rounds of each workload and implementation come to."""
    rounds = collections.defaultdict(list)
    for row in rows:
        rounds[row["workload"], int(row["mappings"]), row["implementation"]].append(row)
    result = {}
    for key, group in rounds.items():
        instructions = [int(row["instructions"]) for row in group]
        lines = int(group[0]["lines"])
        result[key] = Row(statistics.median(instructions), max(instructions) - min(instructions),
                          int(group[0]["calls"]), int(group[0]["held_bytes"]), lines)
    return result


def compare(found):
    """Prints the table; gives what Rust does worse."""
    worse = []
    print(f"{'instructions a line':27}{'C':>10}{'Rust':>10}{'Rust/C':>8}   "
          f"{'spread C, Rust':>16}   {'calls C, Rust':>15}   {'bytes held':>12}")
    for workload, count in dict.fromkeys(key[:2] for key in found):
        c, rust = found[workload, count, "C"], found[workload, count, "Rust"]
        ratio = rust.median / c.median
        name = f"{workload}, {count:,}"
        held = f"{c.held:,} {rust.held:,}" if c.held else ""
        print(f"{name:27}{c.median / c.lines:10,.1f}{rust.median / rust.lines:10,.1f}{ratio:8.4f}   "
              f"{c.spread / c.median:8.2%}{rust.spread / rust.median:8.2%}   "
              f"{f'{c.calls:,} {rust.calls:,}':>15}   {held:>12}")
        if ratio > TOLERANCE:
            worse.append(f"{name}: {ratio:.4f} times the instructions of C")
        if rust.calls > c.calls:
            worse.append(f"{name}: {rust.calls} calls, C {c.calls}")
    return worse


def growth(found):
    """Prints what each further line takes; gives what grows that must not."""
    worse = []
    for workload in dict.fromkeys(key[0] for key in found):
        counts = sorted({key[1] for key in found if key[0] == workload})
        if len(counts) < 2:
            continue
        steps = {}
        for implementation in ("C", "Rust"):
            few, many = (found[workload, n, implementation] for n in (counts[0], counts[-1]))
            steps[implementation] = (many.median - few.median) / (many.lines - few.lines)
            if few.held < BUFFER:
                raise Failed(f"{workload}: a reader is said to hold {few.held} bytes, less than its "
                             "buffer; slab accounting is not what maps-bench expects")
            if many.held - few.held > HELD_TOLERANCE and implementation == "Rust":
                worse.append(f"{workload}: a reader holds {few.held} bytes with {counts[0]} mappings, "
                             f"{many.held} with {counts[-1]:,}")
        name = f"{workload}, each more"
        print(f"{name:27}{steps['C']:10,.1f}{steps['Rust']:10,.1f}{steps['Rust'] / steps['C']:8.4f}")
    return worse


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N",
                        help="measure N times, C and Rust in turn (default: 5)")
    args = parser.parse_args()
    build_all()
    say("measuring, with a guest that counts instructions: about 1 min")
    result = guest.boot(f"maps-bench --rounds {args.rounds}", name="bench", accel="icount", timeout=1800)
    text = result.output.decode(errors="replace")
    if result.status:
        raise Failed(f"maps-bench failed: {text.strip().splitlines()[-1]}")
    if result.reports():
        raise Failed(f"the kernel reports: {result.reports()[0]} (all of it: {shown(result.log_path)})")

    target = OUT / "bench/bench.csv"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    found = measured(csv.DictReader(text.splitlines()))
    worse = compare(found)
    worse += growth(found)
    print(f"All measurements: {shown(target)}")
    for line in worse:
        say(f"worse than C: {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    main(run)
