#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Configures and builds the laid-out kernel tree.

Each configuration is a fragment under harness/config that is laid over
allnoconfig and has its own object folder in the cache. `slim` is the kernel that
is booted and measured, `debug` has the kernel's checks on; the others leave out or
change something, and of them only the parts are built that the series touches.
"""

import argparse
import hashlib
import os
import re

import series
from common import CACHE, SRC, TREE, Failed, lock, main, need_space, shown, step

CONFIG = SRC / "harness/config"
BUILD = CACHE / "build"
# name: (architecture, fragments, the later ones win)
VARIANTS = {
    "slim": ("x86_64", ["slim"]),
    "module-off": ("x86_64", ["slim", "part", "module-off"]),
    "rust-off": ("x86_64", ["slim", "part", "rust-off"]),
    "per-vma-lock-off": ("x86_64", ["slim", "part", "per-vma-lock-off"]),
    "numa-off": ("x86_64", ["slim", "part", "numa-off"]),
    "page-monitor-off": ("x86_64", ["slim", "part", "page-monitor-off"]),
    "no-inline-helpers": ("x86_64", ["slim", "part", "no-inline-helpers"]),
    "lint": ("x86_64", ["slim", "part"]),
    "debug": ("x86_64", ["slim", "debug"]),
    "arm64": ("arm64", ["arm64"]),
}
# The configurations that are only built, to see that they can be.
MATRIX = [n for n in VARIANTS if n not in ("slim", "lint", "debug")]
PARTS = ["prepare", "fs/proc/", "mm/mmap_lock.o"]
# Fixed, so that building again what has not changed links nothing again.
STAMP = {"KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
         "KBUILD_BUILD_USER": "task_mmu", "KBUILD_BUILD_HOST": "task_mmu"}
WHOLE = ("slim", "debug")
WHOLE_STEPS = 1900


def make(name, *targets):
    arch = VARIANTS[name][0]
    return ["make", "-C", TREE, "LLVM=1", f"O={BUILD / name}", f"ARCH={arch}",
            f"-j{os.cpu_count() + 1}", "--output-sync=target", *targets]


def wanted(fragments):
    """What the fragments ask for: option and value, None for `is not set`."""
    options = {}
    for fragment in fragments:
        for line in fragment.read_text().splitlines():
            if m := re.fullmatch(r"# (CONFIG_\w+) is not set", line):
                options[m[1]] = None
            elif m := re.fullmatch(r"(CONFIG_\w+)=(.+)", line):
                options[m[1]] = m[2]
            elif line and line[0] != "#":
                raise Failed(f"{shown(fragment)} has a line that is no option: {line}")
    return options


def configure(name):
    """Makes .config from the fragments when these or the tree's Kconfig files
    changed; what comes out equal is left alone."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    arch, names = VARIANTS[name]
    fragments = [TREE / "kernel/configs/tiny-base.config", TREE / "kernel/configs/tiny.config",
                 *(CONFIG / f"{n}.config" for n in names)]
    text = "".join(f.read_text() for f in fragments)
    kconfigs = [f"{p} {d}" for p, d in series.laid().items() if "Kconfig" in p]
    identity = "\n".join([text, *kconfigs, series.version(TREE)])
    stamp = folder / ".configured"
    if stamp.exists() and stamp.read_text() == hashlib.sha256(identity.encode()).hexdigest():
        return
    asked = folder / ".config.asked"
    asked.write_text(text)
    step(f"configuring {name}", [*make(name), f"KCONFIG_ALLCONFIG={asked}",
         "KCONFIG_CONFIG=.config.new", "allnoconfig"], f"config-{name}.log")
    new = folder / ".config.new"
    got = wanted([new])
    wrong = [f"{option}={value or 'n'}" for option, value in wanted(fragments[2:]).items()
             if got.get(option) != value]
    if wrong:
        raise Failed(f"the kernel's configuration rules refuse what the fragments of {name} ask for: "
                     f"{' '.join(wrong)} (a dependency is missing or something selects it)")
    old = folder / ".config"
    if not old.exists() or old.read_bytes() != new.read_bytes():
        new.rename(old)
    stamp.write_text(hashlib.sha256(identity.encode()).hexdigest())


def unexpected(lines):
    """The warnings that the base does not give itself, each with the line
    after it, which names the place where rustc warns."""
    known = [re.compile(line) for line in (CONFIG / "warnings").read_text().splitlines()
             if line and line[0] != "#"]
    found = []
    for line, after in zip(lines, [*lines[1:], ""]):
        if not re.search(r"\bwarning:", line, re.IGNORECASE):
            continue
        if re.match(r"warning: (`\S+` \(lib\) generated )?\d+ warnings? ", line):
            continue
        text = f"{line} {after}"
        if not any(k.search(text) for k in known):
            found.append(text.rstrip())
    return found


def build_again(name, warnings):
    """Makes the next build compile again what gave these warnings, so that
    they cannot be forgotten."""
    for text in warnings:
        if m := re.match(r"(\S+\.o): warning: objtool", text):
            (BUILD / name / m[1]).unlink(missing_ok=True)
        elif m := re.search(rf"({TREE}/\S+?|--> \S+?):\d+", text):
            path = TREE / m[1].removeprefix("--> ")
            if path.is_file():
                os.utime(path)


def build(name, *targets):
    """Configures and builds; gives the path of the kernel image."""
    folder = BUILD / name
    if not folder.exists():
        need_space(2)
    configure(name)
    if not targets:
        targets = ["bzImage"] if name in WHOLE else PARTS
    fresh = name in WHOLE and not (folder / "vmlinux").exists()
    log = f"build-{name}.log"
    lines = step(f"building the kernel ({name})", make(name, *targets), log, env=STAMP,
                 count=r"^\s+[A-Z]+\b.* \S+$", of=WHOLE_STEPS if fresh else None, what="steps")
    if warnings := unexpected(lines):
        build_again(name, warnings)
        raise Failed("\n  ".join([f"building {name} gives warnings; the log is {shown(CACHE / 'log' / log)}",
                                  *warnings[:10]]))
    return folder / "arch/x86/boot/bzImage"


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="slim", choices=VARIANTS, metavar="NAME",
                        help=f"one of {', '.join(VARIANTS)} (default: slim)")
    parser.add_argument("--matrix", action="store_true", help="build those that are not booted")
    args = parser.parse_args()
    with lock():
        series.lay()
        for name in MATRIX if args.matrix else [args.config]:
            build(name)
    return 0


if __name__ == "__main__":
    main(run)
