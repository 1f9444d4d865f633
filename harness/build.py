#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Configures and builds the laid-out kernel tree.

Each configuration is a fragment under harness/config that is laid over
allnoconfig and has its own object folder in the cache. `slim` is the kernel that
is booted, and with harness/bench.patch measured, `debug`, `kasan` and `kcsan` have
the kernel's checks on, `fixes` has no Rust and `fixes-base` no fixes either; the
others leave out or change something, and of them only the parts are built that the
series touches.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import shutil

import series
from common import CACHE, LOG, SRC, TREE, Failed, git, lock, main, need_space, shown, step

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
    "commits": ("x86_64", ["slim", "part"]),
    "lint": ("x86_64", ["slim", "part"]),
    "fixes": ("x86_64", ["fixes"]),
    "fixes-base": ("x86_64", ["fixes"]),
    "base": ("x86_64", ["slim"]),
    "debug": ("x86_64", ["slim", "no-inline-helpers", "debug"]),
    "kasan": ("x86_64", ["slim", "debug", "kasan"]),
    "kcsan": ("x86_64", ["slim", "kcsan"]),
    "arm64": ("arm64", ["arm64"]),
}
# Built by gcc, as distributions build theirs; it cannot inline C helpers into Rust.
BY_GCC = ("debug",)
# Built whole, to be booted.
WHOLE = ("slim", "base", "fixes", "fixes-base", "debug", "kasan", "kcsan")
# Only built, to see that they can be.
MATRIX = [n for n in VARIANTS if n not in (*WHOLE, "lint", "commits")]
PARTS = ["prepare", "fs/proc/", "mm/mmap_lock.o", "samples/rust/"]
# The time and place are fixed, so that building again what has not changed links nothing
# again. With huge pages for their heaps the compilers take a tenth less time.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
               "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_VERSION": "1",
               "KBUILD_BUILD_USER": "task_mmu", "KBUILD_BUILD_HOST": "task_mmu"}
WHOLE_STEPS = 1900
MAPLE_TREE_TEST = "lib/test_maple_tree.ko"
SAMPLE = "samples/rust/rust_vma_iter.ko"
# Modules that are tested with a kernel.
MODULES = {"slim": [SAMPLE], "debug": [SAMPLE, MAPLE_TREE_TEST], "kasan": [SAMPLE], "kcsan": [SAMPLE]}


def image(name):
    """The path of a kernel that can be booted."""
    return BUILD / name / "arch/x86/boot/bzImage"


def make(name, tree, *targets):
    arch = VARIANTS[name][0]
    compiler = [] if name in BY_GCC else ["LLVM=1"]
    return ["make", "-C", tree, *compiler, f"O={BUILD / name}", f"ARCH={arch}",
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


def configure(name, tree):
    """Makes .config from the fragments when these or the tree's Kconfig files
    changed; what comes out equal is left alone."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    names = VARIANTS[name][1]
    fragments = [tree / "kernel/configs/tiny-base.config", tree / "kernel/configs/tiny.config",
                 *(CONFIG / f"{n}.config" for n in names)]
    text = "".join(f.read_text() for f in fragments)
    kconfigs = [f"{p} {d}" for p, d in series.laid(tree).items() if "Kconfig" in p]
    identity = "\n".join([text, *kconfigs, series.version(tree)])
    stamp = folder / ".configured"
    if stamp.exists() and stamp.read_text() == hashlib.sha256(identity.encode()).hexdigest():
        return
    asked = folder / ".config.asked"
    asked.write_text(text)
    step(f"configuring {name}", [*make(name, tree), f"KCONFIG_ALLCONFIG={asked}",
         "KCONFIG_CONFIG=.config.new", "allnoconfig"], f"config-{name}.log")
    new = folder / ".config.new"
    got = wanted([new])
    # in a commit before the one that brings an option it cannot be had
    offered = r'^config (\w+)\n\t\w+ "'
    ours = ("fs/proc/Kconfig", "samples/rust/Kconfig")
    early = {option for path in ours for option in re.findall(offered, (TREE / path).read_text(), re.M)}
    early -= {option for path in ours for option in re.findall(offered, (tree / path).read_text(), re.M)}
    wrong = [f"{option}={value or 'n'}" for option, value in wanted(fragments[2:]).items()
             if got.get(option) != value and option.removeprefix("CONFIG_") not in early]
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


def build_again(name, tree, warnings):
    """Removes the objects that gave these warnings, so that the next build
    compiles them again and they cannot be forgotten."""
    folder = BUILD / name
    for text in warnings:
        if m := re.match(r"(\S+\.o): warning: objtool", text):
            objects = [folder / m[1]]
        elif m := re.search(rf"{tree}/(\S+?)\.(c|S|rs):\d+", text):
            source = pathlib.PurePath(m[1])
            if m[2] != "rs":
                objects = [folder / f"{source}.o"]
            elif source.parts[0] == "rust":     # rust/kernel/mm.rs is a part of rust/kernel.o
                objects = [folder / "rust" / f"{source.parts[1]}.o"]
            else:                               # a crate is all of a folder
                objects = (folder / source.parent).glob("*.o")
        else:
            continue
        for path in objects:
            path.unlink(missing_ok=True)


def build(name, *targets, tree=TREE):
    """Configures and builds; gives the path of the kernel image."""
    folder = BUILD / name
    if not folder.exists():
        need_space(2)
    configure(name, tree)
    if not targets:
        targets = ["bzImage", *MODULES.get(name, [])] if name in WHOLE else PARTS
    fresh = name in WHOLE and not (folder / "vmlinux").exists()
    log = LOG / f"build-{name}.log"
    unfinished = folder / ".unfinished"
    if unfinished.exists():
        forget(name, tree, log)
    unfinished.touch()
    lines = step(f"building the kernel ({name})", make(name, tree, *targets), log.name, env=ENVIRONMENT,
                 count=r"^\s+[A-Z]+\b.* \S+$", of=WHOLE_STEPS if fresh else None, what="steps")
    if warnings := unexpected(lines):
        build_again(name, tree, warnings)
        unfinished.unlink()
        raise Failed("\n  ".join([f"building {name} gives warnings; the log is {shown(log)}", *warnings[:10]]))
    unfinished.unlink()
    return image(name)


def forget(name, tree, log):
    """Removes what the last build, which came to no end, may have warned of: objects that are
    there would not be compiled again, and the warnings be lost."""
    if not log.exists():
        return
    build_again(name, tree, unexpected(log.read_text(errors="replace").splitlines()))
    # an object is there some moments before its warnings are in the log
    last = log.stat().st_mtime - 5
    for pattern in ("*.o", "*.rmeta", "*.so"):
        for path in (BUILD / name).rglob(pattern):
            if path.stat().st_mtime > last:
                path.unlink()


@contextlib.contextmanager
def restored(*paths):
    """Files of the tree that may be changed meanwhile, and are afterwards as they were. If this
    program dies before that, the next series.lay() sees to it."""
    for path in paths:
        series.lend(path)
    try:
        yield
    finally:
        series.put_back()


def build_base():
    """Builds the kernel without the series; gives its image."""
    series.lay(tree=series.FIXES_BASE_TREE, count=0)
    return build("base", tree=series.FIXES_BASE_TREE)


def build_bench():
    """Builds the kernel of the benchmarks, slim with harness/bench.patch, in the
    objects of slim; gives the path of its image."""
    patch = SRC / "harness/bench.patch"
    image = build("slim")
    target = BUILD / "bench" / image.relative_to(BUILD / "slim")
    stamp = BUILD / "bench/stamp"
    identity = hashlib.sha256(image.read_bytes() + patch.read_bytes()).hexdigest()
    if not target.exists() or not stamp.exists() or stamp.read_text() != identity:
        target.parent.mkdir(parents=True, exist_ok=True)
        stamp.unlink(missing_ok=True)
        with restored(*re.findall(r"^\+\+\+ b/(\S+)", patch.read_text(), re.M)):
            git("apply", "-", cwd=TREE, data=patch.read_bytes())
            shutil.copy(build("slim"), target)
        build("slim")
        shutil.copy(BUILD / "slim/.config", BUILD / "bench")
        stamp.write_text(identity)
    return target


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="slim", choices=VARIANTS, metavar="NAME",
                        help=f"one of {', '.join(VARIANTS)} (default: slim)")
    parser.add_argument("--matrix", action="store_true", help="build those that are not booted")
    parser.add_argument("--bench", action="store_true", help="build the kernel of the benchmarks")
    args = parser.parse_args()
    with lock():
        series.lay()
        if args.bench:
            build_bench()
        else:
            for name in MATRIX if args.matrix else [args.config]:
                build(name)
    return 0


if __name__ == "__main__":
    main(run)
