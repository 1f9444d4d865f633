#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures how long mmap() and munmap() of a page take while one of the process's
/proc/PID files is read at nice 15, by a reader that shares its CPU with a busy
task. This is what `run-proc-vs-map.sh --nsamples N --rawdata -- --busyduration MS
--procfile FILE` of Paul McKenney's proc-mmap_sem-test measures, by which the C
series for these files were judged.

It does so in a guest with two CPUs for maps, smaps, smaps_rollup and numa_maps,
and without a reader. The implementations are measured in turn, sample by sample:
C, C that holds mmap_lock (as before Linux 6.17), and Rust.

Fails when the mean beside a reader served by Rust is longer, beyond noise, than
both that beside a reader served by C and that without a reader. All measurements
are in out/bench/proc-vs-map.csv, and beside them is a plot. `make bench` does
this, too, with few samples.
"""

import argparse
import collections
import statistics

import bench_writers
import plots
from common import OUT, Progress, main, say, shown

# Without a reader, and two implementations of smaps_rollup, three of each other file.
SUBJECTS = 12
STATISTICS = {"mean": "mean", "median": "p50", "p99": "p99", "max": "max", "longest of all": "longest"}
PANELS = {"mean": "mean", "99th percentile": "p99", "longest of a sample": "max"}

# In us: longest of all samples, the others medians of what the samples have.
Latency = collections.namedtuple("Latency", "mean p50 p99 max longest")


def measured(rows):
    """What was measured, by file and implementation; without a reader both are "" """
    samples = collections.defaultdict(list)
    for row in rows:
        samples[row["file"], row["implementation"]].append(row)
    found = collections.defaultdict(dict)
    for (file, implementation), group in samples.items():
        columns = {c: [int(row[f"{c}_ns"]) / 1000 for row in group] for c in ("mean", "p50", "p99", "max")}
        found[file][implementation] = Latency(**{c: statistics.median(v) for c, v in columns.items()},
                                              longest=max(columns["max"]))
    return dict(found)


def shortened(us):
    return f"{us:,.0f}" if us >= 100 else f"{us:.1f}"


def show(found):
    print(f"{'mmap and munmap':16}" + "".join(f"{f'{name}, us':>27}" for name in STATISTICS))
    print(f"{'reader of':16}" + f"{'C':>9}{'lock':>9}{'Rust':>9}" * len(STATISTICS))
    for file, row in found.items():
        line = f"{file or 'no reader':16}"
        for column in STATISTICS.values():
            for implementation in plots.IMPLEMENTATIONS if file else ("", None, None):
                latency = row.get(implementation)
                line += f"{shortened(getattr(latency, column)) if latency else '':>9}"
        print(line.rstrip())


def plot(found, target):
    panels = []
    for title, column in PANELS.items():
        rows = [(file, {i: getattr(latency, column) for i, latency in row.items()})
                for file, row in found.items() if file]
        panels.append((title, getattr(found[""][""], column), rows))
    plots.proc_vs_map(panels, target)


def worse(found):
    for file, row in found.items():
        if not file:
            continue
        allowed = bench_writers.NOISE * max(row["C"].mean, found[""][""].mean)
        if row["Rust"].mean > allowed:
            yield (f"mmap and munmap beside a reader of {file}: the mean is {row['Rust'].mean:,.0f} us, "
                   f"more than {allowed:,.0f} us, {bench_writers.NOISE} times the larger of that of C "
                   "and of no reader")


def bench(kernel, nsamples, busyduration=2, duration=10):
    """Measures, prints and plots; gives what is worse than required, a line each."""
    command = (f"proc-vs-map --rawdata --nsamples {nsamples} --busyduration {busyduration} "
               f"--duration {duration}")
    count = nsamples * SUBJECTS
    about = count * (duration + 1)
    with Progress("measuring mmap and munmap beside a reader", about) as progress:
        rows, target = bench_writers.measure(kernel, command, "proc-vs-map", name="bench-proc-vs-map",
                                             timeout=300 + 3 * about,
                                             output=bench_writers.Lines(progress, count))
    found = measured(rows)
    show(found)
    plot(found, OUT / "bench/proc-vs-map.svg")
    print(f"\nAll measurements: {shown(target)}, {shown(OUT / 'bench/proc-vs-map.svg')}")
    return list(worse(found))


def number(least, most):
    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is no number from {least} to {most}")
        return int(text)
    return parse


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nsamples", type=number(1, 100_000), default=20, metavar="N",
                        help="measure each N times (default: 20, which takes about 45 min)")
    parser.add_argument("--busyduration", type=number(0, 100_000), default=2, metavar="MS",
                        help="the busy task works for MS milliseconds and sleeps for one, "
                             "with 0 it never sleeps (default: 2)")
    parser.add_argument("--duration", type=number(1, 30), default=10, metavar="S",
                        help="a sample takes S seconds (default: 10)")
    args = parser.parse_args()
    missed = bench(bench_writers.build_kernel(), args.nsamples, args.busyduration, args.duration)
    for line in missed:
        say(line)
    return 1 if missed else 0


if __name__ == "__main__":
    main(run)
