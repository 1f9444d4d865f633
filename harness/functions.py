#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Counts the instructions of each kernel function while a file is read, C and
Rust side by side.

The emulator logs the address of each instruction while the guest reads a process
with 2,000 mappings once by either implementation. That is exact, so nothing is
sampled, and there is nothing to be repeated.
"""

import argparse
import bisect
import collections
import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import deb
import guest
from common import CACHE, Failed, Progress, main
from run import build_all


class Symbols:
    """The functions of the kernel by address."""

    def __init__(self, vmlinux):
        names = subprocess.run(["nm", "-n", "-C", vmlinux], capture_output=True, text=True, check=True)
        found = re.findall(r"^([0-9a-f]+) [tTwW] (.*)$", names.stdout, re.M)
        self.starts = [int(address, 16) for address, _ in found]
        self.names = [re.sub(r"\[[0-9a-f]{8,}\]|::\{closure#\d+\}", "", name) for _, name in found]

    def name(self, address):
        i = bisect.bisect_right(self.starts, address) - 1
        return self.names[i] if i >= 0 else "?"


class Monitor:
    """QEMU's monitor."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise Failed("QEMU's monitor does not answer")
        self.answer()

    def answer(self):
        text = b""
        while not text.endswith(b"(qemu) "):
            text += self.socket.recv(4096)

    def say(self, command):
        self.socket.sendall(command.encode() + b"\n")
        self.answer()


def traced(workload, kernel):
    """For either implementation, how many lines it has read and how often each address was executed."""
    found = {}
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        initrd = guest.with_command(f"maps-bench --trace '{workload}'", False, None, folder)
        argv = guest.qemu(kernel, initrd, folder, "icount", None, "nokaslr")
        argv += ["-monitor", f"unix:{folder}/monitor,server=on,wait=off"]
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            monitor = Monitor(folder / "monitor")
            for line in child.stdout:
                if m := re.match(rb"trace (\w+) (\d+)", line):
                    who, lines = m[1].decode(), int(m[2])
                    monitor.say("one-insn-per-tb on")
                    monitor.say(f"logfile {folder}/log")
                    monitor.say("log exec,nochain")
                    child.stdin.write(b"\n")
                    child.stdin.flush()
                elif line.startswith(b"done"):
                    monitor.say("log none")
                    monitor.say("one-insn-per-tb off")
                    counts = collections.Counter()
                    with open(folder / "log", "rb") as log:
                        for entry in log:
                            if entry.startswith(b"Trace"):
                                counts[entry.split(b"/", 2)[1]] += 1
                    found[who] = lines, {int(a, 16): n for a, n in counts.items()}
                    (folder / "log").unlink()
                else:
                    raise Failed(f"the guest says: {line.decode(errors='replace').strip()}")
        finally:
            child.kill()
            child.wait()
    return found


def short(name):
    """A name of Rust without its path."""
    return re.sub(r"\b[a-z_]\w*::(?=[A-Za-z_<])", "", name) if "::" in name else name


def table(symbols, found):
    """Prints what each function takes per line, C beside Rust."""
    spent = {}
    for who, (lines, counts) in found.items():
        functions = collections.Counter()
        for address, n in counts.items():
            if address >> 63:   # not the program that reads
                functions[short(symbols.name(address))] += n
        spent[who] = {name: n / lines for name, n in functions.items()}
    print(f"{'C':>8}{'Rust':>8}  instructions per line")
    print(f"{sum(spent['C'].values()):8.1f}{sum(spent['Rust'].values()):8.1f}  all")
    most = {name: max(spent[who].get(name, 0) for who in spent) for name in {n for s in spent.values() for n in s}}
    for name in sorted(most, key=most.get, reverse=True):
        if most[name] >= 1:
            columns = (f"{spent[who][name]:8.1f}" if name in spent[who] else f"{'':8}" for who in ("C", "Rust"))
            print(f"{''.join(columns)}  {name}")


def show(function, vmlinux, symbols, found):
    """Prints the instructions of a function, with how often each is executed per line."""
    for start, end, name in zip(symbols.starts, symbols.starts[1:], symbols.names):
        if function not in name:
            continue
        for lines, counts in found.values():
            if not any(start <= address < end for address in counts):
                continue
            code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", f"--start-address={start}",
                                   f"--stop-address={end}", vmlinux], capture_output=True, text=True, check=True)
            print(name)
            for line in code.stdout.splitlines():
                if m := re.match(r"([0-9a-f]+):", line.strip()):
                    n = counts.get(int(m[1], 16), 0)
                    print(f"{n / lines:8.2f} {line}" if n else f"{'':8} {line}")


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", default="anonymous", help="as the benchmark names it (default: anonymous)")
    parser.add_argument("--function", metavar="NAME", help="show the instructions of the functions whose name contains this")
    parser.add_argument("--debian", action="store_true", help="on the kernel of the small Debian packages")
    args = parser.parse_args()
    build_all()
    kernel = deb.small_kernel() if args.debian else guest.KERNEL
    vmlinux = kernel.parents[3] / "vmlinux"
    with Progress("tracing"):
        found = traced(args.workload, kernel)
    symbols = Symbols(vmlinux)
    if args.function:
        return show(args.function, vmlinux, symbols, found)
    table(symbols, found)


if __name__ == "__main__":
    main(run)
