#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Runs the tests; prints KTAP, and at the end how many passed, failed and were
skipped. Fails when a test failed or when none ran."""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

import build
import compile_fail
import guest
import model
import run as runner
import series
from common import SRC, TREE, Failed, lock, main, say

# The kernel's own reader of test results.
sys.path.insert(0, str(TREE / "tools/testing/kunit"))


@dataclasses.dataclass
class Case:
    """A test's outcome; that of one with subtests follows from theirs."""
    name: str
    result: str = "ok"          # ok, not ok, skip
    notes: list = dataclasses.field(default_factory=list)
    subtests: list = dataclasses.field(default_factory=list)

    def leaves(self):
        return [leaf for s in self.subtests for leaf in s.leaves()] if self.subtests else [self]

    def outcome(self):
        results = {leaf.result for leaf in self.leaves()}
        return next(r for r in ("not ok", "ok", "skip") if r in results)

    def show(self, number, indent=""):
        if self.subtests:
            print(f"{indent}    KTAP version 1")
            print(f"{indent}    # Subtest: {self.name}")
            print(f"{indent}    1..{len(self.subtests)}")
            for n, s in enumerate(self.subtests, 1):
                s.show(n, indent + "    ")
        outcome = self.outcome()
        for note in self.notes if outcome == "not ok" else []:
            print(f"{indent}# {note}")
        skip = f" # SKIP {' '.join(self.notes)}" if outcome == "skip" else ""
        print(f"{indent}{'not ok' if outcome == 'not ok' else 'ok'} {number} {self.name}{skip}", flush=True)


def attempt(name, function):
    """The case of a function that raises when it fails."""
    try:
        function()
    except Failed as e:
        return Case(name, "not ok", str(e).splitlines())
    return Case(name)


def check(name, good, *notes):
    return Case(name, "ok" if good else "not ok", [] if good else list(notes))


def clean_log(result):
    reports = result.reports()
    return check("kernel log", not reports, *reports[:20], f"all of it: {result.log_path.name}")


def parsed(lines):
    """The cases in KTAP lines, read by the kernel's own parser."""
    import kunit_parser
    import kunit_printer

    status = kunit_parser.TestStatus

    def case(test):
        result = {status.SUCCESS: "ok", status.SKIPPED: "skip"}.get(test.status, "not ok")
        notes = [test.skip_reason] if result == "skip" else [line.strip() for line in test.log]
        if result == "not ok":
            notes.append(f"the parser calls it {test.status.name}")
        if test.counts.errors and not test.subtests:
            result = "not ok"
        return Case(test.name, result, notes, [case(s) for s in test.subtests])

    top = kunit_parser.parse_run_tests(lines, kunit_printer.null_printer)
    cases = [case(s) for s in top.subtests]
    if top.counts.errors:
        cases.append(Case("results", "not ok", [f"the results have {top.counts.errors} errors of form"]))
    return cases


def ours(suffix):
    return [p for c in series.commits() for p in c.files if p.endswith(suffix)]


def suites():
    """The KUnit suites of the series, each with the file that declares it."""
    return [(suite, path) for path in ours(".rs")
            for suite in re.findall(r"#\[kunit_tests\((\w+)\)\]", (SRC / path).read_text())]


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
    by case, and each must be there."""
    result = guest.boot("true", name=name, kernel=kernel, append="kunit.enable=1 kunit.autorun=1")
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


def selftests(kernel, name, collection="proc", prepare="", after="", timeout=1500):
    """A collection of the kernel's selftests with Rust serving, through the
    kernel's own runner, with commands before and after it."""
    with lock():
        guest.make_image()
    command = f"{RUST_SERVES}{prepare}\n/selftests/run_kselftest.sh -c {collection} -o {timeout // 2} 2>&1\n{after}"
    result = guest.boot(command, name=name, kernel=kernel, timeout=timeout)
    programs = kselftests(result.output.decode(errors="replace").splitlines())
    listed = [line.split(":")[1] for line in
              (guest.BUILT / "selftests/kselftest-list.txt").read_text().split()
              if line.startswith(f"{collection}:")]
    cases = []
    for program in listed:
        cases.append(programs.pop(program, None) or Case(program, "not ok", ["it gave no result"]))
    if after:
        # the status is that of the last command
        cases.append(check("afterwards", result.status == 0, after))
    return cases + [clean_log(result)]


def kselftests(lines):
    """The programs' results in what run_kselftest.sh prints. It comments out
    what the programs say; where that is TAP, it gives the subtests."""
    programs = {}
    said = []
    for line in lines:
        if line.startswith("# selftests: "):
            said = []
            continue
        m = re.match(r"(not ok|ok) \d+ selftests: \w+: (\S+)\s*(?:# (.*))?$", line)
        if not m:
            said.append(re.sub(r"^# ?", "", line))
            continue
        ok, name, directive = m.groups()
        result = "skip" if (directive or "").startswith("SKIP") else ok
        notes = said[-30:] + [directive or ""]
        if result == "skip":
            reasons = [s.split("SKIP", 1)[1].strip() for s in said if "SKIP" in s]
            notes = reasons[-1:] or ["it does not say why"]
        start = next((n for n, s in enumerate(said) if re.match(r"K?TAP version", s)), None)
        subtests = parsed(said[start:]) if start is not None and result != "skip" else []
        if subtests and result == "not ok" and all(s.outcome() != "not ok" for s in subtests):
            subtests.append(Case("exit status", "not ok", notes))
        programs[name] = Case(name, result, notes, subtests)
        said = []
    return programs


def test_selftests():
    return selftests(guest.KERNEL, "selftests")


def test_mm_selftests():
    """The base's tests of mm; those that pass are not told one by one."""
    prepare = ("mkswap /dev/ram0 >/dev/null && swapon /dev/ram0 || exit 1\n"
               "export KSELFTEST_KHUGEPAGED_SHMEM_ARGS=all:shmem\n"
               # all of its tests take minutes; only those with `wp` read pagemap
               "export KSELFTEST_UFFD_UNIT_TESTS_ARGS='-f wp'\n"
               "export KSELFTEST_TRANSHUGE_STRESS_ARGS='-d 5 512'")
    cases = selftests(guest.KERNEL, "mm-selftests", "mm", prepare)
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
    counters = "grep ^vma_walk /proc/vmstat"
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


def torture(kernel, name, lines, seconds, after=""):
    """That many lines read while everything changes, in at most so many seconds,
    and commands after that."""
    with lock():
        guest.make_image()
    result = guest.boot(f"{RUST_SERVES}/selftests/proc/proc-maps-torture -l {lines} -t {seconds}"
                        f" || exit 1\n{after}",
                        name=name, kernel=kernel, timeout=seconds + 300)
    text = result.output.decode(errors="replace").splitlines()
    cases = parsed([line for line in text if re.match(r"K?TAP version|1\.\.|(not )?ok |# ", line)])
    return [*cases, check("exit status", result.status == 0, *text[-20:]), clean_log(result)]


def test_torture_long():
    with lock():
        kernel = build.build("slim")
    return torture(kernel, "torture", 20_000_000, 7200)


def maple_trees(name):
    """The test of maple trees."""
    with lock():
        kernel = build.build(name)
    module = build.BUILD / name / build.MAPLE_TREE_TEST
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(module, folder)
        result = guest.boot(f"insmod /share/{module.name}", name=f"{name}-maple-trees", kernel=kernel,
                            share=folder)
    told = re.search(r"maple_tree: (\d+) of (\d+) tests passed", "\n".join(result.log))
    passed = check("passed", told and 0 < int(told[1]) == int(told[2]), told[0] if told else "it does not say")
    return Case("maple-trees", subtests=[passed, clean_log(result)])


def checked(name, lines=0, prepare="", after="", timeout=1500):
    """KUnit, the selftests for proc and so many lines of torture on a kernel that
    checks itself."""
    with lock():
        kernel = build.build(name)
    cases = [Case("kunit", subtests=kunit(kernel, f"{name}-kunit")),
             Case("selftests", subtests=selftests(kernel, f"{name}-selftests", "proc", prepare, after, timeout))]
    if lines:
        cases.append(Case("torture", subtests=torture(kernel, f"{name}-torture", lines, 3600, after)))
    return cases


def test_debug():
    return [*checked("debug"), maple_trees("debug")]


# Memory is lost if it is so in a second scan; a report goes to the kernel's log.
LEAKS = "for n in 1 2 3; do echo scan >/sys/kernel/debug/kmemleak || exit 1; sleep 6; done; cat /sys/kernel/debug/kmemleak"


def test_kasan():
    # DEBUG_VM_MAPLE_TREE checks all of a tree after each change
    return checked("kasan", 1_000_000, "export PROC_MAPS_FEWER=20", LEAKS, 4800)


# KCSAN turns itself off where it finds that it does not work.
WATCHES = "cat /sys/kernel/debug/kcsan; grep -q '^enabled: 1' /sys/kernel/debug/kcsan"


def test_kcsan():
    return checked("kcsan", 1_000_000, after=WATCHES, timeout=4800)


def refused(word, **how):
    """Whether a boot fails, and says so with word."""
    try:
        guest.boot(**how, name="harness")
    except Failed as e:
        return word in str(e)
    return False


def test_harness():
    """What `make run` promises, and that what must fail a test does."""
    with lock():
        guest.make_image()
    tour = guest.boot(runner.TOUR, name="harness")
    text = tour.output.decode()
    cases = [check("tour", tour.status == 0 and re.search(r"^Rust \(", text, re.M)
                   and re.search(r"^10\d\d\d$", text, re.M), *text.splitlines()),
             clean_log(tour),
             check("exit-status", guest.boot("exit 7", name="harness").status == 7)]
    with tempfile.TemporaryDirectory() as folder:
        shared = pathlib.Path(folder)
        (shared / "in").write_text("from the host")
        guest.boot("cp /share/in /share/out", name="harness", share=folder)
        cases.append(check("share", (shared / "out").is_file()
                           and (shared / "out").read_text() == "from the host"))
    one = guest.boot("nproc", name="harness", accel="icount")
    cases.append(check("icount-one-cpu", one.output == b"1\n"))
    told = guest.boot("echo 'WARNING: not one, a test of the harness' >/dev/kmsg", name="harness")
    cases.append(check("report-is-seen", len(told.reports()) == 1))
    cases.append(check("hang-is-killed", refused("was killed", command="sleep 1000", timeout=10)))
    cases.append(check("panic-is-told", refused("Kernel panic", command="", append="rdinit=/bin/false")))
    return cases


PIECES = {
    "series": (test_series, "the patches apply, and git am gives the laid tree"),
    "model": (test_model, "the protocols in interleavings with writers, on the host"),
    "build": (test_build, "the kernel builds without a warning"),
    "compile-fail": (test_compile_fail, "misuse of the abstractions does not compile"),
    "kunit": (test_kunit, "KUnit suites and doctests"),
    "events": (test_events, "counters and tracepoints"),
    "selftests": (test_selftests, "the kernel's selftests for proc, with Rust serving"),
    "mm-selftests": (test_mm_selftests, "the kernel's selftests for mm that read smaps or pagemap"),
    "harness": (test_harness, "the guest, and that errors in it are seen"),
    "matrix": (test_matrix, "other configurations and arm64 build without a warning"),
    "commits": (test_commits, "each commit builds without a warning"),
    "debug": (test_debug, "kunit, selftests and the test of maple trees on a kernel with lockdep and other checks"),
}
# Only when they are named, since they take long.
LONG = {
    "model-long": (test_model_long, "as model, with two writers everywhere"),
    "torture-long": (test_torture_long, "20,000,000 lines of proc-maps-torture"),
    "kasan": (test_kasan, "as debug, also with KASAN and kmemleak, and 1,000,000 lines of torture"),
    "kcsan": (test_kcsan, "the same with KCSAN"),
}


def run():
    pieces = "\n".join(f"  {name:14}{what}" for name, (_, what) in PIECES.items())
    pieces += "\nonly when they are named:\n"
    pieces += "\n".join(f"  {name:14}{what}" for name, (_, what) in LONG.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"pieces:\n{pieces}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="A,B", default=os.environ.get("ONLY", ""),
                        help="run only these pieces (or ONLY=A,B)")
    args = parser.parse_args()
    names = [n for n in re.split(r"[,\s]+", args.only) if n] or list(PIECES)
    for name in names:
        if name not in PIECES | LONG:
            raise Failed(f"there is no piece {name}; there are: {', '.join(PIECES | LONG)}")
    guest.asked()

    # what all pieces stand on
    with lock():
        series.lay()
        if set(names) & {"compile-fail", "kunit", "events", "selftests", "mm-selftests", "harness"}:
            build.build("slim")
            guest.make_image()
    print("KTAP version 1")
    print(f"1..{len(names)}", flush=True)
    done = []
    for number, name in enumerate(names, 1):
        start = time.monotonic()
        try:
            case = Case(name, subtests=(PIECES | LONG)[name][0]())
        except Failed as e:
            case = Case(name, "not ok", str(e).splitlines())
        case.show(number)
        say(f"{name}: {time.monotonic() - start:.0f} s")
        done.append(case)

    results = [leaf.result for case in done for leaf in case.leaves()]
    counts = [results.count(r) for r in ("ok", "not ok", "skip")]
    failed = [case.name for case in done if case.outcome() == "not ok"]
    if failed:
        print(f"# failed: {' '.join(failed)}")
    print("{} passed, {} failed, {} skipped".format(*counts), flush=True)
    return 0 if counts[0] and not counts[1] else 1


if __name__ == "__main__":
    main(run)
