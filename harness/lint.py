#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Checks the sources: formatting, clippy, checkpatch and b4 over the series, comments
that argue each unsafe, license lines, and the harness's own programs."""

import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import build
import mutants
import series
from common import BASE, CACHE, SRC, TREE, Failed, git, lock, main, say

# A file here for each patch that checkpatch.pl, or each set that b4, had nothing to say about.
CLEAN = CACHE / "checkpatch"
CLEAN_SETS = CACHE / "b4"

# Texts that git or `git am` take as they are.
NO_LICENSE = re.compile(r"series/(sets|[^/]+/(cover|[^/]+/(message|files|edits\.patch)))|LICENSE.*")


def sources():
    """All files of the checkout that are its own."""
    skip = {".git", "out", "__pycache__", "target"}
    return sorted(p for p in SRC.rglob("*")
                  if p.is_file() and not skip & set(p.relative_to(SRC).parts))


def laid(suffix):
    """The files of the series as they are in the kernel tree."""
    return sorted({p for c in series.commits() for p in c.files + c.edited if p.endswith(suffix)})


def rustfmt():
    files = [TREE / p for p in laid(".rs")] + sorted(SRC.glob("harness/compile-fail/*.rs"))
    done = subprocess.run(["rustfmt", "--check", "--color", "never", "--edition", "2021", "--config-path",
                           TREE / ".rustfmt.toml", *files], capture_output=True, text=True)
    if done.returncode:
        # a file is looked at again for each file that names it as its module
        diffs = dict.fromkeys(re.split(r"^(?=Diff in )", done.stdout, flags=re.M))
        raise Failed(f"rustfmt would change:\n{''.join(diffs) or done.stderr}")


def clippy():
    with lock():
        build.build("lint", "CLIPPY=1", "prepare", "fs/proc/task_mmu/")


# The base comes without its history, in which the commits of Fixes: could be looked up.
CHECKPATCH = ["scripts/checkpatch.pl", "--strict", "--show-types", "--no-summary", "--terse",
              "--ignore", "UNKNOWN_COMMIT_ID"]


def text_of(patch):
    """A mail without the lines of git's header that differ each time it is written."""
    return re.sub(rb"\A(From |Date: ).*\n|^Date: .*\n", b"", patch.read_bytes(), flags=re.M)


def digest(command, patches):
    """Identifies what checkpatch.pl, called by this command, is asked about these mails."""
    tool = b"".join((TREE / "scripts" / name).read_bytes() for name in ("checkpatch.pl", "spelling.txt"))
    return hashlib.sha256(tool + command.encode() + b"".join(map(text_of, patches))).hexdigest()


def forget(folder, used):
    """Removes all other files of the folder."""
    for old in set(folder.iterdir()) - set(used):
        old.unlink()


def checkpatch():
    with lock():
        mails, _ = series.export(quiet=True)
    CLEAN.mkdir(exist_ok=True)
    used = set()

    def check(patch):
        clean = CLEAN / digest(" ".join(CHECKPATCH), [patch])
        used.add(clean)
        if clean.exists():
            return []
        done = subprocess.run([*CHECKPATCH, patch], cwd=TREE, capture_output=True, text=True)
        text = patch.read_text().splitlines()
        # the assertion of the base's test of maple trees crashes nothing
        bad = [line.removeprefix(str(patch.parents[1]) + "/") for line in done.stdout.splitlines()
               if not ((m := re.search(r":(\d+): WARNING:AVOID_BUG:", line))
                       and "MT_BUG_ON(" in text[int(m[1]) - 1])]
        if done.returncode and not done.stdout:
            bad = [f"{patch.name}: checkpatch.pl failed: {done.stderr.strip()}"]
        if not bad:
            clean.touch()
        return bad

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        patches = [patch for patches in mails.values() for patch in patches[1:]]
        bad = [line for lines in pool.map(check, patches) for line in lines]
    forget(CLEAN, used)
    if bad:
        raise Failed("\n".join(["checkpatch.pl --strict says:", *bad]))


# What tells checkpatch.pl that it is in a kernel's tree, and what it reads there.
TOP = ("COPYING", "CREDITS", "Kbuild", "MAINTAINERS", "Makefile", "README", "Documentation", "arch", "include",
       "drivers", "fs", "init", "ipc", "kernel", "lib", "scripts")


def b4():
    """Each set as a branch over the ones before, as it is before b4 sends it; without network."""
    with lock():
        mails, _ = series.export(quiet=True)
    CLEAN_SETS.mkdir(exist_ok=True)
    # checkpatch() looks at the one file whose assertions may crash a test, and there is no history
    command = "./scripts/checkpatch.pl -q --terse --no-summary --strict --ignore UNKNOWN_COMMIT_ID,AVOID_BUG"
    stamps = {name: CLEAN_SETS / f"{name}-{digest(command, patches)}" for name, patches in mails.items()}
    forget(CLEAN_SETS, stamps.values())
    if all(stamp.exists() for stamp in stamps.values()):
        return
    bad = []
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        series.scratch(folder, series.commits())
        shutil.copytree(BASE / "LICENSES", folder / "LICENSES")
        for name in TOP:
            if not (folder / name).exists():
                (folder / name).symlink_to(BASE / name)
        who = {"user.name": "check", "user.email": "check@localhost", "b4.prep-perpatch-check-cmd": command}
        for key, value in who.items():
            git("config", key, value, cwd=folder)
        git("add", "-A", cwd=folder)
        git("commit", "-q", "-m", "what else checkpatch.pl reads", cwd=folder)
        ends = [git("rev-parse", "HEAD", cwd=folder).decode().strip()]
        for patches in mails.values():
            git("am", "-q", *patches[1:], cwd=folder)
            ends.append(git("rev-parse", "HEAD", cwd=folder).decode().strip())
        for (name, patches), start, end in zip(mails.items(), ends, ends[1:]):
            if stamps[name].exists():
                continue
            git("checkout", "-q", "-b", f"b4/{name}", end, cwd=folder)
            for step in (["--enroll", start], ["--check"]):
                done = subprocess.run(["b4", "--offline-mode", "prep", *step], cwd=folder, capture_output=True,
                                      text=True, stdin=subprocess.DEVNULL)
            said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
            if f"Success: {len(patches) - 1}, Warning: 0, Error: 0" in said:
                stamps[name].touch()
            else:
                bad += [f"{name}:", *said.splitlines()[-40:]]
    if bad:
        raise Failed("\n".join(["b4 prep --check says:", *bad]))


def unsafe_comments():
    """Clippy asks for a SAFETY comment where it compiles; this sees examples
    in documentation and what a configuration leaves out, too."""
    bad = []
    for path in laid(".rs"):
        if (series.BASE / path).exists():
            continue
        lines = [re.sub(r"^\s*(//[/!] ?)?(# )?", "", line) for line in (SRC / path).read_text().splitlines()]
        for n, line in enumerate(lines):
            if not re.search(r"(?<!`)\bunsafe (impl\b|\{)", re.sub(r"//.*", "", line)):
                continue
            # the comment stands above the statement that the block is in
            above = lines[max(0, n - 12):n + 1]
            start = max((i for i, text in enumerate(above[:-1]) if re.search(r"[;{}]\s*$", text)
                         and not text.startswith("//")), default=-1)
            if not any("SAFETY:" in text for text in above[start + 1:]):
                bad.append(f"{path}:{n + 1}: {line.strip()}")
    if bad:
        raise Failed("\n".join(["unsafe without a SAFETY: comment:", *bad]))


def licenses():
    bad = [p for p in sources() if not NO_LICENSE.fullmatch(str(p.relative_to(SRC)))
           and not any(b"SPDX-License-Identifier: GPL-2.0" in line
                       for line in p.read_bytes().splitlines()[:2])]
    if bad:
        raise Failed("no SPDX-License-Identifier in the first two lines of: "
                     + " ".join(str(p.relative_to(SRC)) for p in bad))


def scripts():
    for path in sources():
        first = path.read_bytes().split(b"\n", 1)[0]
        if path.suffix == ".py":
            try:
                compile(path.read_text(), path.name, "exec")
            except SyntaxError as e:
                raise Failed(f"{path.relative_to(SRC)}: {e}") from None
        elif m := re.match(rb"#!/bin/(ba)?sh$", first):
            shell = "bash" if m[1] else "sh"
            done = subprocess.run([shell, "-n", path], capture_output=True, text=True)
            if done.returncode:
                raise Failed(done.stderr.strip())


def spelling():
    """By codespell itself, which takes a second for what takes checkpatch.pl --codespell minutes."""
    done = subprocess.run(["codespell", *(p for p in sources() if p.suffix != ".svg")], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"codespell says:\n{done.stdout or done.stderr}")


# Where functions that are named may be, and lines that only speak of them.
CODE = ("fs", "include", "kernel", "mm", "lib", "rust", "block", "arch/x86", "tools/testing", "samples/rust")
COMMENT = re.compile(r"\s*(\*|//|/\*|#|\.\.)")


def named():
    """A page or a comment that names a function which is gone leads nowhere."""
    where = {}
    for path in laid(""):
        if (BASE / path).exists() or not path.endswith((".rst", ".rs", ".c", ".h")):
            continue
        for number, line in enumerate((TREE / path).read_text().splitlines(), 1):
            if path.endswith(".rst") or COMMENT.match(line):
                for name in re.findall(r"(?<![.:\w])([a-z_]\w+)\(\)", line):
                    where.setdefault(name, f"{path}:{number}")
    found = subprocess.run(["grep", "-rhwF", "--include=*.[chS]", "--include=*.rs", "-f", "-", *CODE], cwd=TREE,
                           input="\n".join(where), capture_output=True, text=True)
    code = "\n".join(line for line in found.stdout.splitlines() if not COMMENT.match(line))
    missing = sorted(where.keys() - set(re.findall(r"\w+", code)))
    if missing:
        raise Failed("no code has a function of this name:\n" + "\n".join(f"{where[n]}: {n}()" for n in missing))


CHECKS = {
    "rustfmt": (rustfmt, "the kernel's rustfmt settings change nothing"),
    "licenses": (licenses, "every file says its license"),
    "scripts": (scripts, "the harness's programs parse"),
    "spelling": (spelling, "codespell knows all words"),
    "named": (named, "functions that pages and comments name exist"),
    "mutants": (mutants.check, "each mutant still has what it replaces"),
    "unsafe": (unsafe_comments, "every unsafe has a SAFETY: comment"),
    "checkpatch": (checkpatch, "checkpatch.pl --strict has nothing to say about the series"),
    "b4": (b4, "b4 prep --check has nothing to say about any set"),
    "clippy": (clippy, "clippy, as the kernel configures it, has nothing to say"),
}


def run():
    checks = "\n".join(f"  {name:12}{what}" for name, (_, what) in CHECKS.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"checks:\n{checks}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", nargs="*", metavar="CHECK", help="only these (default: all)")
    args = parser.parse_args()
    for name in args.check:
        if name not in CHECKS:
            raise Failed(f"there is no check {name}; there are: {', '.join(CHECKS)}")
    with lock():
        series.lay()
    failed = []
    for name in args.check or CHECKS:
        try:
            CHECKS[name][0]()
            print(f"ok {name}", flush=True)
        except Failed as e:
            failed.append(name)
            print(f"FAIL {name}: {e}", flush=True)
    if failed:
        say(f"lint failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    main(run)
