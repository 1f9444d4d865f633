#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the guest's file system and runs a command in the guest.

The guest is the built kernel with an initramfs: busybox, bash, strace, the
programs of harness/guest and under /selftests the kernel's selftests for proc
and some of those for mm.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import series
from common import CACHE, LOG, SRC, TREE, Failed, main, say, shown, step

GUEST = SRC / "harness/guest"
BUILT = CACHE / "guest"
IMAGE = CACHE / "guest.cpio"
KERNEL = CACHE / "build/slim/arch/x86/boot/bzImage"
MEMORY = 3072   # MiB
# To the emulator each byte that a `rep movsb` or `rep stosb` moves is an instruction, to no CPU is
# it. So where instructions are counted the kernel does not see that it could use them.
COUNTED_CPU = "max,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off"

# The selftests for mm that read maps, smaps or pagemap, themselves or through
# vm_util.c. Left out are folio_split_race_test, ksm_tests, hmm-tests and
# memory-failure, which take no more than page frames and swap entries from
# pagemap, and need minutes, many runs with different arguments, a module that
# makes memory and a kernel that can break memory.
MM_SELFTESTS = ("cow", "guard-regions", "khugepaged", "ksm_functional_tests", "madv_populate", "merge",
                "mkdirty", "mlock-random-test", "mlock2-tests", "pagemap_ioctl", "pfnmap",
                "prctl_thp_disable", "rmap", "soft-dirty", "split_huge_page_test", "transhuge-stress",
                "uffd-unit-tests", "uffd-wp-mremap")

# What must not be in a kernel log. `Call Trace:` is not here: fault injection
# prints one for each failure that a test asked for.
REPORT = re.compile("|".join((
    r"\bWARNING: ", r"\bBUG: ", r"kernel BUG at", r"\bOops\b", r"Kernel panic", r"panicked at",
    r"cut here", r"INFO: task .* blocked", r"INFO: rcu", r"rcu: .*(stall|starved)", r"soft lockup",
    r"hard LOCKUP", r"possible circular locking", r"possible recursive locking",
    r"possible irq lock inversion", r"suspicious RCU usage", r"inconsistent .* usage",
    r"held lock freed", r"lock held when returning to user space", r"[Ss]leeping function called",
    r"scheduling while atomic", r"KASAN:", r"UBSAN:", r"KCSAN:", r"refcount_t:", r"buggy \.next",
    r"list_(add|del) corruption", r"general protection fault", r"unable to handle",
    r"stack-protector", r"[Bb]ad page state", r"Bad rss-counter", r"Out of memory", r"DEADLOCK",
    r"new suspected memory leaks", r"VM_\w+_ON")))

# Races of the base with itself that KCSAN tells, in either order of the two.
BASE_RACES = re.compile("|".join(rf"KCSAN: data-race in ({a} / {b}|{b} / {a})$" for a, b in (
    # d_path() sees without a lock whether a file was unlinked, rename(2) takes
    # it out of its hash list for a moment; C and Rust call it
    ("d_path", "__d_rehash"),
    ("d_path", "___d_drop"),
    # who walks a maple tree under RCU looks whether a node is dead, which is
    # what a writer makes of one that it has replaced, by a plain store
    ("mas_next_slot", "mas_wr_store_entry"),
    ("mas_walk", "mas_wr_store_entry"),
    # fork copies all of a struct mm_struct, and of a struct task_struct, before
    # it sets what others change; memcpy_and_pad is only called for the latter
    ("copy_mm", r"\S+"),
    ("memcpy_and_pad", r"\S+"),
)))


@dataclasses.dataclass
class Result:
    """How a boot ended."""
    status: int         # of the command; 124 where the guest was killed
    output: bytes       # of the command
    log: list           # the kernel's log
    log_path: pathlib.Path

    def reports(self):
        """The lines of the kernel's log that no good run has."""
        return [line for line in self.log if REPORT.search(line) and not BASE_RACES.search(line)]


def compile_programs():
    target = BUILT / "bin"
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(GUEST.glob("*.c"))
    for old in set(target.iterdir()) - {target / s.stem for s in sources}:
        old.unlink()
    headers = [header.stat().st_mtime for header in GUEST.glob("*.h")]
    for source in sources:
        program = target / source.stem
        if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime, *headers):
            step(f"compiling {source.name}", ["gcc", "-O2", "-Wall", "-Werror", "-D_GNU_SOURCE",
                 "-static", "-pthread", "-isystem", BUILT / "headers/include", "-o", program, source],
                 f"compile-{source.stem}.log")


def built_selftests():
    """Builds the kernel's selftests for proc, static, as the kernel's own
    makefiles do; gives their folder."""
    where = BUILT / "selftests"
    headers = BUILT / "headers"
    wanted = json.dumps([series.version(TREE), {p: d for p, d in series.laid().items() if "/uapi/" in p}])
    stamp = BUILT / "headers.stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(headers, ignore_errors=True)
        step("installing the kernel's headers", ["make", "-C", TREE, f"O={BUILT / 'headers.o'}",
             "ARCH=x86_64", "headers_install", f"INSTALL_HDR_PATH={headers}"], "headers.log",
             count="HDRINST", what="headers")
        stamp.write_text(wanted)
    shutil.rmtree(where, ignore_errors=True)
    # static, since the guest has only bash's libraries
    step("building the selftests", ["make", "-C", TREE / "tools/testing/selftests", "TARGETS=proc",
         f"O={BUILT / 'selftests.o'}", f"KHDR_INCLUDES=-isystem {headers / 'include'}",
         "USERLDFLAGS=-static", f"INSTALL_PATH={where}", f"-j{os.cpu_count()}", "install"],
         "selftests.log", env={"ARCH": "x86_64"}, count=r"^  CC ", what="programs")
    listed = (where / "kselftest-list.txt").read_text().split()
    missing = [t for t in listed if not (where / t.replace(":", "/", 1)).is_file()]
    if missing or not listed:
        raise Failed(f"selftests did not build: {' '.join(missing)}; the log is {shown(LOG / 'selftests.log')}")
    add_mm_selftests(where)
    return where


def add_mm_selftests(where):
    """Adds MM_SELFTESTS to the folder of built selftests. The makefile of mm can
    only install everything, so its programs are named to it one by one."""
    built = BUILT / "selftests.mm"
    wanted = json.dumps([(BUILT / "headers.stamp").read_text(), MM_SELFTESTS, sorted(
        (p, d) for p, d in series.laid().items() if p.startswith("tools/testing/selftests/mm/"))])
    stamp = built / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        source = TREE / "tools/testing/selftests/mm"
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir(parents=True)
        try:
            step("building the selftests for mm", ["make", "-C", source, f"OUTPUT={built}",
                 f"KHDR_INCLUDES=-isystem {BUILT / 'headers/include'}", "USERLDFLAGS=-static -s",
                 f"-j{os.cpu_count()}", *(built / name for name in MM_SELFTESTS)],
                 "selftests-mm.log", env={"ARCH": "x86_64"}, count=r"^  CC ", of=len(MM_SELFTESTS),
                 what="programs")
        finally:
            # what the makefile found of the host's libraries, which it leaves
            # beside the sources
            for name in ("local_config.mk", "local_config.h_gen"):
                (source / name).unlink(missing_ok=True)
        stamp.write_text(wanted)
    (where / "mm").mkdir()
    for name in MM_SELFTESTS:
        shutil.copy(built / name, where / "mm")
    # the runner knows one set of arguments for each name
    (where / "mm/khugepaged-shmem").symlink_to("khugepaged")
    with open(where / "kselftest-list.txt", "a") as f:
        f.writelines(f"mm:{name}\n" for name in sorted({*MM_SELFTESTS, "khugepaged-shmem"}))


def libraries(program):
    """The shared libraries that a program of the root loads."""
    text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", text)


def cpio(folder, target):
    new = target.with_suffix(".new")
    with open(new, "wb") as f:
        find = subprocess.run(["find", ".", "-print0"], cwd=folder, check=True, capture_output=True)
        subprocess.run(["cpio", "--null", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=folder,
                       check=True, input=find.stdout, stdout=f)
    new.rename(target)


def make_image():
    """Makes the initramfs from what there is by now."""
    tests = built_selftests()
    compile_programs()
    with tempfile.TemporaryDirectory() as tmp:
        top = pathlib.Path(tmp)
        for name in ("bin", "dev", "proc", "sys", "etc", "root", "run", "share", "usr", "lib64", "lib"):
            (top / name).mkdir()
        for name, target in (("sbin", "bin"), ("usr/bin", "../bin"), ("usr/sbin", "../bin")):
            (top / name).symlink_to(target)
        (top / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/bin/sh\n")
        (top / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        shutil.copy("/usr/bin/busybox", top / "bin/busybox")
        applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True)
        for name in applets.stdout.split():
            if name != "busybox":
                (top / "bin" / name).symlink_to("busybox")
        # the kselftest runner needs an option that busybox's timeout lacks
        for program in ("bash", "strace", "timeout"):
            (top / "bin" / program).unlink(missing_ok=True)
            shutil.copy(f"/usr/bin/{program}", top / "bin" / program)
            for library in libraries(f"/usr/bin/{program}"):
                copy = top / library.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, copy)
        for program in (BUILT / "bin").iterdir():
            shutil.copy(program, top / "bin")
        shutil.copytree(tests, top / "selftests", symlinks=True)
        shutil.copy(GUEST / "init", top / "init")
        cpio(top, IMAGE)


def with_command(command, terminal, share, folder):
    """The initramfs with the command to run appended."""
    extra = pathlib.Path(folder) / "extra"
    extra.mkdir()
    (extra / "cmd").write_text(command + "\n")
    settings = {"SHARE": "1" if share else ""}
    if terminal:
        size = os.get_terminal_size(0) if os.isatty(0) else os.terminal_size((80, 24))
        settings |= {"SHELL_ROWS": str(size.lines), "SHELL_COLS": str(size.columns)}
    (extra / "cmd.conf").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
    cpio(extra, pathlib.Path(folder) / "extra.cpio")
    image = pathlib.Path(folder) / "initrd"
    with open(image, "wb") as f:
        for part in (IMAGE, pathlib.Path(folder) / "extra.cpio"):
            with open(part, "rb") as p:
                shutil.copyfileobj(p, f)
    return image


def qemu(kernel, initrd, folder, accel, share, append):
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-m", f"{MEMORY}M", "-kernel", str(kernel), "-initrd", str(initrd)]
    if accel == "icount":
        argv += ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", COUNTED_CPU, "-smp", "1"]
    elif accel == "kvm":
        argv += ["-accel", "kvm", "-cpu", "host", "-smp", "2,sockets=2"]
    else:
        argv += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2,sockets=2"]
    if accel != "icount":
        # two nodes of a socket each, so that memory can be bound to one
        for node in range(2):
            argv += ["-object", f"memory-backend-ram,id=node{node},size={MEMORY // 2}M",
                     "-numa", f"node,nodeid={node},cpus={node},memdev=node{node}"]
    # ttyS0 is the command's, ttyS1 takes its status, ttyS2 is the kernel's,
    # which the firmware does not know, so nothing but the kernel writes there.
    argv += ["-chardev", "stdio,id=command,signal=off", "-serial", "chardev:command",
             "-serial", f"file:{folder}/status", "-serial", f"file:{folder}/kernel"]
    if share:
        argv += ["-fsdev", f"local,id=share,path={share},security_model=none",
                 "-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]
    if "kasan" in kernel.parts:
        # While the base finds out what the CPU has it forgets for a moment that
        # there are five levels. KASAN reports an interrupt that comes then.
        append += " no5lvl"
    argv += ["-append", f"console=ttyS2 earlyprintk=serial,0x3e8,115200 loglevel=8 panic=-1 {append}".strip()]
    return argv


def boot(command, *, name="run", kernel=KERNEL, accel=None, append="", timeout=600, share=None,
         output=None, terminal=False):
    """Boots the guest and runs a shell command in it.

    The guest has the folder `share` as /share. The command's output goes to the
    file object `output` as it comes, too, and the kernel's log to
    LOG/guest-NAME.log (the output is in .out there). A guest that is not done
    after `timeout` seconds is killed.
    """
    if not kernel.exists() or not IMAGE.exists():
        raise Failed("there is no kernel or no initramfs yet: run `make build`")
    accel = accel or asked() or accelerator(kernel)
    log_path = LOG / f"guest-{name}.log"
    with tempfile.TemporaryDirectory() as folder:
        initrd = with_command(command, terminal, share, folder)
        argv = qemu(kernel, initrd, folder, accel, share, append)
        if terminal:
            child = subprocess.Popen(argv)
            child.wait()
            written, killed = b"", False
        else:
            written, killed = converse(argv, timeout, output)
            log_path.with_suffix(".out").write_bytes(written)
        log = pathlib.Path(folder, "kernel")
        text = log.read_text(errors="replace") if log.exists() else ""
        log_path.write_text(text)
        status = pathlib.Path(folder, "status")
        found = re.search(r"status (\d+)", status.read_text()) if status.exists() else None
    lines = [line.rstrip("\r") for line in text.splitlines()]
    if killed:
        tail = written.decode(errors="replace").splitlines()[-5:] + lines[-5:]
        raise Failed("\n  ".join([f"the guest was not done after {timeout} s and was killed; "
                                  f"the kernel's log is {shown(log_path)}", *tail]))
    if not found:
        why = [line for line in lines if REPORT.search(line)] or lines[-5:]
        raise Failed("\n  ".join([f"the guest died; the kernel's log is {shown(log_path)}", *why[:10]]))
    return Result(int(found[1]), written, lines, log_path)


def converse(argv, timeout, output):
    """Runs QEMU, passing on what the command writes; gives that, and whether
    QEMU had to be killed."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    os.set_blocking(child.stdout.fileno(), False)
    written = bytearray()
    end = time.monotonic() + timeout
    killed = False
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0:
                killed = True
                break
            ready, _, _ = select.select([child.stdout], [], [], left)
            if not ready:
                continue
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                break
            written += data
            if output:
                output.write(data)
                output.flush()
    finally:
        if child.poll() is None and (killed or sys.exc_info()[0]):
            child.kill()
        error = child.communicate()[1].decode(errors="replace")
    if child.returncode and not killed:
        raise Failed(f"QEMU failed: {error.strip()}")
    return bytes(written), killed


def asked():
    """The accelerator that ACCEL and ICOUNT ask for, None where they leave it open."""
    accel, icount = os.environ.get("ACCEL", ""), os.environ.get("ICOUNT", "")
    if accel not in ("", "kvm", "tcg"):
        raise Failed(f"ACCEL={accel} is unknown: it is kvm or tcg")
    if icount not in ("", "0", "1"):
        raise Failed(f"ICOUNT={icount} is unknown: it is 1 or 0")
    if icount == "1" and accel == "kvm":
        raise Failed("ICOUNT=1 counts instructions, which only ACCEL=tcg can")
    return "icount" if icount == "1" else accel or None


def accelerator(kernel):
    """kvm where a probe boot shows that it works, tcg elsewhere. What the
    probe found is kept."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    version = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True).stdout
    config = kernel.parents[3] / ".config"
    key = hashlib.sha256(version + os.uname().release.encode() + config.read_bytes()).hexdigest()
    kept = CACHE / "kvm.json"
    if kept.exists() and json.loads(kept.read_text()).get("key") == key:
        return json.loads(kept.read_text())["accel"]
    for accel in ("kvm", "tcg"):
        try:
            boot("true", name=f"probe-{accel}", kernel=kernel, accel=accel, timeout=15)
        except Failed:
            continue
        kept.write_text(json.dumps({"key": key, "accel": accel}))
        if accel == "tcg":
            say("/dev/kvm is here but a guest does not run on it; using TCG")
        return accel
    # the kernel itself does not boot; the caller's boot will say how
    return "tcg"


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", action="store_true", help="only make the initramfs")
    parser.add_argument("--timeout", type=int, default=600, metavar="SECONDS",
                        help="kill a guest that is not done by then (default: 600)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command to run in the guest as it was built last")
    args = parser.parse_args()
    if args.image or not IMAGE.exists():
        make_image()
    if args.image:
        return 0
    if not args.command:
        parser.error("which command?")
    return boot(shlex.join(args.command), timeout=args.timeout, output=sys.stdout.buffer).status


if __name__ == "__main__":
    main(run)
