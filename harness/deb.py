#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds Debian packages of the kernel with the series, from Debian's own
configuration, by the kernel's `make bindeb-pkg` and gcc.

The packages are put into out/deb. With PLAIN=1 they are of the base without the
series. SMALL=1 leaves out the modules that a guest of QEMU does not load: those
that it keeps are in harness/config/debian.config.
"""

import argparse
import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess

import build
import series
from common import CACHE, LOG, OUT, SRC, TREE, Failed, lock, main, need_space, say, shown, step

PACKAGES = OUT / "deb"
CONFIGS = pathlib.Path("/usr/src")
FLAVOURS = ("cloud-amd64", "amd64")
OPTION = "PROC_TASK_MMU_RUST"
# What a build of one's own has to have otherwise than Debian's, and why.
CHANGES = {
    "MODULE_SIG_KEY": ('""', "modules are not signed"),
    "MODULE_SIG_ALL": ("n", "modules are not signed"),
    "SYSTEM_TRUSTED_KEYS": ('""', "Debian's keys are not in the source"),
    "SYSTEM_REVOCATION_KEYS": ('""', "Debian's keys are not in the source"),
    "RUST": ("y", "the series is written in it"),
    OPTION: ("y", "it is the series"),
}
SMALL = SRC / "harness/config/debian.config"
# Gigabytes of objects and packages, steps of the build: small, cloud-amd64, amd64.
SPACE = {"small": 6, "cloud-amd64": 14, "amd64": 32}
STEPS = {"small": 4700, "cloud-amd64": 13800}

INSTALL = """
To install, on a Debian 13 (as root):

    apt install {files}

To boot: `reboot`. GRUB's first entry is the newest kernel. If that is another one:

    grub-reboot 'Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {release}'

To check:

    uname -r                                        # {release}
{check}
To go back: choose the old kernel in GRUB's advanced options, then

    apt purge linux-image-{release} linux-headers-{release}

Secure Boot has to be off: kernel and modules are not signed."""
CHECK = """    cat /sys/module/task_mmu/parameters/rust        # Y: Rust serves what is opened from now on
    echo N >/sys/module/task_mmu/parameters/rust    # C serves
"""


class Kind:
    """Which packages: a flavour of Debian's configuration or one's own, with or
    without the series, small or whole."""

    def __init__(self, flavour="cloud-amd64", kconfig=None, plain=False, small=False):
        if flavour not in FLAVOURS:
            raise Failed(f"FLAVOUR={flavour} is unknown: it is {' or '.join(FLAVOURS)}")
        self.flavour = "own" if kconfig else flavour
        self.kconfig = kconfig
        self.plain = plain
        self.small = small
        self.series = "plain" if plain else "taskmmu"
        self.suffix = f"{self.flavour}-small" if small else self.flavour
        self.name = f"deb-{self.series}-{self.suffix}"
        self.folder = build.BUILD / self.name
        self.objects = self.folder / "objects"
        self.tree = series.FIXES_BASE_TREE if plain else TREE

    def image(self):
        """The kernel, when it has been built."""
        return self.objects / "arch/x86/boot/bzImage"

    def release(self):
        """What `uname -r` says: it sorts above Debian's 7.3.4+deb13-cloud-amd64."""
        return f"{series.version(self.tree)}{self.localversion()}"

    def localversion(self):
        return f"+{self.series}1-{self.suffix}"

    def version(self):
        """The packages' version: above that of Debian's package, below the next one."""
        package = series.conf()["package"]
        done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"the toolchain root does not have the package {package}: {done.stderr.strip()}")
        return f"{done.stdout.split('~')[0]}+{self.series}1"

    def space(self):
        return SPACE["small" if self.small else "amd64" if self.flavour == "own" else self.flavour]

    def lay(self):
        if self.plain:
            series.lay(tree=self.tree, count=0)
        else:
            series.lay()

    def debian_config(self):
        """The configuration to start from, as text."""
        if self.kconfig:
            return pathlib.Path(self.kconfig).read_text()
        package = series.conf()["config"]
        path = CONFIGS / package / f"config.amd64_none_{self.flavour}.xz"
        if not path.is_file():
            raise Failed(f"the toolchain root has no {path}: config= in harness/base.conf names no package "
                         "of Debian's configurations")
        return lzma.decompress(path.read_bytes()).decode()

    def make(self, *targets):
        return ["make", "-C", self.tree, f"O={self.objects}", "ARCH=x86_64", f"LOCALVERSION={self.localversion()}",
                f"-j{os.cpu_count() + 1}", "--output-sync=target", *targets]


def options(text):
    """Option and value of each line; an option that is not set has n."""
    found = {m[1]: m[2] for m in re.finditer(r"^CONFIG_(\w+)=(.+)$", text, re.M)}
    return found | {m[1]: "n" for m in re.finditer(r"^# CONFIG_(\w+) is not set$", text, re.M)}


def lines(wanted):
    return "".join(f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n"
                   for name, value in wanted.items())


class Expression:
    """An expression of Kconfig, and whether it holds with a configuration."""

    def __init__(self, text, got):
        self.words = re.findall(r"\|\||&&|!=|[<>]=?|[=!()]|[\w\"'./-]+", text)
        self.got = got

    def next(self, *wanted):
        return self.words.pop(0) if self.words and (not wanted or self.words[0] in wanted) else None

    def either(self):
        result = self.all()
        while self.next("||"):
            result = self.all() or result
        return result

    def all(self):
        result = self.one()
        while self.next("&&"):
            result = self.one() and result
        return result

    def one(self):
        if self.next("!"):
            return not self.one()
        if self.next("("):
            result = self.either()
            self.next(")")
            return result
        left = self.value(self.next())
        operator = self.next("=", "!=", "<", "<=", ">", ">=")
        if not operator:
            return left in ("y", "m")
        right = self.value(self.next())
        if left.isdigit() and right.isdigit():
            left, right = int(left), int(right)
        return {"=": left == right, "!=": left != right, "<": left < right, "<=": left <= right,
                ">": left > right, ">=": left >= right}[operator]

    def value(self, word):
        return word if word in ("y", "m", "n") or word.isdigit() else self.got.get(word, "n")


def unmet(name, tree, got):
    """The dependencies of an option that a configuration does not have."""
    for path in ("fs/proc/Kconfig", "init/Kconfig"):
        if m := re.search(rf"^config {name}\n((?:[ \t].*\n|\n)+)", (tree / path).read_text(), re.M):
            break
    else:
        return []
    needs = re.findall(r"^\s+depends on (.+)$", re.split(r"^\s+help$", m[1], flags=re.M)[0], re.M)
    parts = [part for text in needs for part in ([text] if "||" in text else text.split(" && "))]
    return [part for part in parts if not Expression(part, got).either()]


def missing(tree, got):
    """Says why the series' option is not on."""
    reasons = []
    for name in ("RUST", OPTION):
        if got.get(name) != "y":
            reasons += [f"{name} needs {part}" for part in unmet(name, tree, got)]
    reasons = [r for r in reasons if not (r == f"{OPTION} needs RUST" and len(reasons) > 1)]
    return "; ".join(reasons) or f"{OPTION} is not offered"


def configure(kind):
    """Makes .config from Debian's; says what had to be changed."""
    kind.objects.mkdir(parents=True, exist_ok=True)
    config = kind.objects / ".config"
    text = kind.debian_config()
    before = options(text)
    changes = {name: (value, why) for name, (value, why) in CHANGES.items()
               if not (kind.plain and name == OPTION)}
    new = text + lines({name: value for name, (value, _) in changes.items()})
    asked = kind.folder / "config.asked"
    fragment = SMALL.read_text() if kind.small else ""
    if asked.exists() and asked.read_text() == new + fragment and config.exists():
        return
    asked.unlink(missing_ok=True)
    config.write_text(new)
    log = f"config-{kind.name}.log"
    if kind.small:
        step("leaving out modules", kind.make("mod2noconfig"), log)
        config.write_text(config.read_text() + fragment)
    step(f"configuring {kind.name}", kind.make("olddefconfig"), log)
    got = options(config.read_text())
    for name, (value, why) in changes.items():
        old, now = before.get(name, "n"), got.get(name, "n")
        if now == value != old and {old, now} != {"n", '""'}:
            say(f"changed: CONFIG_{name} from {old} to {now} ({why})")
    if not kind.plain and got.get(OPTION) != "y":
        raise Failed(f"the configuration cannot have CONFIG_{OPTION}: {missing(kind.tree, got)}")
    if got.get("DEBUG_INFO_BTF", "n") != before.get("DEBUG_INFO_BTF", "n"):
        raise Failed("the configuration lost CONFIG_DEBUG_INFO_BTF, which bpftrace and bcc need: is pahole there?")
    wrong = [f"{name}={value}" for name, value in options(fragment).items() if got.get(name, "n") != value]
    if wrong:
        raise Failed(f"the kernel's configuration rules refuse what {shown(SMALL)} asks for: {' '.join(wrong)}")
    asked.write_text(new + fragment)


def identity(kind):
    """What the packages are made from."""
    known = [kind.version(), kind.release(), series.laid(kind.tree), (kind.folder / "config.asked").read_text()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def packages(kind):
    """The packages of a kind in out/deb: image, headers."""
    return [PACKAGES / f"linux-{what}-{kind.release()}_{kind.version()}_amd64.deb" for what in ("image", "headers")]


def make_packages(kind):
    """Builds what is not built yet; gives the paths of the packages."""
    with lock():
        kind.lay()
        if not kind.folder.exists():
            say(f"{kind.name} takes up to {kind.space()} GB in {shown(CACHE)}")
            need_space(kind.space())
        configure(kind)
        stamp = kind.folder / "stamp"
        found = packages(kind)
        if stamp.exists() and stamp.read_text() == identity(kind) and all(p.exists() for p in found):
            return found
        stamp.unlink(missing_ok=True)
        for old in kind.folder.glob("*.deb"):
            old.unlink()
        fresh = not (kind.objects / "vmlinux").exists()
        environment = build.ENVIRONMENT | {
            "KDEB_PKGVERSION": kind.version(), "KDEB_CHANGELOG_DIST": "trixie", "DPKG_DEB_COMPRESSOR_TYPE": "zstd",
            "DEB_BUILD_PROFILES": "pkg.linux-upstream.nokerneldbg",
            "DEBFULLNAME": "task_mmu", "DEBEMAIL": "task_mmu@localhost"}
        say(f"building {kind.name}; the log is {shown(LOG / f'{kind.name}.log')}")
        steps = STEPS.get("small" if kind.small else kind.flavour)
        step(f"building {kind.name}", kind.make("bindeb-pkg"), f"{kind.name}.log", env=environment,
             count=r"^\s+[A-Z]+\b.* \S+$", of=steps if fresh else None, what="steps")
        PACKAGES.mkdir(parents=True, exist_ok=True)
        for path in found:
            made = kind.folder / path.name
            if not made.exists():
                raise Failed(f"`make bindeb-pkg` has made no {path.name}; it has made "
                             f"{' '.join(sorted(p.name for p in kind.folder.glob('*.deb')))}")
            shutil.copy(made, path)
        stamp.write_text(identity(kind))
        return found


def small_kernel():
    """The kernel of the small packages with the series, built if it has to be."""
    kind = Kind(small=True)
    make_packages(kind)
    return kind.image()


def flag(name):
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise Failed(f"{name}={value} is unknown: it is 1 or 0")
    return value == "1"


def asked(small=False):
    """The kind that the environment asks for."""
    return Kind(os.environ.get("FLAVOUR") or FLAVOURS[0], "/kconfig" if os.environ.get("KCONFIG") else None,
                flag("PLAIN"), flag("SMALL") if os.environ.get("SMALL") else small)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configure", action="store_true", help="only make the configuration")
    parser.epilog = """environment:
  FLAVOUR  whose configuration: cloud-amd64 (default) or amd64
  KCONFIG  a file of the host with the configuration instead
  PLAIN    1: the base without the series
  SMALL    1: without modules that a guest of QEMU does not load"""
    args = parser.parse_args()
    kind = asked()
    if args.configure:
        with lock():
            kind.lay()
            configure(kind)
        say(f"the configuration is {shown(kind.objects / '.config')}")
        return 0
    made = make_packages(kind)
    for path in made:
        print(f"{shown(path)} ({path.stat().st_size >> 20} MiB)")
    print(INSTALL.format(files=" ".join(f"./{p.name}" for p in made), release=kind.release(),
                         check="" if kind.plain else CHECK))
    return 0


if __name__ == "__main__":
    main(run)
