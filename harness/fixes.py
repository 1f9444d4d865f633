#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows that each test of series/fixes fails without its fix and passes with it.

Builds the base, without Rust, with one patch of the set after the other and all of the
set's tests. Each suite is booted on the base as it is, on the last kernel without its
fix and on the first one with it. Prints KTAP.
"""

import argparse
import re

import build
import guest
import series
from common import SRC, Failed, lock, main
from ktap import Case, check, clean_log, parsed


def suites(commit):
    """The KUnit suites that a commit brings."""
    return [name for path in commit.files if path.endswith("_kunit.c")
            for name in re.findall(r'\.name = "(\w+)"', (SRC / path).read_text())]


def failed(suite):
    """The cases of a suite that fail, those that pass, and the boot, None if the kernel died of it."""
    try:
        result = guest.boot("true", name="fixes", kernel=build.image("fixes"), timeout=120,
                            append=f"oops=panic kunit.enable=1 kunit.autorun=1 kunit.filter_glob={suite}")
    except Failed as e:
        if "Oops" not in str(e):
            raise
        return ["the kernel"], [], None
    leaves = [leaf for c in parsed(result.log) if c.name == suite for leaf in c.leaves()]
    wrong = [leaf.name for leaf in leaves if leaf.result != "ok"]
    return wrong, [leaf.name for leaf in leaves if leaf.result == "ok"], result


def without(suite):
    wrong, right, _ = failed(suite)
    return check(f"{suite} fails", wrong and not right, "these pass:", *right)


def with_fix(suite):
    wrong, right, result = failed(suite)
    if result:
        log = clean_log(result)
        wrong += log.notes
    return check(f"{suite} passes", right and not wrong, *wrong)


def cases():
    """One case for each commit of the set: what is expected of the kernel up to it."""
    mine = [c for c in series.commits() if c.set == "fixes"]
    found = []
    for count, commit in enumerate(mine, 1):
        later = [suite for c in mine[count:] for suite in suites(c)]
        if count > 1:
            later = [suite for c in mine[count:count + 1] for suite in suites(c)]
        with lock():
            series.lay(tree=series.FIXES_TREE, count=count)
            for path in {p for c in mine[count:] for p in c.files}:
                series.copy(SRC / path, series.FIXES_TREE / path)
            build.build("fixes", tree=series.FIXES_TREE)
            found.append(Case(commit.name, subtests=[with_fix(suite) for suite in suites(commit)] +
                              [without(suite) for suite in later]))
    return found


def run():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = cases()
    print("KTAP version 1", f"1..{len(found)}", sep="\n")
    for number, case in enumerate(found, 1):
        print(*case.ktap(number), sep="\n")
    return 1 if any(case.outcome() == "not ok" for case in found) else 0


if __name__ == "__main__":
    main(run)
