#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows that each test of series/fixes fails without its fix and passes with it.

Builds the base, without Rust, with one patch of the set after the other and always all
of the set's tests, and boots each suite by itself: all on the base without fixes, and
then each before and after its fix. Prints KTAP.
"""

import argparse
import re

import build
import guest
import series
from common import SRC, Failed, Progress, lock, main
from ktap import Case, check, parsed


def suites(commit):
    """The KUnit suites that a commit brings."""
    return [name for path in commit.files if path.endswith("_kunit.c")
            for name in re.findall(r'\.name = "(\w+)"', (SRC / path).read_text())]


def outcome(suite, kernel):
    """Which cases of a suite pass, and what is wrong: the cases that do not, what the kernel
    reports, or that it died of it."""
    try:
        result = guest.boot("true", name="fixes", kernel=kernel, timeout=120,
                            append=f"oops=panic kunit.enable=1 kunit.autorun=1 kunit.filter_glob={suite}")
    except Failed as e:
        if "NULL pointer dereference" not in str(e):
            raise
        return [], ["the kernel dereferences NULL"]
    leaves = [leaf for c in parsed(result.log) if c.name == suite for leaf in c.leaves()]
    return ([leaf.name for leaf in leaves if leaf.result == "ok"],
            [leaf.name for leaf in leaves if leaf.result != "ok"] + result.reports()[:5])


def fails(suite, kernel):
    passed, wrong = outcome(suite, kernel)
    return check(f"{suite}-fails", wrong and not passed, "these pass:", *passed)


def passes(suite, kernel):
    passed, wrong = outcome(suite, kernel)
    return check(f"{suite}-passes", passed and not wrong, *wrong)


def make(count, commits, name, tree):
    """The kernel with the first count commits and the tests of all."""
    series.lay(tree=tree, count=count)
    for path in [path for c in commits[count:] for path in c.files]:
        series.copy(SRC / path, tree / path)
    return build.build(name, tree=tree)


def cases():
    """A case for the base and one for each fix: what passes and fails then."""
    commits = [c for c in series.commits() if c.set == "fixes"]
    with Progress("fixes") as progress, lock():
        kernel = make(1, commits, "fixes-base", series.FIXES_BASE_TREE)
        found = [Case("base", subtests=[fails(suite, kernel) for c in commits for suite in suites(c)])]
        for count, commit in enumerate(commits[1:], 2):
            progress.far = commit.name
            kernel = make(count, commits, "fixes", series.FIXES_TREE)
            found.append(Case(commit.name, subtests=[
                *(passes(suite, kernel) for suite in suites(commit)),
                *(fails(suite, kernel) for c in commits[count:count + 1] for suite in suites(c))]))
    return found


def run():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    guest.make_image()
    found = cases()
    print("KTAP version 1", f"1..{len(found)}", sep="\n")
    for number, case in enumerate(found, 1):
        print(*case.ktap(number), sep="\n")
    return 1 if any(case.outcome() == "not ok" for case in found) else 0


if __name__ == "__main__":
    main(run)
