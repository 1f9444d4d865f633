# SPDX-License-Identifier: GPL-2.0
"""Outcomes of tests: what was read from a guest, and how it is told."""

import dataclasses
import re
import sys

from common import TREE, Failed

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

    def ktap(self, number, indent=""):
        """The lines that say so."""
        lines = []
        if self.subtests:
            lines += [f"{indent}    KTAP version 1", f"{indent}    # Subtest: {self.name}",
                      f"{indent}    1..{len(self.subtests)}"]
            for n, s in enumerate(self.subtests, 1):
                lines += s.ktap(n, indent + "    ")
        outcome = self.outcome()
        lines += [f"{indent}# {note}" for note in self.notes if outcome == "not ok"]
        skip = f" # SKIP {' '.join(self.notes)}" if outcome == "skip" else ""
        return [*lines, f"{indent}{'not ok' if outcome == 'not ok' else 'ok'} {number} {self.name}{skip}"]


def attempt(name, function):
    """The case of a function that raises when it fails."""
    try:
        function()
    except Failed as e:
        return Case(name, "not ok", str(e).splitlines())
    return Case(name)


def check(name, good, *notes):
    return Case(name, "ok" if good else "not ok", [] if good else list(notes))


def finish(counts):
    """Prints how many cases came to each result; gives the exit status, which is 1 if one failed or
    none passed."""
    print(f"{counts['ok']} passed, {counts['not ok']} failed, {counts['skip']} skipped", flush=True)
    return 0 if counts["ok"] and not counts["not ok"] else 1


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
