#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the programs that people read /proc/PID/maps and its family with, in a Debian
with the kernel packages installed, with C serving and with Rust; prints KTAP.

Of stopped processes both have to lead to the same output. Beside that: the packages
install, boot and go without a trace, and the journal has no warning that Debian's own
kernel does not give.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import tempfile

import deb
import debian
from common import LOG, Failed, Progress, lock, main, say, shown, step, tell
from ktap import Case, check, finish

SWITCH = "/sys/module/task_mmu/parameters/rust"
PROGRAMS = debian.FILES / "programs"
SANITIZERS = ("address", "undefined", "leak", "thread")


def compile_programs(folder):
    """The processes that are looked at, and programs that use sanitizers."""
    cc = ["gcc", "-g", "-O1", "-Wall", "-D_GNU_SOURCE", "-pthread", "-fno-omit-frame-pointer"]
    jobs = [[*cc, "-o", folder / name, PROGRAMS / f"{name}.c"] for name in ("target", "query")]
    jobs += [[*cc, f"-fsanitize={name}", "-Wno-use-after-free", "-o", folder / f"mistake-{name}", PROGRAMS / "mistake.c"]
             for name in SANITIZERS]
    jobs += [[*cc, "-Wno-use-after-free", "-o", folder / "mistake-none", PROGRAMS / "mistake.c"],
             ["rustc", "-g", "-C", "opt-level=1", "-o", folder / "trace", PROGRAMS / "trace.rs"]]
    for n, job in enumerate(jobs):
        step(f"compiling {pathlib.Path(job[-1]).name}", job, f"clients-compile-{n}.log")


class Outcomes:
    """Reads what the clients' program says, as it comes, and says how far it is."""

    def __init__(self, progress, count):
        self.progress = progress
        self.count = count
        self.all = open(LOG / "clients.out", "w")
        self.rest = b""
        self.clients = {}
        self.took = {}
        self.other = []

    def write(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            print(line.decode(errors="replace"), file=self.all, flush=True)
            try:
                said = json.loads(line)
            except ValueError:
                self.other.append(line.decode(errors="replace"))
                continue
            if "took" in said:
                self.took[said["took"]] = said["seconds"]
                longest = ", ".join(f"{name} {s} s" for s, name in
                                    sorted(((s, n) for n, s in self.took.items()), reverse=True)[:4])
                self.progress.far = f"{len(self.took)} of {self.count} clients (the longest {longest})"
            else:
                self.clients.setdefault(said["client"], []).append(Case(said["case"], said["result"], said["notes"]))
                if said["result"] == "not ok":
                    say(f"not ok: {said['client']}: {said['case']}")

    def flush(self):
        pass


def listed():
    """The names of the clients."""
    text = (debian.FILES / "clients.py").read_text()
    table = text[text.index("CLIENTS = {"):]
    return [part.split('"')[1] for part in table[:table.index("}")].split(",") if '"' in part]


def clients(image, only, switch=None):
    """The clients' outcomes on this image; without a switch given, by that of the kernel."""
    names = only or listed()
    with tempfile.TemporaryDirectory(dir=debian.FOLDER) as folder, debian.overlay(image) as disk:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        compile_programs(folder)
        shutil.copy(debian.FILES / "clients.py", folder)
        command = f"cp -r /share /opt/clients && python3 /opt/clients/clients.py {' '.join(only or [])} 2>&1"
        if switch:
            command = f"echo Y >{switch}; export TASK_MMU_SWITCH={switch}; {command}"
        with Progress("clients") as progress:
            outcomes = Outcomes(progress, len(names))
            result = debian.boot(command, disk=disk, name="clients", share=folder, timeout=2400, output=outcomes)
    cases = []
    for name in names:
        cases.append(Case(name, subtests=outcomes.clients.pop(name, None)
                          or [Case("results", "not ok", ["there are none", *outcomes.other[-5:]])]))
    cases += [Case(name, subtests=subtests) for name, subtests in outcomes.clients.items()]
    cases.append(check("clients-end", result.status == 0, *outcomes.other[-12:]))
    reports = result.reports()
    cases.append(check("kernel-log", not reports, *reports[:20], f"all of it: {shown(result.path)}"))
    return cases


def removal(image, kind):
    """The kernel that was installed by apt boots; Debian's is booted beside it, it is removed, and
    all is as before. And what the journals of both boots say."""
    entry = ("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux "
             "$(cd /boot && ls vmlinuz-*+deb* | sed s/vmlinuz-//)")
    cases = []
    with debian.overlay(image) as disk:
        with Progress("booting what was installed"):
            ours = debian.boot(f"uname -r; cat {SWITCH}; test -f /lib/modules/$(uname -r)/build/Makefile && echo headers; "
                               f"grub-reboot \"{entry}\"", disk=disk, name="installed", keep=True)
        said = ours.text().split()
        cases.append(check("boots-by-itself", said[:1] == [kind.release()], f"it runs {' '.join(said)}"))
        cases.append(check("rust-serves", kind.plain or said[1:2] == ["Y"], f"it says {' '.join(said)}"))
        cases.append(check("headers", "headers" in said, f"it says {' '.join(said)}"))
        with Progress("going back and removing it"):
            theirs = debian.boot(f"uname -r; DEBIAN_FRONTEND=noninteractive apt-get purge -y "
                                 f"linux-image-{kind.release()} linux-headers-{kind.release()}; "
                                 f"{{ {debian.STATE}; }} >/tmp/after; diff /var/lib/task_mmu.before /tmp/after && echo as before",
                                 disk=disk, name="removed", keep=True)
    lines = theirs.text().splitlines()
    cases.append(check("going-back", lines and "+deb" in lines[0], *lines[:1]))
    cases.append(check("leaves-nothing", "as before" in lines, *lines[-30:]))
    new = ours.warnings() - theirs.warnings()
    if new:
        # how long the host lets the guest wait is what a kernel warns of as well, in one boot and not in the next
        with debian.overlay(image) as disk, Progress("booting once more for warnings"):
            new &= debian.boot("true", disk=disk, name="installed-again").warnings()
    cases.append(check("no-new-warnings", not new, *sorted(new)[:20], f"the journals: {shown(ours.path)}, {shown(theirs.path)}"))
    reports = ours.reports()
    cases.append(check("kernel-log", not reports, *reports[:20]))
    return cases


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=f"pieces: install, {', '.join(listed())}")
    parser.add_argument("--only", metavar="A,B", help="only these pieces (default: ONLY)")
    parser.add_argument("--own", action="store_true", help="on Debian's own kernel, where C is compared with C: what "
                        "fails there tells nothing about the series")
    args = parser.parse_args()
    only = [name for name in (args.only or os.environ.get("ONLY") or "").split(",") if name]
    for name in only:
        if name not in ("install", *listed()):
            raise Failed(f"there is no piece {name}; see --help")
    names = [name for name in only if name != "install"]
    cases = []
    if args.own:
        with lock():
            debian.make_image()
        cases.append(Case("clients", subtests=clients(debian.IMAGE, names, "/tmp/switch")))
    else:
        kind = deb.asked(small=True)
        image = debian.prepare(kind)
        if not only or "install" in only:
            cases.append(Case("install", subtests=removal(image, kind)))
        if not only or names:
            cases.append(Case("clients", subtests=clients(image, names)))
    print("KTAP version 1")
    print(f"1..{len(cases)}", flush=True)
    for number, case in enumerate(cases, 1):
        tell(case.ktap(number))
    counts = collections.Counter(leaf.result for case in cases for leaf in case.leaves())
    return finish(counts)


if __name__ == "__main__":
    main(run)
