#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures what an application notices of its monitoring: how long a database in a
Debian with the kernel packages takes to answer while nobody monitors it, while
programs do that C serves, and the same that Rust serves, at their usual interval and
ten times as often.

The database is H2 (package libh2-java), in a JVM with a heap of 1.5 GiB of 4 KiB pages.
It starts a thread for each connection, and each request is a connection of its own. It
is monitored by the process exporter of Prometheus, by atop -R and by an agent that
reads smaps. All that was measured is in out/bench/application.json, and a plot beside
it. `make bench` does this, too.
"""

import argparse
import collections
import json
import pathlib
import shutil
import tempfile

import deb
import debian
import plots
from common import OUT, Failed, Progress, main, say, shown

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1}
# Rust is not worse than C, as a multiple of what that is, at p99: what is longer is too rare to compare.
NOISE = 1.3


class Samples:
    """Reads what the guest's program says, as it comes, and says how far it is."""

    def __init__(self, progress, of):
        self.progress = progress
        self.of = of
        self.rest = b""
        self.found = []
        self.other = []

    def write(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            try:
                self.found.append(json.loads(line))
            except ValueError:
                self.other.append(line.decode(errors="replace"))
        self.progress.far = f"{len(self.found)} of {self.of} measurements"

    def flush(self):
        pass


def measure(rounds, seconds):
    """What answers took, a dictionary for each measurement."""
    image = debian.prepare(deb.asked(small=True))
    with tempfile.TemporaryDirectory(dir=debian.FOLDER) as folder, debian.overlay(image) as disk, \
            Progress(f"measuring a monitored application (about {5 * rounds * seconds // 60 + 4} min)") as progress:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        for name in ("application.py", "clients.py"):
            shutil.copy(debian.FILES / name, folder)
        samples = Samples(progress, 5 * rounds)
        result = debian.boot(f"cp -r /share /opt/application && python3 /opt/application/application.py "
                             f"--rounds {rounds} --seconds {seconds} 2>&1", disk=disk, name="application",
                             share=folder, timeout=900 + 8 * rounds * seconds, output=samples)
    if result.status or len(samples.found) != 5 * rounds:
        raise Failed("\n  ".join(["the application could not be measured:", *samples.other[-8:]]))
    if reports := result.reports():
        raise Failed(f"the kernel reports: {reports[0]} (all of it: {shown(result.path)})")
    target = OUT / "bench/application.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{json.dumps(row)}\n" for row in samples.found))
    return samples.found


def quantile(times, part):
    return sorted(times)[min(len(times) - 1, int(part * len(times)))]


def bench(rounds, seconds=60):
    """Measures, prints and plots; gives what is worse than required, a line each."""
    found = collections.defaultdict(list)
    for row in measure(rounds, seconds):
        found[row["interval"], row["who"]] += [ns / 1e6 for ns in row["ns"]]
    print(f"{'answers of a database, ms':32}{'requests':>10}" + "".join(f"{name:>10}" for name in QUANTILES))
    for (interval, who), times in sorted(found.items()):
        name = f"monitored each {interval} s, {who}" if who else "not monitored"
        print(f"{name:32}{len(times):10,}" + "".join(f"{quantile(times, q):10,.1f}" for q in QUANTILES.values()))
    plots.application(found, OUT / "bench/application.svg")
    print(f"All measurements: {shown(OUT / 'bench/application.json')}, {shown(OUT / 'bench/application.svg')}")
    p99 = {key: quantile(times, 0.99) for key, times in found.items()}
    return [f"monitored each {interval} s: p99 is {rust:.1f} ms, with C {p99[interval, 'C']:.1f} ms"
            for (interval, who), rust in p99.items() if who == "Rust" and rust > NOISE * p99[interval, "C"]]


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, metavar="N",
                        help="measure N times, the implementations in turn (default: 2)")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="how long each time (default: 60)")
    args = parser.parse_args()
    missed = bench(args.rounds, args.seconds)
    for line in missed:
        say(line)
    return 1 if missed else 0


if __name__ == "__main__":
    main(run)
