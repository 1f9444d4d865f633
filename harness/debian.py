#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes a disk with Debian 13, installs the kernel with the series in it as a user
would, boots it from what is installed and gives a login, or runs a command there.

The disk has systemd, ext4, swap, GRUB, Debian's own kernel and the packages in
harness/debian/packages. It is made once; each run works on a copy on write of it,
which is dropped afterwards.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import deb
import guest
import run as runner
from common import CACHE, LOG, SRC, Failed, Progress, lock, main, need_space, say, shown, step

FILES = SRC / "harness/debian"
FOLDER = CACHE / "debian"
IMAGE = FOLDER / "image.qcow2"      # clean, with Debian's own kernel
STAMP = FOLDER / "stamp"
SUITE = "trixie"
DISK = 8192     # MiB
SWAP = 512
MEMORY = 3072
FIRST = 1       # MiB before the first partition, where GRUB is
USER = "user"
# Nothing works in the background while something is measured or compared, and what
# the tests want running they start.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
          "man-db.timer", "logrotate.timer", "atop-rotate.timer", "systemd-tmpfiles-clean.timer", "e2scrub_reap.service")
DISABLED = ("atop.service", "atopacct.service", "postgresql.service", "redis-server.service",
            "prometheus-process-exporter.service", "criu.service")
# Programs that need a compiler which only the image has.
JAVA = ("Requests.java", "Waiting.java")
GRUB = """# What a machine without a screen needs.
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="console=ttyS0"
GRUB_TERMINAL=serial
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""

# What a package leaves in a system: packages, files, entries of the boot menu.
STATE = ("dpkg-query -W -f '${Package} ${Version} ${Status}\\n'; find /boot /usr/lib/modules /usr/src "
         "/var/lib/initramfs-tools -printf '%p %y\\n' | grep -v '\\.old$' | sort; "
         "grep -oE \"(menuentry|submenu) '[^']*'\" /boot/grub/grub.cfg; ls -l /vmlinuz* /initrd.img* 2>/dev/null | "
         "awk '{ print $9, $10, $11 }'; find /etc -newer /var/lib/task_mmu.before -type f 2>/dev/null | "
         "grep -vE '/(mtab|adjtime|machine-id|ld\\.so\\.cache|\\.updated)$'")


@dataclasses.dataclass
class Result:
    """How a boot ended."""
    status: int
    output: bytes
    journal: list       # priority, who, text; the kernel is the transport `kernel`
    path: pathlib.Path

    def text(self):
        return self.output.decode(errors="replace")

    def kernel(self):
        return [text for _, who, text in self.journal if who == "kernel"]

    def reports(self):
        """The lines of the kernel's log that no good run has."""
        return [text for text in self.kernel() if guest.REPORT.search(text)]

    def warnings(self):
        """What is logged as a warning or worse, without numbers, which vary."""
        return {f"{who}: {re.sub(r'0x[0-9a-f]+|[0-9.]+', 'N', text)}" for priority, who, text in self.journal
                if priority <= 4}


def packages():
    lines = (FILES / "packages").read_text().splitlines()
    return [line for line in lines if line and line[0] != "#"]


def sources():
    """The lines of the toolchain root's sources.list, which name the mirror."""
    return [line for line in pathlib.Path("/etc/apt/sources.list").read_text().splitlines() if line]


def proxy():
    done = subprocess.run(["apt-config", "dump", "--format", "%v", "Acquire::http::Proxy"], capture_output=True, text=True)
    return done.stdout.strip()


def bootstrap(root):
    """Unpacks and configures Debian in a folder."""
    options = ["APT::Install-Recommends \"false\""]
    if proxy():
        options.append(f"Acquire::http::Proxy \"{proxy()}\"")
    step("installing Debian for the disk", ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory",
         "--dpkgopt=force-unsafe-io", *(f"--aptopt={o}" for o in options), f"--include={','.join(packages())}",
         SUITE, root, *sources()], "debian-packages.log", env={"TMPDIR": FOLDER},
         count=r"^(Unpacking|Setting up) ", what="packages unpacked or set up")


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def customize(root):
    """Makes a system of the installed packages: disks, users, a login, the command."""
    write(root / "etc/fstab", "/dev/vda1 / ext4 errors=remount-ro 0 1\n/dev/vda2 none swap sw 0 0\n")
    write(root / "etc/hostname", "debian\n")
    write(root / "etc/hosts", "127.0.0.1 localhost debian\n::1 localhost\n")
    write(root / "etc/default/grub.d/task_mmu.cfg", GRUB)
    write(root / "etc/systemd/system/serial-getty@ttyS0.service.d/login.conf",
          "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200,38400,9600 - $TERM\n")
    write(root / "usr/local/sbin/task-mmu-command", (FILES / "command").read_text(), 0o755)
    write(root / "etc/systemd/system/task-mmu-command.service", (FILES / "command.service").read_text())
    (root / "var/log/journal").mkdir(exist_ok=True)
    (root / "etc/machine-id").write_text("")
    for name in JAVA:
        write(root / "usr/local/lib/task_mmu" / name, (FILES / "programs" / name).read_text())
    inside = ["unshare", "--fork", "--pid", f"--mount-proc={root}/proc", "chroot", root, "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    commands = [["useradd", "--create-home", "--shell", "/bin/bash", USER], ["passwd", "--delete", "root"],
                ["passwd", "--delete", USER], ["systemctl", "enable", "task-mmu-command.service"],
                ["javac", *(f"/usr/local/lib/task_mmu/{name}" for name in JAVA)]]
    commands += [["systemctl", "disable", name] for name in DISABLED] + [["systemctl", "mask", *MASKED]]
    for command in commands:
        done = subprocess.run([*inside, *command], capture_output=True, text=True)
        if done.returncode and command[1] != "disable":
            raise Failed(f"{shlex.join(command)} failed in the disk's system: {done.stderr.strip()}")


def make_disk(root, disk):
    """Writes a disk with a partition of the folder's files and one for swap."""
    with open(disk, "wb") as f:
        f.truncate(DISK << 20)
    size = DISK - SWAP - FIRST - 1
    table = f"label: dos\nstart={FIRST}MiB, size={size}MiB, type=83, bootable\nsize={SWAP}MiB, type=82\n"
    done = subprocess.run(["sfdisk", "--quiet", disk], input=table, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"sfdisk failed: {done.stderr.strip()}")
    step("writing the file system", ["mke2fs", "-q", "-t", "ext4", "-d", root, "-E",
         f"offset={FIRST << 20},lazy_itable_init=0", disk, f"{size}M"], "debian-mke2fs.log")
    # The kernel finds the second partition right after the first.
    step("writing the swap space", ["mkswap", f"--offset={(FIRST + size) << 20}", disk, SWAP << 10], "debian-mkswap.log")


def identity():
    """What the image is made from."""
    parts = [(FILES / name).read_bytes()
             for name in ("packages", "command", "command.service", *(f"programs/{name}" for name in JAVA))]
    parts += [GRUB.encode(), repr((SUITE, DISK, SWAP, MASKED, DISABLED)).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def make_image():
    """Makes the clean image, once."""
    if IMAGE.exists() and STAMP.exists() and STAMP.read_text() == identity():
        return
    FOLDER.mkdir(exist_ok=True)
    STAMP.unlink(missing_ok=True)
    say(f"the disk of Debian takes up to 8 GB in {shown(FOLDER)} while it is made, and 3 GB then")
    need_space(8)
    root = FOLDER / "root"
    shutil.rmtree(root, ignore_errors=True)
    bootstrap(root)
    customize(root)
    for name in ("vmlinuz", "initrd.img"):
        found = sorted((root / "boot").glob(f"{name}-*"))
        if not found:
            raise Failed(f"Debian's own kernel has brought no /boot/{name}-*; the log is "
                         f"{shown(LOG / 'debian-packages.log')}")
        shutil.copy(found[-1], FOLDER / name)
    raw = FOLDER / "disk.raw"
    make_disk(root, raw)
    shutil.rmtree(root)
    say("first boot, which installs GRUB on the disk")
    result = boot("grub-install /dev/vda && update-grub", disk=raw, name="grub", keep=True, first=True)
    if result.status:
        raise Failed(f"GRUB could not be installed on the disk:\n{result.text()}")
    step("packing the disk", ["qemu-img", "convert", "-O", "qcow2", raw, IMAGE], "debian-convert.log")
    raw.unlink()
    STAMP.write_text(identity())


def accelerator():
    """kvm where Debian's kernel starts by it, tcg elsewhere. What the probe found is kept."""
    asked = guest.asked()
    if asked == "icount":
        raise Failed("ICOUNT=1 is for `make run`: a system with background work has nothing to count")
    if asked or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return asked or "tcg"
    kept = FOLDER / "kvm.json"
    key = os.uname().release
    if kept.exists() and json.loads(kept.read_text()).get("key") == key:
        return json.loads(kept.read_text())["accel"]
    found = "tcg"
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run([*machine("kvm"), "-kernel", FOLDER / "vmlinuz", "-append", "console=ttyS0 panic=-1",
                               "-serial", "stdio"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        # it finds no root file system, and so has come far
        if done.returncode == 0 and b"Kernel panic" in done.stdout:
            found = "kvm"
    kept.write_text(json.dumps({"key": key, "accel": found}))
    return found


def machine(accel):
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-m", f"{MEMORY}M", "-smp", "2"]
    cpu = {"kvm": "host", "tcg": "max"}[accel]
    return argv + ["-accel", "tcg,thread=multi" if accel == "tcg" else "kvm", "-cpu", cpu,
                   "-device", "virtio-rng-pci"]


def qemu(disk, folder, accel, first):
    form = "raw" if disk.suffix == ".raw" else "qcow2"
    argv = machine(accel)
    argv += ["-drive", f"file={disk},format={form},if=none,id=disk,cache=unsafe,discard=unmap",
             "-device", "virtio-blk-pci,drive=disk,serial=disk",
             "-nic", "user,model=virtio-net-pci,restrict=on"]
    if first:
        argv += ["-kernel", str(FOLDER / "vmlinuz"), "-initrd", str(FOLDER / "initrd.img"),
                 "-append", "root=/dev/vda1 ro console=ttyS0"]
    return argv


def with_command(command, share, keep, folder):
    """A disk with the command and, if there is one, the shared folder's files."""
    top = pathlib.Path(folder) / "share"
    if share:
        shutil.copytree(share, top, symlinks=True)
    top.mkdir(exist_ok=True)
    (top / ".cmd").write_text(command + "\n")
    (top / ".conf").write_text(f"KEEP={'1' if keep else ''}\n")
    used = sum(p.lstat().st_size for p in top.rglob("*"))
    disk = pathlib.Path(folder) / "share.img"
    size = (used >> 20) * 5 // 4 + 32
    step("writing the share", ["mke2fs", "-q", "-t", "ext4", "-d", top, disk, f"{size}M"], "debian-share.log")
    shutil.rmtree(top)
    return disk


def boot(command, *, disk, name="debian", share=None, keep=False, first=False, timeout=900, output=None,
         terminal=False):
    """Boots a disk and runs a shell command in it, or gives a login.

    The guest has a copy of the folder `share` as /share. The command's output goes to
    `output` as it comes. The console is LOG/debian-NAME.log, the journal is beside it.
    With `keep` the guest shuts down in order, so that what it wrote is there afterwards.
    """
    log = LOG / f"debian-{name}.log"
    accel = accelerator()
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        argv = qemu(disk, folder, accel, first)
        if terminal:
            argv += ["-serial", "mon:stdio"]
            subprocess.run(argv)
            return None
        drive = with_command(command, share, keep, folder)
        argv += ["-drive", f"file={drive},format=raw,if=none,id=share,cache=unsafe",
                 "-device", "virtio-blk-pci,drive=share,serial=share", "-device", "virtio-serial-pci",
                 # a port whose other end has closed, as stdin is, takes nothing
                 "-chardev", "file,id=command,path=/dev/stdout",
                 "-device", "virtserialport,chardev=command,name=task_mmu.command"]
        for port in ("journal", "status"):
            argv += ["-chardev", f"file,id={port},path={folder}/{port}",
                     "-device", f"virtserialport,chardev={port},name=task_mmu.{port}"]
        argv += ["-serial", f"file:{log}"]
        written, killed = guest.converse(argv, timeout, output)
        log.with_suffix(".out").write_bytes(written)
        journal = pathlib.Path(folder, "journal").read_bytes()
        log.with_suffix(".journal").write_bytes(journal)
        status = re.search(r"status (\d+)", pathlib.Path(folder, "status").read_text())
    console = log.read_text(errors="replace").splitlines()
    tail = [line.rstrip("\r") for line in console if guest.REPORT.search(line)][:10] or console[-8:]
    if killed:
        raise Failed("\n  ".join([f"the guest was not done after {timeout} s and was killed; its console is "
                                  f"{shown(log)}", *written.decode(errors="replace").splitlines()[-5:], *tail]))
    if not status:
        raise Failed("\n  ".join([f"the guest died; its console is {shown(log)}", *tail]))
    return Result(int(status[1]), written, parsed(journal), log)


def parsed(journal):
    """Priority, who and text of each entry of a journal in JSON."""
    entries = []
    for line in journal.splitlines():
        entry = json.loads(line)
        text = entry.get("MESSAGE") or ""
        if not isinstance(text, str):       # bytes that are no text
            text = bytes(text).decode(errors="replace")
        who = "kernel" if entry.get("_TRANSPORT") == "kernel" else entry.get("SYSLOG_IDENTIFIER", "?")
        entries.append((int(entry.get("PRIORITY", 6)), who, text))
    return entries


@contextlib.contextmanager
def overlay(on=IMAGE):
    """A disk that begins as `on` and is gone afterwards."""
    with tempfile.NamedTemporaryFile(dir=FOLDER, suffix=".qcow2") as f:
        disk = pathlib.Path(f.name)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", on, disk], check=True)
        yield disk


def install(kind, disk):
    """Installs a kind of packages in a disk's system by apt, as a user would; the guest makes the
    initrd and the boot menu."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        for path in deb.packages(kind):
            shutil.copy(path, folder)
        with Progress(f"installing {kind.name} in the guest"):
            # what removing them has to bring back
            result = boot(f"touch /var/lib/task_mmu.before; {{ {STATE}; }} >/var/lib/task_mmu.before\n"
                          "DEBIAN_FRONTEND=noninteractive apt-get install -y /share/linux-*.deb",
                          disk=disk, name="install", share=folder, keep=True)
    if result.status:
        raise Failed(f"apt cannot install {kind.name} in the guest:\n{result.text()}")
    return result


def installed(kind):
    """The image with that kernel installed; made when the packages or the clean image are new."""
    image = FOLDER / f"{kind.name}.qcow2"
    stamp = image.with_suffix(".stamp")
    want = f"{STAMP.read_text()} {deb.identity(kind)}"
    if not image.exists() or not stamp.exists() or stamp.read_text() != want:
        stamp.unlink(missing_ok=True)
        image.unlink(missing_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", IMAGE, image], check=True)
        install(kind, image)
        stamp.write_text(want)
    return image


def prepare(kind):
    """Makes packages, clean image and the image with the packages; gives the last."""
    deb.make_packages(kind)
    with lock():
        make_image()
        return installed(kind)


def run():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", action="store_true", help="only make the disk with Debian's own kernel")
    parser.add_argument("--own", action="store_true", help="run Debian's own kernel")
    parser.add_argument("command", nargs=argparse.REMAINDER,
                        help="command and arguments (default: the shell command in CMD, or a login)")
    parser.epilog = """environment:
  CMD      shell command to run
  SHARE    folder of the host of which the guest has a copy as /share
  ACCEL    kvm or tcg (default: kvm where it works)
  TIMEOUT  seconds after which the guest is killed (default: 900)
  FLAVOUR, KCONFIG, PLAIN, SMALL
           which kernel, as `make deb` has them; the default here is SMALL=1"""
    args = parser.parse_args()
    timeout = runner.seconds(os.environ.get("TIMEOUT") or "900")
    guest.asked()
    if args.image or args.own:
        with lock():
            make_image()
        image = IMAGE
    else:
        image = prepare(deb.asked(small=True))
    if args.image:
        return 0
    command = shlex.join(args.command) if args.command else os.environ.get("CMD")
    share = "/share" if os.environ.get("SHARE") else None
    with overlay(image) as disk:
        if not command:
            say("a login on the serial console; leave it with `poweroff`, or Ctrl-a x")
            boot(None, disk=disk, terminal=True)
            return 0
        result = boot(command, disk=disk, share=share, timeout=timeout, output=sys.stdout.buffer)
    return runner.conclude(result, result.path.with_suffix(".journal"))


if __name__ == "__main__":
    main(run)
