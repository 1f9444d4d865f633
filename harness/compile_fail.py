#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks that misuse of the abstractions does not compile.

Each file of harness/compile-fail is a crate. What must fail in it is marked by
`//~ ERROR TEXT` at the end of the line, or on a line of its own above it; TEXT is
an error code or a part of the message. The errors must be these and no others.
Files named ok-*.rs are the controls: they must compile. All are compiled
against the kernel crate as it was built last, by the command that the build used for
fs/proc/task_mmu/task_mmu.rs.
"""

import argparse
import json
import re
import shlex
import subprocess
import tempfile

import build
from common import SRC, Failed, main

CASES = SRC / "harness/compile-fail"
RECORD = build.BUILD / "slim/fs/proc/task_mmu/.task_mmu.o.cmd"


def compiler():
    """The environment and the rustc command that the kernel's build recorded,
    less what names its source and outputs."""
    try:
        recorded = RECORD.read_text().splitlines()[0]
    except FileNotFoundError:
        raise Failed("the module is not built yet: run `make build`") from None
    command = recorded.split(" := ", 1)[1].replace("$$", "$").replace("\\#", "#")
    words = shlex.split(command.split(" ;", 1)[0])
    env = {"RUSTC_BOOTSTRAP": "1", "PATH": "/usr/bin:/bin"}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    argv = []
    skip = False
    for word in words:
        if skip or word.startswith("--emit") or word.endswith("/task_mmu.rs"):
            skip = False
        elif word == "--out-dir":
            skip = True
        else:
            argv.append(word)
    return env, argv


def place(message, name):
    """The line of the file that an error is about: where it is in a macro,
    that of the macro's use."""
    for span in message["spans"]:
        if not span["is_primary"]:
            continue
        while span:
            if span["file_name"] == name:
                return span["line_start"]
            span = (span.get("expansion") or {}).get("span")
    return 0


def problems(source, env, argv):
    """What is wrong with the outcome of compiling source, as lines."""
    expected = []
    lines = source.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if m := re.search(r"^(.*?)//~ ERROR (.+)$", line):
            expected.append((number if m[1].strip() else number + 1, m[2].strip()))
    control = source.name.startswith("ok-")
    if control == bool(expected):
        return ["a control has no `//~ ERROR`" if control else "there is no `//~ ERROR` in it"]

    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([*argv, "--crate-name", "case", "--cap-lints", "allow",
                               "--error-format=json", "--emit=metadata", "--out-dir", out, source],
                              cwd=build.BUILD / "slim", env=env, capture_output=True, text=True)
    errors = []
    for line in done.stderr.splitlines():
        if not line.startswith("{"):
            return [f"rustc says: {line}"]
        message = json.loads(line)
        if message["level"] == "error" and message["spans"]:
            code = (message["code"] or {}).get("code", "")
            errors.append((place(message, str(source)), f"{code} {message['message']}".strip()))
    wrong = []
    for number, text in expected:
        # One mistake may be several errors, such as one for each field of a type.
        left = [e for e in errors if e[0] != number or text not in e[1]]
        if len(left) < len(errors):
            errors = left
        else:
            wrong.append(f"line {number}: no error {text}")
    wrong += [f"line {number}: unexpected: {text}" for number, text in errors]
    if not wrong and (done.returncode == 0) != control:
        wrong.append(f"rustc's exit status is {done.returncode}: {done.stderr.strip()}")
    return wrong


def cases():
    """Name and problems of each case."""
    sources = sorted(CASES.glob("*.rs"))
    if not sources:
        raise Failed("harness/compile-fail has no case")
    env, argv = compiler()
    return [(s.stem, problems(s, env, argv)) for s in sources]


def run():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    failed = 0
    for name, wrong in cases():
        print(f"{'FAIL' if wrong else 'ok'} {name}", *wrong, sep="\n  ")
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    main(run)
