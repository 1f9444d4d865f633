#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds and runs the model checker of the protocols, tools/testing/task_mmu.

It needs no kernel. Its arguments are those of the checker, --help tells them.
"""

import os
import re
import subprocess
import sys

import series
from common import CACHE, LOG, TREE, Failed, Progress, lock, main, shown

# In the laid tree a file is newer than what was built from it if it differs.
PROGRAM = TREE / "tools/testing/task_mmu/run.sh"
ENV = {**os.environ, "CARGO_TARGET_DIR": str(CACHE / "build/model")}


def cases(long=False, timeout=None, first=False):
    """Case, what was tried, result and notes of each run, with the protocols of
    the laid tree. After timeout seconds, or the first run that fails, the rest is
    not run."""
    path = LOG / "model.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = []
    notes = []
    with Progress("checking the model") as progress, open(path, "w") as log:
        child = subprocess.Popen([*(["timeout", str(timeout)] if timeout else []), PROGRAM,
                                  *(["--long"] if long else [])], env=ENV, text=True, errors="replace",
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in child.stdout:
            log.write(line)
            if m := re.match(r"(ok|not ok) \d+ (\S+) (\S+) # (.*)$", line):
                result, case, reader, tried = m.groups()
                found.append((case, f"{reader}: {tried}", result, notes if result == "not ok" else []))
                progress.far = f"{len(found)} runs"
                notes = []
                if first and result == "not ok":
                    child.terminate()
                    break
            else:
                notes = [*notes[-40:], line.rstrip()]
        status = child.wait()
    if timeout and status == 124:
        return [*found, ("all", f"no end after {timeout} s", "not ok", notes[-10:])]
    if not found:
        raise Failed("\n  ".join([f"the model checker gave no result; the log is {shown(path)}", *notes[-10:]]))
    if status and all(result == "ok" for _, _, result, _ in found):
        found.append(("all", "exit status", "not ok", [f"it is {status}", *notes[-10:]]))
    return found


def failures(timeout):
    """The first run that fails with the protocols of the laid tree, or that there is
    no end after timeout seconds."""
    return [f"{case}, {tried}" for case, tried, result, _ in cases(timeout=timeout, first=True)
            if result == "not ok"]


def run():
    with lock():
        series.lay()
    return subprocess.run([PROGRAM, *sys.argv[1:]], env=ENV).returncode


if __name__ == "__main__":
    main(run)
