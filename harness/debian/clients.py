#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs programs that read /proc/PID/maps and its family over processes of this
machine, with C serving and with Rust. It runs in the guest as root.

Of stopped processes both have to give the same output. Each outcome is a line of
JSON: client, case, result (ok, not ok, skip), notes.
"""

import argparse
import contextlib
import ctypes
import difflib
import fcntl
import glob
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
SWITCH = os.environ.get("TASK_MMU_SWITCH", "/sys/module/task_mmu/parameters/rust")
# So that a client maps the same pages of its libraries in each run: a process that has them
# mapped as well has a part of them that depends on it.
ADDR_NO_RANDOMIZE = 0x0040000
FILES = ("maps", "smaps", "smaps_rollup", "numa_maps")
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "TERM": "xterm", "DEBUGINFOD_URLS": "", "COLUMNS": "200"}


class Skip(Exception):
    """Why a client cannot run."""


class Wrong(Exception):
    """What is wrong with what a client has done."""


def tell(client, case, result, *notes):
    print(json.dumps({"client": client, "case": case, "result": result, "notes": list(notes)}), flush=True)


def serve(who):
    with open(SWITCH, "w") as f:
        f.write("Y" if who == "Rust" else "N")


def run(command, timeout=120, ok=(0,), quiet=True, **how):
    """The output of a command, a list or a line for the shell; it has to exit with one of `ok`."""
    shell = isinstance(command, str)
    name = command if shell else shlex.join(command)
    first = name.split()[0]
    if not shell and not shutil.which(first, path=ENVIRONMENT["PATH"]):
        raise Skip(f"{first} is not installed")
    how.setdefault("env", ENVIRONMENT)
    how.setdefault("stdin", subprocess.DEVNULL)
    child = subprocess.Popen(["bash", "-c", command] if shell else command, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE if quiet else subprocess.STDOUT, text=True, errors="replace",
                             start_new_session=True, **how)
    try:
        out, error = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise Wrong(f"{name}: not done after {timeout} s") from None
    if ok and child.returncode not in ok:
        raise Wrong(f"{name}: exit status {child.returncode}", *((error or "") + out).splitlines()[-6:])
    return out


def differences(old, new):
    """What has changed, in a few lines."""
    lines = [line for line in difflib.unified_diff(old.splitlines(), new.splitlines(), "C", "Rust", n=0, lineterm="")]
    return [f"{len(lines)} lines of differences", *lines[:12]]


class Client:
    """What a client says of the stopped processes, and the outcomes of that."""

    def __init__(self, name, busy):
        self.name = name
        self.busy = busy
        self.kept = {}      # case: how to get the output, and what it was

    def ok(self, case, good=True, *notes):
        tell(self.name, case, "ok" if good else "not ok", *([] if good else notes))

    def same(self, case, get, sees=True):
        """Both implementations lead to one output. If C itself gives two, it is tried again."""
        try:
            for _ in range(6):
                outputs = []
                for who in ("C", "Rust", "C"):
                    serve(who)
                    outputs.append(get())
                if outputs[0] == outputs[2]:
                    break
            else:
                raise Wrong("C alone gives different outputs", *differences(outputs[0], outputs[2]))
            if not outputs[0].strip():
                raise Wrong("there is no output")
            if outputs[0] != outputs[1]:
                raise Wrong(*differences(outputs[0], outputs[1]))
        except Wrong as e:
            tell(self.name, case, "not ok", *e.args)
            return
        finally:
            serve("Rust")
        if sees:
            self.kept[case] = get, outputs[1]
        tell(self.name, case, "ok")

    def with_both(self, case, attempt):
        """attempt() raises Wrong under neither."""
        for who in ("C", "Rust"):
            serve(who)
            try:
                attempt()
            except Wrong as e:
                tell(self.name, f"{case}-{who}", "not ok", *e.args)
            else:
                tell(self.name, f"{case}-{who}", "ok")

    def running(self, case, command, pattern=r"\S", timeout=120):
        """Rust serves, the processes run: it has to come to an end and to say something."""
        serve("Rust")
        try:
            with self.busy.running():
                out = command() if callable(command) else run(command, timeout)
            if not re.search(pattern, out, re.M):
                raise Wrong(f"there is no {pattern} in what it says", *out.splitlines()[-6:])
        except Wrong as e:
            tell(self.name, case, "not ok", *e.args)
        else:
            tell(self.name, case, "ok")


class Target:
    """A process to look at."""

    def __init__(self, name, argv, user=None):
        self.name = name
        self.log = open(f"/tmp/{name}.log", "w+")
        self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
                                      start_new_session=True, env=ENVIRONMENT, user=user, cwd="/")
        self.pid = self.child.pid

    def said(self):
        with open(self.log.name) as f:
            return f.read()

    def wait_for(self, pattern, seconds=180):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said(), re.M):
            if time.monotonic() > end or self.child.poll() is not None:
                raise Wrong(f"{self.name} does not say {pattern}", *self.said().splitlines()[-6:])
            time.sleep(0.1)

    @contextlib.contextmanager
    def running(self):
        """Lets a stopped process run for a while. What runs changes how pages of libraries are
        shared, which is a part of the output for others."""
        resume([self.pid])
        try:
            yield
        finally:
            freeze([self.pid])

    def kill(self):
        self.child.kill()
        self.child.wait()


def state(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


def freeze(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while any(state(pid) != "T" for pid in pids):
        if time.monotonic() > end:
            raise Wrong(f"one does not stop of the processes {' '.join(map(str, pids))}")
        time.sleep(0.1)


def resume(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


class Targets:
    """The stopped processes and the running ones."""

    def __init__(self):
        python = "import asyncio, ctypes, decimal, json, mmap, os, sqlite3, ssl, threading, time, xml.dom.minidom\n" \
                 "for n in range(3): threading.Thread(target=time.sleep, args=(9999,), daemon=True).start()\n" \
                 "print('ready', os.getpid(), flush=True)\ntime.sleep(9999)"
        self.target = Target("target", [f"{HERE}/target", "quiet"])
        self.stopped = [
            self.target, Target("trace", [f"{HERE}/trace", "wait"]), Target("python", ["python3", "-c", python]),
            Target("java", ["java", "-Xmx128m", "-XX:NativeMemoryTracking=summary", "-cp", "/usr/local/lib/task_mmu",
                            "Waiting"])]
        self.java = self.stopped[3]
        for target in self.stopped:
            target.wait_for(r"^ready \d+$")
        self.exporter = Target("exporter", ["prometheus-process-exporter", "-web.listen-address=127.0.0.1:9256",
                                            "-procnames=target,java,python3"])
        self.exporter.wait_for("Listening|Reading|msg=", 60)
        self.stopped.append(self.exporter)
        self.busy = Target("busy", [f"{HERE}/target", "busy"])
        self.busy.wait_for(r"^ready \d+$")
        freeze([self.busy.pid])
        time.sleep(3)
        for target in list(self.stopped):
            if target.child.poll() is not None:
                tell("targets", target.name, "not ok", "it has ended", *target.said().splitlines()[-4:])
                self.stopped.remove(target)
        self.pids = [target.pid for target in self.stopped]
        freeze(self.pids)

    def only(self, text, position=0):
        """The lines of these processes alone."""
        wanted = {str(pid) for pid in self.pids}
        return "\n".join(sorted(line for line in text.splitlines()
                                if len(line.split()) > position and line.split()[position] in wanted))

    def kill(self):
        for target in [*self.stopped, self.busy]:
            target.kill()


def files(client, t):
    for target in t.stopped:
        for name in FILES:
            def get(path=f"/proc/{target.pid}/{name}"):
                with open(path) as f:
                    return f.read()
            client.same(f"{name}-{target.name}", get, sees=target is t.target)
    client.running("running", f"for f in {' '.join(FILES)}; do cat /proc/{t.busy.pid}/$f || exit; done",
                   r"(.*\n){200}")


def query(client, t):
    for target in t.stopped:
        client.same(target.name, lambda pid=target.pid: run([f"{HERE}/query", str(pid)]), sees=target is t.target)
    client.running("running", f"{HERE}/query {t.busy.pid}", r"(.*\n){40}")


def pmap(client, t):
    for option in ("-q", "-x", "-X", "-XX", "-p", "-d"):
        client.same(option, lambda option=option: run(["pmap", option, *map(str, t.pids)]))
    client.running("running", f"pmap -XX {t.busy.pid}", r"(.*\n){40}")


def ps(client, t):
    pids = ",".join(map(str, t.pids))
    client.same("pss-uss", lambda: run(["ps", "-o", "pid,pss,uss,rss,vsz,size,trs,drs,comm", "-p", pids]))
    client.running("running", "ps -e -o pid,pss,uss,rss,comm", r" target$")


def top(client, t):
    def get():
        out = run(["top", "-b", "-n", "1", "-w", "300", "-p", ",".join(map(str, t.pids))])
        lines = [line.split() for line in t.only(out).splitlines()]
        return "\n".join(" ".join(w for n, w in enumerate(line) if n != 8) for line in lines)     # not %CPU
    client.same("processes", get)
    client.running("running", "top -b -n 2 -d 1", r" target$")


def htop(client, t):
    folder = os.path.expanduser("~/.config/htop")
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/htoprc", "w") as f:        # with columns of smaps_rollup
        f.write("fields=0 48 17 18 38 39 118 119 120 1\ndelay=5\n")

    def screen():
        """What it draws on a terminal in some seconds."""
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        child = subprocess.Popen(["htop"], stdin=its, stdout=its, stderr=its, env=ENVIRONMENT, start_new_session=True)
        os.close(its)
        drawn = b""
        end = time.monotonic() + 10
        while (left := end - time.monotonic()) > 0:
            if select.select([ours], [], [], left)[0]:
                drawn += os.read(ours, 65536)
        if child.poll() is not None:
            raise Wrong(f"it has ended with {child.returncode}", *drawn.decode(errors="replace").splitlines()[-4:])
        os.write(ours, b"q")
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            raise Wrong("it does not quit") from None
        finally:
            os.close(ours)
        return re.sub(r"\x1b[^a-zA-Z]*[a-zA-Z]", "", drawn.decode(errors="replace"))
    if not shutil.which("htop"):
        raise Skip("htop is not installed")
    client.running("running", screen, r"\bPSS\b")


def atop(client, t):
    def get():
        out = run(["atop", "-R", "-P", "PRM", "1", "1"])
        wanted = [line.split(maxsplit=6) for line in out.splitlines() if line.startswith("PRM ")]
        return t.only("\n".join(line[6] for line in wanted))
    client.same("PRM", get)
    client.running("running", "atop -R -P PRM,PRC 1 3", r"target")


def smem(client, t):
    get = lambda: t.only(run(["smem", "-H", "-c", "pid uss pss rss swap vss"]))
    client.same("processes", get)
    client.same("mappings", lambda: run(["smem", "-H", "-m", "-P", "target quiet", "-c",
                                         "map count pids pss rss uss"]))
    client.running("running", "smem -k -t", r"target")


def ps_mem(client, t):
    raise Skip("Debian has no package of it")


def lsof(client, t):
    client.same("files", lambda: run(["lsof", "-nP", "-p", ",".join(map(str, t.pids))], ok=(0, 1)), sees=False)
    client.running("running", "lsof -nP", r"target.* mem ")


def fuser(client, t):
    libc = glob.glob("/usr/lib/x86_64-linux-gnu/libc.so.6")[0]
    client.same("libc", lambda: " ".join(p for p in run(["fuser", libc]).split() if int(p) in t.pids), sees=False)
    client.running("running", f"fuser -v {libc} 2>&1", r"target")


GDB = ["gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no"]


def gdb(client, t):
    pid = str(t.target.pid)

    def mappings():
        out = run([*GDB, "-p", pid, "-ex", "info proc mappings"], 300)
        return "\n".join(re.findall(r"^ *0x.*$", out, re.M))
    client.same("info-proc-mappings", mappings)

    def gcore():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            core = f"{folder}/core"
            run([*GDB, "-p", pid, "-ex", f"gcore {core}"], 300)
            return run(["eu-readelf", "-l", "-n", core])
    client.same("gcore", gcore)

    def read_back():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            core = f"{folder}/core"
            run([*GDB, "-p", pid, "-ex", f"gcore {core}"], 300)
            return run([*GDB, f"{HERE}/target", core, "-ex", "info proc mappings", "-ex", "thread apply all bt"], 300)
    client.running("read-back", read_back, r"in idle \(")
    client.running("running", lambda: run([*GDB, "-p", str(t.busy.pid), "-ex", "info proc mappings",
                                           "-ex", "thread apply all bt"], 300), r"r-xp +.*/target")


def eu_stack(client, t):
    for target in (t.target, t.stopped[1]):
        client.same(target.name, lambda pid=target.pid: run(["eu-stack", "-p", str(pid)], 300, ok=(0, 1)), sees=False)
    client.running("running", f"eu-stack -p {t.busy.pid}", r"main", 300)


def perf(client, t):
    def record(pids, seconds):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            data = f"{folder}/data"
            run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "99", "-g", "-o", data, "-p", ",".join(map(str, pids)),
                 "--", "sleep", str(seconds)], 300)
            if seconds > 1:
                return run(["perf", "report", "-i", data, "--stdio", "--no-inline", "-g", "caller"], 300)
            return run(["perf", "script", "-i", data, "--show-mmap-events"], 300)

    def mappings():
        return "\n".join(re.findall(r"PERF_RECORD_MMAP2? .*", record(t.pids, 1)))
    client.same("mappings", mappings)
    client.running("running", lambda: record([t.busy.pid], 4), r"\bbusy\b|\bwork\b")


def bpftrace(client, t):
    program = f"uprobe:{HERE}/target:work /pid == {t.busy.pid}/ {{ @[ustack(4)] = count(); }} interval:s:3 {{ exit(); }}"
    client.running("uprobe-ustack", lambda: run(["bpftrace", "-e", program], 300), r"\bwork\+0")


BCC = """
import sys
from bcc import BPF
pid = int(sys.argv[1])
for line in open(f"/proc/{pid}/maps"):
    words = line.split()
    if "x" in words[1] and len(words) > 5 and words[5][0] == "/":
        low, high = (int(n, 16) for n in words[0].split("-"))
        for at in range(low, high, (high - low) // 5 + 1):
            print(hex(at), BPF.sym(at, pid, show_module=True, show_offset=True))
"""


def bcc(client, t):
    client.same("symbols", lambda: run(["python3", "-c", BCC, str(t.target.pid)], 300), sees=False)


def valgrind(client, t):
    def attempt(level, argv):
        out = run(["valgrind", f"--sanity-level={level}", "--tool=none", *argv], 400, quiet=False)
        if re.search(r"sync|segment mismatch|aspacem", out):
            raise Wrong("valgrind's own list differs from maps", *out.splitlines()[-8:])
    client.with_both("ls", lambda: attempt(3, ["ls", "/"]))
    client.with_both("mistake", lambda: attempt(3, [f"{HERE}/mistake-none"]))


def sanitizers(client, t):
    found = {"address": r"heap-use-after-free.*\n(.*\n)*.*main", "undefined": r"runtime error: shift exponent",
             "leak": r"detected memory leaks", "thread": r"data race"}

    def said(name, argument):
        out = run(["setarch", "-R", f"{HERE}/mistake-{name}", *argument], 300, ok=None, quiet=False)
        return re.sub(r"==\d+==|\(pid=\d+\)|\btid=\d+", "PID", out)
    for name, pattern in found.items():
        def fine(name=name):
            if out := said(name, []):
                raise Wrong("it reports what is not wrong", *out.splitlines()[:8])

        def report(name=name, pattern=pattern):
            out = said(name, [name])
            if not re.search(pattern, out):
                raise Wrong(f"it does not report {pattern}", *out.splitlines()[:8])
            return out
        client.with_both(f"{name}-good", fine)
        if name == "thread":        # which thread is first varies
            client.with_both(f"{name}-mistake", report)
        else:
            client.same(f"{name}-mistake", report, sees=False)


PSUTIL = """
import psutil, sys
for pid in map(int, sys.argv[1:]):
    p = psutil.Process(pid)
    print(pid, p.memory_full_info())
    for m in p.memory_maps(grouped=False):
        print(m)
"""


def psutil(client, t):
    client.same("memory_maps", lambda: run(["python3", "-c", PSUTIL, *map(str, t.pids)], 200))
    client.running("running", f"python3 -c {shlex.quote(PSUTIL)} {t.busy.pid} 1 {os.getpid()}", r"(.*\n){40}")


def numastat(client, t):
    # it prints hundredths of MiB, and so does not see one page
    client.same("processes", lambda: run(["numastat", "-p", *map(str, t.pids)]), sees=False)
    client.running("running", f"numastat -p {t.busy.pid}", r"Total")


def criu(client, t):
    def tree():
        # SysV shared memory of `target` is what criu does not dump
        child = subprocess.Popen(["setsid", "sh", "-c", f"{HERE}/trace wait & {HERE}/trace wait & wait"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                                 env=ENVIRONMENT)
        time.sleep(3)
        return child

    def all_of(child):
        with open(f"/proc/{child.pid}/task/{child.pid}/children") as f:
            return [child.pid, *map(int, f.read().split())]

    def maps_of(pids):
        text = ""
        for pid in pids:
            with open(f"/proc/{pid}/maps") as f:
                text += f.read()
        return text

    def covered(text):
        """What is mapped how, with what lies side by side as one: the heap begins anew."""
        found = []
        for line in text.splitlines():
            where, *what = line.replace("[heap]", "").split(maxsplit=5)
            start, end = where.split("-")
            if found and found[-1][1] == start and found[-1][2] == what and what[3] == "0":
                found[-1][1] = end
            else:
                found.append([start, end, what])
        return "\n".join(f"{start}-{end} {' '.join(what)}" for start, end, what in found)

    def end(pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def call(action, folder, *more):
        os.makedirs(folder, exist_ok=True)
        try:
            run(["criu", action, "-D", folder, "-v2", "-o", "log", "--network-lock", "skip", *more], 300)
        except Wrong as e:
            with open(f"{folder}/log") as f:
                raise Wrong(*e.args, *[line for line in f.read().splitlines() if "Error" in line][:8]) from None

    if not shutil.which("criu"):
        raise Skip("criu is not installed")
    child = tree()
    pids = all_of(child)

    def images():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            call("dump", folder, "-t", str(child.pid), "--leave-running")
            kept = []
            for pid in pids:
                with open(f"{folder}/mm-{pid}.img", "rb") as f:
                    kept.append(f.read().hex())
            return "\n".join([*kept, *(f"{os.path.basename(p)} {os.path.getsize(p)}"
                                       for p in sorted(glob.glob(f"{folder}/*.img"))
                                       if not re.search("stats|timens", p))])      # clocks
    try:
        client.same("dump", images, sees=False)
    finally:
        end(pids)
        child.wait()

    def there_and_back():
        child = tree()
        pids = all_of(child)
        folder = f"/var/tmp/criu-{child.pid}"
        before = maps_of(pids)
        call("dump", folder, "-t", str(child.pid))
        child.wait()
        call("restore", folder, "--restore-detached")
        try:
            time.sleep(1)
            after = maps_of(pids)
        finally:
            end(pids)
            shutil.rmtree(folder)
        if covered(before) != covered(after):
            raise Wrong("maps is not what it was", *differences(covered(before), covered(after)))
    client.with_both("restore", there_and_back)


def jvm(client, t):
    resume([t.java.pid])
    try:
        command = ["jcmd", str(t.java.pid)]
        help_text = run([*command, "help"], 200)

        def libraries():
            out = run([*command, "VM.info"], 200)
            return re.search(r"^Dynamic libraries:\n((.+\n)+)", out, re.M)[1]
        client.same("dynamic-libraries", lambda: re.sub(r"\d+ kB", "", libraries()), sees=False)
        if "System.map" in help_text:
            client.running("System.map", lambda: run([*command, "System.map"], 200), r"libjvm\.so")
        else:
            tell(client.name, "System.map", "skip", "this version of the JVM does not have it")
        client.running("native-memory", lambda: run([*command, "VM.native_memory", "summary"], 200), r"Java Heap")
    finally:
        freeze([t.java.pid])


def go(client, t):
    def attempt():
        exporter = Target("go", ["prometheus-process-exporter", "-web.listen-address=127.0.0.1:9257",
                                 "-procnames=target"])
        try:
            exporter.wait_for("Listening|Reading|msg=", 30)
            time.sleep(1)
            exporter.child.send_signal(signal.SIGQUIT)
            exporter.wait_for(r"^goroutine \d+.*\n(.*\n)*.*main\.main", 60)
        finally:
            exporter.kill()
    client.with_both("backtrace", attempt)


def rust(client, t):
    client.same("backtrace", lambda: run(["setarch", "-R", f"{HERE}/trace"]), sees=False)
    client.running("names", lambda: run([f"{HERE}/trace"]), r"trace::innermost\n(.*\n)+.*trace::outer\n(.*\n)+.*trace\.rs:")


def exporter(client, t):
    server = Target("exporter2", ["prometheus-process-exporter", "-web.listen-address=127.0.0.1:9258",
                                  "-procnames=trace,java", "-threads=false", "-gather-smaps"])

    def get():
        with urllib.request.urlopen("http://127.0.0.1:9258/metrics", timeout=60) as answer:
            text = answer.read().decode()
        return "\n".join(sorted(re.findall(r"^namedprocess_namegroup_memory_bytes.*$", text, re.M)))
    try:
        server.wait_for("Listening|Reading|msg=", 60)
        time.sleep(2)
        client.same("memory", get, sees=False)
        client.running("running", get, r"proportional")
    finally:
        server.kill()


def redis(client, t):
    def attempt():
        run("redis-server --port 0 --unixsocket /tmp/redis.sock --daemonize yes --dir /tmp --pidfile /tmp/redis.pid")
        cli = "redis-cli -s /tmp/redis.sock"
        try:
            run(f"until {cli} ping; do sleep 0.2; done; {cli} debug populate 20000 || {cli} set a b; {cli} bgsave")
            out = run(f"until {cli} info persistence | grep -q rdb_bgsave_in_progress:0; do sleep 0.5; done;"
                      f"{cli} info persistence; {cli} info memory")
            if not re.search(r"rdb_last_bgsave_status:ok", out) or not re.search(r"rdb_last_cow_size:[1-9]", out):
                raise Wrong("it has not counted what its child has copied", *re.findall(r"rdb_.*", out))
        finally:
            run(f"{cli} shutdown nosave", ok=None)
    client.with_both("start-and-save", attempt)
    client.with_both("check-system", lambda: run("redis-server --check-system", ok=(0, 1)))


def postgresql(client, t):
    def attempt():
        run("systemctl start postgresql@17-main.service", 200)
        try:
            out = run("su postgres -c \"psql -Atc 'select count(*) from pg_class'\"", 100)
            if not re.search(r"^\d+$", out, re.M):
                raise Wrong("it gives no number", out)
            run("for p in $(pgrep -u postgres); do cat /proc/$p/{maps,smaps,smaps_rollup,numa_maps} || exit; done", 100)
        finally:
            run("systemctl stop postgresql@17-main.service", 100, ok=None)
    client.with_both("start", attempt)


def coredump(client, t):
    """systemd-coredump takes a short read() of a file in /proc for its end, and so keeps the first
    page of maps. The core has all mappings."""
    def get():
        many = Target("many", [f"{HERE}/target", "many", "6000"])
        many.wait_for(r"^ready \d+$")
        freeze([many.pid])
        with open(f"/proc/{many.pid}/maps") as f:
            before = f.read()
        os.kill(many.pid, signal.SIGABRT)
        os.kill(many.pid, signal.SIGCONT)
        many.child.wait()
        match = f"COREDUMP_PID={many.pid}"
        run(f"for n in $(seq 120); do journalctl --sync; [ -z \"$(journalctl -q -o cat {match})\" ] || exit 0;"
            "sleep 0.5; done; exit 1", 150)
        out = run(["journalctl", "-q", "-o", "json", "--all", match])
        entry = json.loads(out.splitlines()[-1])
        kept = entry.get("COREDUMP_PROC_MAPS")
        if isinstance(kept, list):
            kept = bytes(kept).decode()
        if not kept:
            raise Wrong("systemd-coredump has kept no maps", *sorted(entry))
        if not before.startswith(kept.strip()):
            raise Wrong("what systemd-coredump has kept is not how maps began", *differences(before, kept))
        if before.count("\n") < 6000:
            raise Wrong(f"the process has only {before.count(chr(10))} mappings")
        run(["coredumpctl", "-q", "dump", str(many.pid), "-o", "/var/tmp/core"])
        loads = run(["eu-readelf", "-l", "/var/tmp/core"]).count(" LOAD ")
        os.unlink("/var/tmp/core")
        if loads < 6000:
            raise Wrong(f"the core has only {loads} mappings")
        return f"{loads} mappings in the core\n{kept}"
    client.same("6000-mappings", get, sees=False)


def stress_ng(client, t):
    client.with_both("procfs", lambda: run("cd /tmp && stress-ng --procfs 2 --timeout 20 --metrics-brief", 200))


def trinity(client, t):
    calls = " ".join(f"-c {name}" for name in ("read", "pread64", "lseek", "ioctl", "mmap", "readv", "preadv",
                                               "sendfile", "splice", "poll"))

    def attempt(name):
        # who makes the calls has to be allowed to read it
        victim = Target("victim", [f"{HERE}/target", "busy"], user="user")
        folder = tempfile.mkdtemp(dir="/var/tmp")
        os.chmod(folder, 0o777)
        try:
            victim.wait_for(r"^ready \d+$")
            out = run(f"cd {folder} && timeout -s INT 60 su user -c 'trinity -q -q -C 2 -N 2000 --enable-fds=pseudo "
                      f"-V /proc/{victim.pid}/{name} {calls}'", 90, ok=None, quiet=False)
        finally:
            victim.kill()
            shutil.rmtree(folder)
        ran = re.search(r"Ran (\d+) syscalls", out)
        if "Added 1 filenames" not in out or not ran or int(ran[1]) < 2000:
            raise Wrong("it has not made 2,000 calls", *out.splitlines()[-12:])
        run(["cat", "/proc/self/maps"])
    for name in FILES:
        client.with_both(name, lambda name=name: attempt(name))


# In their order; those after `criu` take longest.
CLIENTS = {
    "files": files, "PROCMAP_QUERY": query, "pmap": pmap, "ps": ps, "top": top, "htop": htop, "atop": atop, "smem": smem,
    "ps_mem": ps_mem, "lsof": lsof, "fuser": fuser, "psutil": psutil, "numastat": numastat, "gdb": gdb,
    "eu-stack": eu_stack, "perf": perf, "bpftrace": bpftrace, "bcc": bcc, "sanitizers": sanitizers, "rust": rust,
    "go": go, "jvm": jvm, "process-exporter": exporter, "redis": redis, "postgresql": postgresql,
    "systemd-coredump": coredump, "criu": criu, "valgrind": valgrind, "stress-ng": stress_ng, "trinity": trinity,
}


def one_page_more(t, clients):
    """Whether each comparison sees that a process has one page more: one that does not
    could not fail."""
    resume([t.target.pid])
    os.kill(t.target.pid, signal.SIGUSR1)
    t.target.wait_for(r"^more 1$", 20)
    time.sleep(0.5)
    freeze([t.target.pid])
    for client in clients:
        for case, (get, before) in client.kept.items():
            try:
                now = get()
            except (Wrong, Skip) as e:
                tell(client.name, f"{case}-sees-a-page", "not ok", *e.args)
                continue
            client.ok(f"{case}-sees-a-page", now != before, "the output has not changed with the process")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", nargs="*", help="only these")
    args = parser.parse_args()
    if not os.path.exists(SWITCH):
        tell("switch", "there", "not ok", f"this kernel has no {SWITCH}")
        return
    for name, text in (("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0"),
                       ("/proc/sys/kernel/numa_balancing", "0")):
        try:
            with open(name, "w") as f:
                f.write(text)
        except OSError:
            pass
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)
    try:
        t = Targets()
    except Wrong as e:
        tell("targets", "ready", "not ok", *e.args)
        return
    clients = []
    for name in args.client or CLIENTS:
        client = Client(name, t.busy)
        clients.append(client)
        start = time.monotonic()
        try:
            CLIENTS[name](client, t)
        except Skip as e:
            tell(name, "runs", "skip", *e.args)
        except Wrong as e:
            tell(name, "runs", "not ok", *e.args)
        except (OSError, ValueError, KeyError, IndexError, TypeError) as e:
            tell(name, "runs", "not ok", f"{type(e).__name__}: {e}")
        print(json.dumps({"took": name, "seconds": round(time.monotonic() - start)}), flush=True)
    one_page_more(t, clients)
    t.kill()


if __name__ == "__main__":
    main()
