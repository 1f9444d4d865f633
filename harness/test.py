#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the tests; prints KTAP, and at the end how many passed, failed and were
skipped. Fails when a test failed or when none ran."""

import argparse
import collections
import dataclasses
import os
import pathlib
import queue
import re
import shutil
import tempfile
import threading
import time

import build
import compile_fail
import fixes
import guest
import model
import run as runner
import series
from common import SRC, TREE, Failed, Progress, duration, lock, main, say, tell
from ktap import Case, attempt, check, clean_log, finish, kselftests, parsed


def ours(suffix):
    return [p for c in series.commits() for p in c.files if p.endswith(suffix)]


def suites():
    """The KUnit suites of the series that the kernel `slim` has, each with the file that declares it."""
    found = [(suite, path) for path in ours(".rs")
             for suite in re.findall(r"#\[kunit_tests\((\w+)\)\]", (SRC / path).read_text())]
    return found + [(suite, path) for path in ours(".c") if path.startswith("fs/proc/task_mmu/")
                    for suite in re.findall(r'struct kunit_suite \w+ = {\s+\.name = "(\w+)"', (SRC / path).read_text())]


def prepare(kernels):
    """Builds these kernels and the guest's file system, for all pieces at once."""
    with lock():
        series.lay()
        for name in sorted(kernels, reverse=True):
            build.build(name)
        if kernels:
            guest.make_image()
    if kernels:
        guest.accelerator(build.image(max(kernels)))


def test_series():
    with lock():
        return [attempt("lay", series.lay), attempt("git-am", series.check)]


def test_build():
    with lock():
        return [attempt("slim", lambda: build.build("slim"))]


def test_matrix():
    cases = []
    for name in build.MATRIX:
        with lock():
            cases.append(attempt(name, lambda: build.build(name)))
    return cases


def test_compile_fail():
    return [check(name, not wrong, *wrong) for name, wrong in compile_fail.cases()]


def kunit(kernel, name):
    """All KUnit suites that the kernel has. Those of the series are shown case
    by case, and each must be there. And the sample, loaded by a process."""
    sample = kernel.parents[3] / build.SAMPLE
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sample, folder)
        result = guest.boot(f"insmod /share/{sample.name}", name=name, kernel=kernel, share=folder,
                            append="kunit.enable=1 kunit.autorun=1")
    loaded = re.search(r"rust_vma_iter: (\d+) VMAs of (\d+) bytes", "\n".join(result.log))
    ran = {suite.name: suite for suite in parsed(result.log)}
    cases = [ran.pop(suite, None) or Case(suite, "not ok", [f"{path} declares it, it did not run"])
             for suite, path in suites()]
    doctests = ran.pop("rust_doctests_kernel", None)
    if doctests:
        cases += split_doctests(doctests)
    else:
        cases.append(Case("rust_doctests_kernel", "not ok", ["it did not run"]))
    for suite in ran.values():
        failed = [leaf.name for leaf in suite.leaves() if leaf.result == "not ok"]
        cases.append(check(suite.name, not failed, *failed))
    cases.append(check("sample", loaded and int(loaded[1]) > 3 and int(loaded[2]) > 1 << 16,
                       loaded[0] if loaded else "it does not say what it has counted"))
    return cases + [clean_log(result)]


def split_doctests(suite):
    """The doctests of the series' files one by one, those of the base in one."""
    mine, others = [], []
    files = [p for p in ours(".rs") if p.startswith("rust/kernel/")]
    files += [p for c in series.commits() for p in c.edited if re.match(r"rust/kernel/.*\.rs$", p)]
    prefixes = {p: re.sub(r"\W", "_", "rust_doctest_" + p.removeprefix("rust/")) + "_" for p in files}
    for leaf in suite.leaves():
        (mine if leaf.name.startswith(tuple(prefixes.values())) else others).append(leaf)
    for path, prefix in prefixes.items():
        fences = re.findall(r"^\s*//[/!] ```(.*)$", (TREE / path).read_text(), re.M)[::2]
        runs = [f for f in fences if f in ("", "rust")]
        if runs and not any(leaf.name.startswith(prefix) for leaf in mine):
            mine.append(Case(f"{prefix}*", "not ok", [f"{path} has examples, none ran"]))
    failed = [leaf.name for leaf in others if leaf.result == "not ok"]
    return [Case(suite.name, subtests=mine or [Case("examples", "skip", ["no file of the series has one"])]),
            check(f"{suite.name}-base", not failed, *failed)]


def test_kunit():
    return kunit(guest.KERNEL, "kunit")


RUST_SERVES = ("echo Y >/sys/module/task_mmu/parameters/rust && grep -q Y /sys/module/task_mmu/parameters/rust"
               " || { echo 'the kernel has no switch task_mmu.rust'; exit 1; }\n")


# The programs of selftests/proc that take half of the time, which run beside the others.
SLOW = ("proc-maps-errors", "proc-maps-faults", "proc-maps-query", "proc-maps-race", "proc-maps-rename",
        "proc-maps-torture")

# Fewer random queries, and a sixth of the times that one situation is made: the piece
# `selftests-whole` makes it as often as it says.
SHORT = "export PROC_MAPS_SHORT=6 PROC_MAPS_QUERY_CALLS=100000\n"

# Allocations of pages and copies to user space can only be made to fail on the kernel of the
# piece `debug`, slabs here as well.
SLABS = ("export KSELFTEST_PROC_MAPS_FAULTS_ARGS="
         "'-v maps_slab -v smaps_slab -v smaps_rollup_slab -v numa_maps_slab'\n")

# Readers at the lowest priority take minutes to get anywhere: they have the piece `trace`.
TRACE = "export KSELFTEST_PROC_MAPS_TRACE_ARGS='-n 2 -T killed -V idle'\n"


def listed(collection="proc"):
    """The programs of a collection of the kernel's selftests."""
    lines = (guest.BUILT / "selftests/kselftest-list.txt").read_text().split()
    return [line.split(":")[1] for line in lines if line.startswith(f"{collection}:")]


class Programs:
    """Says how many programs the kernel's runner has run, and which took longest."""

    def __init__(self, progress, count):
        self.progress = progress
        self.count = count
        self.took = []
        self.since = 0
        self.rest = b""

    def write(self, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if m := re.match(rb"(?:not )?ok \d+ selftests: \w+: (\S+)", line):
                now = self.progress.seconds()
                self.took.append((now - self.since, m[1].decode()))
                self.since = now
                longest = ", ".join(f"{name} {took:.0f} s" for took, name in sorted(self.took, reverse=True)[:5])
                self.progress.far = f"{len(self.took)} of {self.count} programs (the longest {longest})"

    def flush(self):
        pass


def selftests(kernel, name, wanted, collection="proc", prepare="", after="", timeout=1500):
    """These programs of the kernel's selftests with Rust serving, through the kernel's own
    runner, with commands before and after it."""
    chosen = " ".join(f"-t {collection}:{program}" for program in wanted)
    command = f"{RUST_SERVES}{prepare}\n/selftests/run_kselftest.sh {chosen} -o {timeout // 2} 2>&1\n{after}"
    with Progress(name) as progress:
        result = guest.boot(command, name=name, kernel=kernel, timeout=timeout, output=Programs(progress, len(wanted)))
    programs = kselftests(result.output.decode(errors="replace").splitlines())
    cases = []
    for program in wanted:
        cases.append(programs.pop(program, None) or Case(program, "not ok", ["it gave no result"]))
    if after:
        # the status is that of the last command
        cases.append(check("afterwards", result.status == 0, after))
    return cases + [clean_log(result)]


def slow_selftests(kernel, name, **how):
    return selftests(kernel, f"{name}-slow", [p for p in listed() if p in SLOW], **how)


def other_selftests(kernel, name, **how):
    return selftests(kernel, name, [p for p in listed() if p not in SLOW], **how)


def test_selftests_slow():
    return slow_selftests(guest.KERNEL, "selftests", prepare=SHORT + SLABS + TRACE)


def test_selftests():
    return other_selftests(guest.KERNEL, "selftests", prepare=SHORT + SLABS + TRACE)


def test_selftests_slow_whole():
    return slow_selftests(guest.KERNEL, "selftests-whole", prepare=SLABS + TRACE)


def test_selftests_whole():
    return other_selftests(guest.KERNEL, "selftests-whole", prepare=SLABS + TRACE)


def test_mm_selftests():
    """The base's tests of mm; those that pass are not told one by one."""
    prepare = ("mkswap /dev/ram0 >/dev/null && swapon /dev/ram0 || exit 1\n"
               "export KSELFTEST_KHUGEPAGED_SHMEM_ARGS=all:shmem\n"
               # all of its tests take minutes; only those with `wp` read pagemap
               "export KSELFTEST_UFFD_UNIT_TESTS_ARGS='-f wp'\n"
               "export KSELFTEST_TRANSHUGE_STRESS_ARGS='-d 5 512'")
    cases = selftests(guest.KERNEL, "mm-selftests", listed("mm"), "mm", prepare)
    for case in cases:
        others = [leaf for leaf in case.leaves() if leaf.result != "ok"]
        passed = len(case.leaves()) - len(others)
        if passed and others:
            others.append(Case(f"{passed} more"))
        case.subtests = others if case.subtests else []
    return cases


def test_commits():
    """Each commit with those before it, since a series is bisected."""
    cases = []
    for count, c in enumerate(series.commits(), 1):
        with lock():
            def one():
                series.lay(tree=series.COMMITS_TREE, count=count)
                build.build("commits", tree=series.COMMITS_TREE)
            cases.append(attempt(c.name, one))
    return cases


def test_events():
    """KUnit makes readers meet each thing that they can meet, which the counters
    and the tracepoints have to tell; a reader in peace changes neither."""
    counters = "cat /sys/kernel/debug/task_mmu/events"
    files = "maps smaps smaps_rollup numa_maps"
    result = guest.boot(f"cat /sys/kernel/tracing/trace; {counters}; echo ===; "
                        f"for f in {files}; do cat /proc/self/$f; done >/dev/null; "
                        f"cat /sys/kernel/tracing/trace; {counters}",
                        name="events", append="kunit.enable=1 kunit.autorun=1 kunit.filter_glob=task_mmu_* "
                        "trace_event=task_mmu:*")
    told, later = result.output.decode(errors="replace").split("===\n")
    counts = {name: int(n) for name, n in re.findall(r"^(vma_walk_\w+) (\d+)$", told, re.M)}
    traced = dict.fromkeys(counts, 0)
    for event, reason in re.findall(r": (vma_walk_\w+): mm=\S+ addr=0x[0-9a-f]+(?: reason=(\w+))?$", told, re.M):
        name = f"{event}_{reason}" if event == "vma_walk_fallback" else event
        traced[name] = traced.get(name, 0) + 1
    cases = [check(name, n and traced[name] == n, f"{n} counted, {traced[name]} traced")
             for name, n in counts.items()]
    return [*cases, check("counters", len(counts) == 8 and traced.keys() == counts.keys(), *counts, *traced),
            check("in-peace", later == told, "what was told has changed"), clean_log(result)]


def modelled(long):
    cases = {}
    for case, tried, result, notes in model.cases(long):
        cases.setdefault(case, []).append(Case(tried, result, notes))
    return [Case(case, subtests=runs) for case, runs in cases.items()]


def test_model():
    return modelled(long=False)


def test_model_long():
    return modelled(long=True)


def program(kernel, name, command, seconds, after=""):
    """One of the selftests for proc with arguments, and commands after it."""
    with Progress(name):
        result = guest.boot(f"{RUST_SERVES}/selftests/proc/{command} || exit 1\n{after}", name=name, kernel=kernel,
                            timeout=seconds)
    text = result.output.decode(errors="replace").splitlines()
    cases = parsed([line for line in text if re.match(r"K?TAP version|1\.\.|(not )?ok |# ", line)])
    return [*cases, check("exit status", result.status == 0, *text[-20:]), clean_log(result)]


def torture(kernel, name, lines, seconds, after=""):
    """That many lines read while everything changes, in at most so many seconds."""
    return program(kernel, name, f"proc-maps-torture -l {lines} -t {seconds}", seconds + 300, after)


def test_torture_long():
    return torture(guest.KERNEL, "torture", 20_000_000, 7200)


def test_trace():
    return program(guest.KERNEL, "trace", "proc-maps-trace", 1500)


def trace_rounds(priority, file):
    """A job of 20,000 rounds, which tells at once how it ended, since all of them take an hour."""
    name = f"trace-long-{priority}-{file}"

    def run():
        case = Case(f"{priority}-{file}", subtests=program(guest.KERNEL, name,
                    f"proc-maps-trace -n 20000 -k {file} -v {priority}", 4 * 3600))
        say(f"{name}: {case.outcome()}")
        return [case]

    run.__name__ = name
    return Job(run, 300, 2)


def maple_trees(name):
    """The test of maple trees."""
    module = build.BUILD / name / build.MAPLE_TREE_TEST
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(module, folder)
        result = guest.boot(f"insmod /share/{module.name}", name=f"{name}-maple-trees", kernel=build.image(name),
                            share=folder)
    told = re.search(r"maple_tree: (\d+) of (\d+) tests passed", "\n".join(result.log))
    passed = check("passed", told and 0 < int(told[1]) == int(told[2]), told[0] if told else "it does not say")
    return [Case("maple-trees", subtests=[passed, clean_log(result)])]


def test_debug_kunit():
    return [Case("kunit", subtests=kunit(build.image("debug"), "debug-kunit"))]


def test_debug_selftests_slow():
    return [Case("selftests-slow", subtests=slow_selftests(build.image("debug"), "debug-selftests",
                                                           prepare=SHORT + TRACE, timeout=2400))]


def test_debug_selftests():
    return [Case("selftests", subtests=other_selftests(build.image("debug"), "debug-selftests",
                                                       prepare=SHORT + TRACE, timeout=2400))]


def test_debug_maple_trees():
    return maple_trees("debug")


def checked(name, prepare="", after="", timeout=4800):
    """KUnit, the selftests for proc and 1,000,000 lines of torture on a kernel that checks
    itself."""
    kernel = build.image(name)
    return [Case("kunit", subtests=kunit(kernel, f"{name}-kunit")),
            Case("selftests", subtests=selftests(kernel, f"{name}-selftests", listed(), "proc", TRACE + prepare,
                                                 after, timeout)),
            Case("torture", subtests=torture(kernel, f"{name}-torture", 1_000_000, 3600, after))]


# Memory is lost if it is so in a second scan; a report goes to the kernel's log.
LEAKS = "for n in 1 2 3; do echo scan >/sys/kernel/debug/kmemleak || exit 1; sleep 6; done; cat /sys/kernel/debug/kmemleak"


def test_kasan():
    # DEBUG_VM_MAPLE_TREE checks all of a tree after each change
    return checked("kasan", "export PROC_MAPS_FEWER=20", LEAKS)


# KCSAN turns itself off where it finds that it does not work.
WATCHES = "cat /sys/kernel/debug/kcsan; grep -q '^enabled: 1' /sys/kernel/debug/kcsan"


def test_kcsan():
    return checked("kcsan", after=WATCHES)


def refused(word, **how):
    """Whether a boot fails, and says so with word."""
    try:
        guest.boot(**how, name="harness")
    except Failed as e:
        return word in str(e)
    return False


def interrupted_build():
    """Whether what a build that was killed has warned of, or may have, is compiled again."""
    with tempfile.TemporaryDirectory(dir=build.BUILD) as folder:
        folder = pathlib.Path(folder)
        log = folder / "log"
        log.write_text(f"{TREE}/fs/warned.c:1:1: warning: a test of the harness\n")
        for name, age in (("fs/warned.o", 60), ("fs/good.o", 60), ("fs/late.o", 0)):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
            os.utime(folder / name, (time.time() - age,) * 2)
        build.forget(folder.name, TREE, log)
        left = {path.name for path in folder.rglob("*.o")}
    return check("warnings-are-not-lost", left == {"good.o"}, *left)


def interrupted_change():
    """Whether a file of the tree that was changed when a run was killed is put back."""
    path = TREE / "Documentation/filesystems/index.rst"
    with lock():
        before = path.read_bytes()
        series.lend("Documentation/filesystems/index.rst")
        path.write_bytes(b"a test of the harness\n")
        series.lay()
        after = path.read_bytes()
    return check("changes-are-put-back", after == before)


def test_harness():
    """What `make run` promises, that what must fail a test does, and that nothing which a run
    leaves that dies in the middle is taken for a pass."""
    tour = guest.boot(runner.TOUR, name="harness")
    text = tour.output.decode()
    cases = [check("tour", tour.status == 0 and re.search(r"^Rust \(", text, re.M)
                   and re.search(r"^10\d\d\d$", text, re.M), *text.splitlines()),
             clean_log(tour)]
    with tempfile.TemporaryDirectory() as folder:
        shared = pathlib.Path(folder)
        (shared / "in").write_text("from the host")
        one = guest.boot("echo 'WARNING: not one, a test of the harness' >/dev/kmsg; cp /share/in /share/out; exit 7",
                         name="harness", share=folder)
        cases += [check("exit-status", one.status == 7),
                  check("report-is-seen", len(one.reports()) == 1),
                  check("share", (shared / "out").is_file() and (shared / "out").read_text() == "from the host")]
    counting = guest.boot("nproc", name="harness", accel="icount")
    cases.append(check("icount-one-cpu", counting.output == b"1\n"))
    cases.append(check("hang-is-killed", refused("was killed", command="sleep 1000", timeout=10)))
    cases.append(check("panic-is-told", refused("Kernel panic", command="", append="rdinit=/bin/false")))
    return [*cases, interrupted_build(), interrupted_change()]


def printed(kernel, name, prepare=""):
    """What smaps and numa_maps say of each layout of proc-smaps-diff, all on one CPU, and how its
    tests came out. Left out are how many pages are active, which depends on what other CPUs have
    yet to do, the number of an inode, and on which nodes the pool of hugetlb has had pages."""
    result = guest.boot(f"{prepare}PROC_SMAPS_PRINT=1 taskset 1 /selftests/proc/proc-smaps-diff -t process",
                        name=name, kernel=kernel, timeout=600)
    found = {}
    for line in result.output.decode(errors="replace").splitlines():
        if m := re.match(r"#  RUN +smaps_diff\.(\w+)\.process", line):
            found[m[1]] = lines = []
        elif line.startswith("@ "):
            varies = r" active=\d+|(?<= 00:\w\w )\d+ +" + (r"| N\d+=\d+" if " huge " in line else "")
            lines.append(re.sub(varies, "", line[2:]))
    return found, result.status == 0


def test_pages():
    """The same mappings on the kernel without the series and on that with it."""
    with lock():
        kernel = build.build_base()
    with Progress("base"):
        base, passed = printed(kernel, "pages-base", "echo N >/tmp/switch\nexport PROC_MAPS_SWITCH=/tmp/switch\n")
    with Progress("series"):
        found, also = printed(guest.KERNEL, "pages")
    cases = [check("amounts", passed and also)]
    for layout in base:
        differ = [f"{old!r} became {new!r}" for old, new in zip(base[layout], found.get(layout, []))
                  if old != new]
        cases.append(check(layout, base[layout] and len(base[layout]) == len(found.get(layout, [])) and not differ,
                           *differ))
    return cases


@dataclasses.dataclass
class Job:
    """A part of a piece that runs by itself."""
    run: object         # gives cases
    seconds: int        # that it takes, about, on two cores
    cores: int = 2      # that it keeps busy


@dataclasses.dataclass
class Piece:
    """What can be asked for by name."""
    what: str
    jobs: list
    needs: str = ""     # a kernel and the guest's file system, made before anything runs


QUICK = {
    "series": Piece("the patches apply, and git am gives the laid tree", [Job(test_series, 5, 1)]),
    "build": Piece("the kernel builds without a warning", [Job(test_build, 5)]),
    "compile-fail": Piece("misuse of the abstractions does not compile", [Job(test_compile_fail, 10, 1)], "slim"),
    "kunit": Piece("KUnit suites and doctests", [Job(test_kunit, 10, 1)], "slim"),
    "events": Piece("counters and tracepoints", [Job(test_events, 6, 1)], "slim"),
    "selftests": Piece("the kernel's selftests for proc, with Rust serving",
                       [Job(test_selftests_slow, 180, 1), Job(test_selftests, 180, 1)], "slim"),
    "model": Piece("the protocols in interleavings with writers, on the host", [Job(test_model, 45)]),
    "harness": Piece("the guest, and that errors in it are seen", [Job(test_harness, 35, 1)], "slim"),
}
MORE = {
    "mm-selftests": Piece("the kernel's selftests for mm that read smaps or pagemap",
                          [Job(test_mm_selftests, 100, 1)], "slim"),
    "selftests-whole": Piece("as selftests, each situation as often as it says",
                             [Job(test_selftests_slow_whole, 420, 1), Job(test_selftests_whole, 300, 1)], "slim"),
    "trace": Piece("what readers at all priorities leave behind in a process", [Job(test_trace, 400, 1)], "slim"),
    "debug": Piece("kunit, selftests and the test of maple trees on a kernel with lockdep and other checks",
                   [Job(test_debug_kunit, 60, 1), Job(test_debug_selftests_slow, 300, 1),
                    Job(test_debug_selftests, 300, 1), Job(test_debug_maple_trees, 60, 1)], "debug"),
    "pages": Piece("smaps and numa_maps say of all kinds of pages what the base says", [Job(test_pages, 60, 1)], "slim"),
    "matrix": Piece("other configurations and arm64 build without a warning", [Job(test_matrix, 60)]),
    "commits": Piece("each commit builds without a warning", [Job(test_commits, 550)]),
    "fixes": Piece("each test of the set `fixes` fails without its fix and passes with it", [Job(fixes.cases, 200)], "slim"),
}
LONG = {
    "model-long": Piece("as model, with two writers everywhere", [Job(test_model_long, 1800)]),
    "torture-long": Piece("20,000,000 lines of proc-maps-torture", [Job(test_torture_long, 100)], "slim"),
    "trace-long": Piece("20,000 rounds beside readers of each file, size of buffer and priority",
                        [trace_rounds(priority, file) for priority in ("normal", "nice", "idle")
                         for file in ("query", "maps", "smaps", "numa_maps", "smaps_rollup")], "slim"),
    "kasan": Piece("as debug, also with KASAN and kmemleak, and 1,000,000 lines of torture", [Job(test_kasan, 2100)], "kasan"),
    "kcsan": Piece("the same with KCSAN", [Job(test_kcsan, 1600)], "kcsan"),
}
PIECES = QUICK | MORE | LONG


def estimate(pieces):
    """Seconds that they take side by side."""
    jobs = [job for piece in pieces for job in piece.jobs]
    cores = os.cpu_count()
    return max([sum(j.seconds * min(j.cores, cores) for j in jobs) // cores, *(j.seconds for j in jobs)])


def side_by_side(pieces, done):
    """Runs the jobs of the named pieces, each as soon as there are as many cores for it as it
    keeps busy, the longest first. Calls done(name, cases) for each piece in their order."""
    cores = free = os.cpu_count()
    waiting = sorted(((name, n, job) for name, piece in pieces.items() for n, job in enumerate(piece.jobs)),
                     key=lambda item: -item[2].seconds)
    results = {name: {} for name in pieces}
    left = list(pieces)
    ended = queue.Queue()

    def work(name, n, job):
        try:
            cases = job.run()
        except Failed as e:
            cases = [Case(job.run.__name__, "not ok", str(e).splitlines())]
        except BaseException as e:      # raised where it ends this program
            ended.put((name, n, job, e))
            return
        ended.put((name, n, job, cases))

    running = 0
    with Progress("make test", estimate(pieces.values())) as progress:
        while waiting or running:
            for item in list(waiting):
                if min(item[2].cores, cores) <= free:
                    waiting.remove(item)
                    free -= min(item[2].cores, cores)
                    running += 1
                    threading.Thread(target=work, args=item, daemon=True).start()
            name, n, job, cases = ended.get()
            running -= 1
            free += min(job.cores, cores)
            if isinstance(cases, BaseException):
                raise cases
            results[name][n] = cases
            while left and len(results[left[0]]) == len(pieces[left[0]].jobs):
                name = left.pop(0)
                done(name, [case for _, cases in sorted(results[name].items()) for case in cases])
            complete = sum(len(results[name]) == len(piece.jobs) for name, piece in pieces.items())
            progress.far = f"{complete} of {len(pieces)} pieces"


def run():
    def told(pieces):
        return "\n".join(f"  {name:16}{piece.what}" for name, piece in pieces.items())

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"pieces:\n{told(QUICK)}\nwith --all, too:\n{told(MORE)}\nonly when they are named:\n{told(LONG)}")
    parser.add_argument("--only", metavar="A,B", default=os.environ.get("ONLY", ""),
                        help="run only these pieces (or ONLY=A,B)")
    parser.add_argument("--all", action="store_true", help="run more than what `make test` does")
    args = parser.parse_args()
    names = [n for n in re.split(r"[,\s]+", args.only) if n] or list(QUICK | MORE if args.all else QUICK)
    for name in names:
        if name not in PIECES:
            raise Failed(f"there is no piece {name}; there are: {', '.join(PIECES)}")
    guest.asked()
    pieces = {name: PIECES[name] for name in dict.fromkeys(names)}
    say(f"running {', '.join(pieces)}: about {duration(estimate(pieces.values()))} on {os.cpu_count()} cores, "
        "and before that what has to be built (the first time some 12 minutes a kernel)")
    prepare({piece.needs for piece in pieces.values() if piece.needs})

    print("KTAP version 1")
    print(f"1..{len(pieces)}", flush=True)
    counts = collections.Counter()
    failed = []

    def done(name, cases):
        case = Case(name, subtests=cases or [Case("results", "not ok", ["there are none"])])
        counts.update(leaf.result for leaf in case.leaves())
        if case.outcome() == "not ok":
            failed.append(name)
        tell(case.ktap(list(pieces).index(name) + 1))

    side_by_side(pieces, done)
    if failed:
        print(f"# failed: {' '.join(failed)}")
    return finish(counts)


if __name__ == "__main__":
    main(run)
