#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures what a page takes in /proc/PID/smaps_rollup and numa_maps, by kinds of
pages, in a guest that counts instructions: on the kernel with the series, C and Rust,
and on its base, which is built for that (the first time some 12 minutes).

Fails when a page takes more than it may (MOST in the source). All measurements are in
out/bench/pages.csv and pages-base.csv, and beside them is a plot. `make bench` does
this, too.
"""

import argparse

import bench_writers
import build
import guest
import plots
from common import OUT, Progress, lock, main, say, shown
from run import build_all

# The most instructions a page of a reader in Rust, by kind and file. The others are shown.
MOST = {
    ("anonymous", "smaps_rollup"): 45,
    ("anonymous, after fork", "smaps_rollup"): 60,
    ("of a 64 KiB folio", "smaps_rollup"): 15,
    ("of a file", "smaps_rollup"): 55,
    ("of a file, mapped by two", "smaps_rollup"): 60,
    ("anonymous", "numa_maps"): 45,
    ("of a file", "numa_maps"): 50,
}


def measure(kernel, name):
    """Gives the instructions by (kind, file) and implementation."""
    with Progress(f"measuring pages, {name}, with a guest that counts instructions"):
        rows, target = bench_writers.measure(kernel, "pages-bench", name, name=name, accel="icount", timeout=1200)
    found = {}
    for row in rows:
        found.setdefault((row["kind"], row["file"]), {})[row["implementation"]] = max(0, float(row["instructions"]))
    return found, target


def bench():
    """Measures and prints; gives what takes more than it may."""
    found, target = measure(guest.KERNEL, "pages")
    with lock():
        base = build.build_base()
    before, _ = measure(base, "pages-base")
    worse = []
    print(f"{'instructions a page':55}{'base':>10}{'C':>10}{'Rust':>10}{'Rust/base':>10}{'at most':>10}")
    for key, now in found.items():
        kind, file = key
        base = before[key]["C"]
        name = f"{file}: {kind}"
        print(f"{name:55}{base:10.1f}{now['C']:10.1f}{now['Rust']:10.1f}{now['Rust'] / base:10.3f}{MOST.get(key, ''):>10}")
        if key in MOST and now["Rust"] > MOST[key]:
            worse.append(f"{name}: {now['Rust']:.1f} instructions a page, at most {MOST[key]} expected")
    plots.pages([(f"{file}: {kind}", {"base": before[kind, file]["C"], **now}) for (kind, file), now in found.items()],
                OUT / "bench/pages.svg")
    print(f"All measurements: {shown(target)}, {shown(OUT / 'bench/pages.svg')}\n")
    return worse


def run():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    build_all()
    worse = bench()
    for line in worse:
        say(f"worse than it has to be: {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    main(run)
