#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Breaks the walk on purpose, in one way after the other, and checks that a test
sees each of them.

A mutant is a piece of the source that is replaced by another in the kernel tree.
It goes to the KUnit suites of the series in a guest. If they do not see it, it goes to
a selftest, if one is named, and to the model checker on the host, if that compiles the
file. Some do not even compile, as they should. Prints which tests failed. Fails when a
mutant survives, or when there is nothing to replace any more.
"""

import argparse
import dataclasses
import re

import build
import guest
import ktap
import model
import series
import test
from common import TREE, Failed, lock, main, say

MODULE = "fs/proc/task_mmu"
ITER = "rust/kernel/mm/vma_iter.rs"
MMAP_LOCK = "rust/kernel/mm/mmap_lock.rs"
TASK_MMU = "fs/proc/task_mmu.c"
# What the model checker compiles.
PROTOCOLS = (f"{MODULE}/walk.rs", f"{MODULE}/sums.rs")
# Seconds for the model checker, which a mutant can give more to try than there
# is time. Three times of what it takes without one.
MODEL_TIMEOUT = 300


@dataclasses.dataclass
class Mutant:
    name: str
    what: str       # what the reader does wrong
    path: str
    old: str
    new: str
    selftest: str = ""  # a program of selftests/proc, with arguments, that sees it if KUnit does not
    error: str = ""     # what the compiler says, where it is to see it
    kernel: str = "slim"    # what it is booted on; "kasan" sees memory used that was freed


MUTANTS = [
    Mutant("position-not-verified", "takes a VMA that ends at or below its position",
           f"{MODULE}/walk.rs", "    if end <= pos {\n", "    if end <= pos && end == 0 {\n"),
    Mutant("gap-not-verified", "believes every gap",
           f"{MODULE}/walk.rs", "        if !A::is_gap_before(locked, pos) {\n            break;\n",
           "        if !A::is_gap_before(locked, pos) {\n            return Ok(());\n"),
    Mutant("end-not-verified", "believes that there is no other VMA",
           f"{MODULE}/walk.rs", "A::is_end(&mut idle, pos) {", "(A::is_end(&mut idle, pos) || true) {"),
    Mutant("end-at-a-detached-vma", "stops where a VMA was detached",
           f"{MODULE}/walk.rs", "Attempt::NotLocked(idle, error) => retry::<A>(idle, pos, error),",
           "Attempt::NotLocked(idle, error) if pos == 1 => retry::<A>(idle, pos, error),\n"
           "        Attempt::NotLocked(..) => Ok(None),"),
    Mutant("retries-without-bound", "retries for as long as VMAs are detached",
           f"{MODULE}/walk.rs", "(&mut retries, MAX_RETRIES, ", "(&mut retries, usize::MAX, "),
    Mutant("waits-without-bound", "waits for as long as a VMA is being changed",
           f"{MODULE}/walk.rs", "(&mut waits, A::MAX_WAITS, ", "(&mut waits, usize::MAX, "),
    Mutant("retry-from-the-start", "begins a retry at address 0",
           f"{MODULE}/walk.rs", "        (idle, error) = match A::enter_rcu(idle, pos) {",
           "        (idle, error) = match A::enter_rcu(idle, 0) {"),
    Mutant("fallback-from-the-start", "begins the fallback at address 0",
           f"{MODULE}/walk.rs", "Ok(A::lock_mmap(idle, pos)?.map(|at| match",
           "Ok(A::lock_mmap(idle, 0)?.map(|at| match"),
    Mutant("fallback-not-killable", "cannot be killed while it waits for mmap_lock",
           MMAP_LOCK, "to_result(unsafe { bindings::mmap_read_lock_killable(self.as_raw()) })?;",
           "to_result(unsafe { bindings::mmap_read_lock(self.as_raw()); 0 })?;", "proc-maps-errors"),
    Mutant("contended-is-not-waited-for", "queues up for mmap_lock where a writer is at work",
           f"{MODULE}/walk.rs", "Err((error, idle)) => Attempt::NotLocked(idle, error),",
           "Err((LockError::Contended, idle)) => Attempt::Failed(idle, Reason::Contended),\n"
           "        Err((error, idle)) => Attempt::NotLocked(idle, error),"),
    Mutant("end-of-a-gap", "takes the end of a gap for the end of the address space",
           ITER, "entry.is_null() && last == usize::MAX", "entry.is_null() && last != 0"),
    Mutant("writer-at-the-snapshot", "does not notice a writer who was at work at the snapshot",
           MMAP_LOCK, "self.is_beside_writer() || self.writers_since()", "self.writers_since()"),
    Mutant("snapshot-after-the-unlock", "takes the snapshot when the VMA is not locked any more",
           f"{MODULE}/walk.rs", "                let snapshot = A::snapshot_locked(&locked);\n"
           "                Unlocked::Vma {\n                    rcu: A::unlock_in_rcu(locked),\n",
           "                let rcu = A::unlock_in_rcu(locked);\n                let snapshot = A::snapshot(&rcu);\n"
           "                Unlocked::Vma {\n                    rcu,\n"),
    Mutant("position-kept-after-a-writer", "goes on from where a VMA was before a writer came",
           f"{MODULE}/walk.rs", "        A::set(&mut rcu, pos);\n",
           "        if pos == 1 {\n            A::set(&mut rcu, pos);\n        }\n"),
    Mutant("iterator-left-at-a-changed-vma", "goes on from where a VMA ended before it was locked",
           ITER, "            if last != guard.end() - 1 {", "            if last == 0 {"),
    Mutant("iterator-kept-over-rcu", "uses a position of an RCU section that was left",
           ITER, "        unsafe { bindings::vma_iter_set(self.as_raw(), addr) };\n\n"
           "        // INVARIANT: The position was set in the RCU", "        let _ = (self.as_raw(), addr);\n\n"
           "        // INVARIANT: The position was set in the RCU"),
    Mutant("half-a-gap", "believes a gap of which only the beginning is one",
           ITER, "entry.is_null() && last.wrapping_add(1) == self.guard.start()",
           "entry.is_null() && last != 0"),
    Mutant("gap-of-two-moments", "believes a gap although writers came while it was looked at",
           f"{MODULE}/walk.rs", "        if !A::writers_since(&snapshot) {",
           "        if !A::writers_since(&snapshot) || true {"),
    Mutant("iterator-left-in-the-gap", "goes on from the gap that it has verified",
           ITER, "        // INVARIANT: The iterator is at the end of the VMA.\n        self.iter.set(self.guard.end());\n",
           "        // INVARIANT: The iterator is at the end of the VMA.\n"),
    Mutant("tree-that-was-emptied", "goes on in a tree that has no node any more",
           "lib/maple_tree.c", "rewalked:\n\tif (likely(mas_is_active(mas)))\n\t\tgoto retry;\n\n"
           "\t/* By now there is no node: the tree is empty, or has an entry at 0 only. */\n\tmas->status",
           "rewalked:\n\tif (likely(mas->tree))\n\t\tgoto retry;\n\n\tmas->status"),
    Mutant("copy-not-verified", "believes what it has read of a VMA that was not locked",
           ITER, "if wants(&copy) && !speculation.retry() {",
           "if wants(&copy) && speculation.sequence() != 1 {"),
    Mutant("copy-of-a-special-mapping", "takes the vDSO for anonymous memory",
           ITER, "if file.is_null() && !read!(vm_ops).is_null() {",
           "if file.is_null() && read!(vm_ops).addr() == 1 {", "proc-maps-diff"),
    Mutant("copy-with-a-name", "does not see that anonymous memory has a name",
           ITER, "if !read!(anon_name).is_null() {", "if read!(anon_name).addr() == 1 {", "proc-maps-diff"),
    Mutant("copy-of-the-heap", "does not see that anonymous memory is the heap or the stack",
           f"{MODULE}/address_space.rs", "None => !is_initial_heap_or_stack(",
           "None => vma.start() != 1 || !is_initial_heap_or_stack(", "proc-maps-diff"),
    Mutant("copy-of-another-file", "takes one file for another",
           f"{MODULE}/last_file.rs", "        self.file == file && self.seen",
           "        self.file != 0 && file != 0 && self.seen", "proc-maps-diff"),
    Mutant("copy-of-a-file-of-before", "takes a file for what has had its address before",
           f"{MODULE}/last_file.rs", "self.seen == Some(now)", "self.seen.is_some_and(|seen| seen.section == now.section)"),
    Mutant("copy-of-a-line-that-is-gone", "copies from a line that the next one is written over",
           f"{MODULE}/last_file.rs", "if line.is_first() { 0 }", "if line.column() == 1 { 0 }",
           "proc-maps-query -t shared_descriptor"),
    Mutant("leaf-that-was-replaced", "goes on in a leaf of the tree that is dead",
           "lib/maple_tree.c", "\tif (!entry || unlikely(ma_dead_node(node)) || index > max)\n",
           "\tif (!entry || index > max)\n"),
    Mutant("cpu-kept-in-rcu", "stays in RCU although another task is to run",
           f"{MODULE}/walk.rs", "    if A::need_resched(&rcu) {",
           "    if A::need_resched(&rcu) && pos == 1 {"),
    Mutant("cpu-lost-in-rcu", "may be preempted in RCU",
           "rust/kernel/preempt.rs", "= !cfg!(CONFIG_PREEMPT_RT);", "= cfg!(CONFIG_PREEMPT_RT);",
           "proc-maps-trace -t grace_period"),
    Mutant("record-that-did-not-fit", "goes on after a record that had no room",
           f"{MODULE}/records.rs", "Position::Address(_) => Position::Address(self.0),",
           "Position::Address(address) => Position::Address(address),", "proc-maps-read"),
    Mutant("rollup-from-the-start", "sums up a VMA from its start after a break",
           f"{MODULE}/sums.rs", "let part = pos.max(vma.start)..vma.end.min(end);",
           "let part = vma.start..vma.end.min(end);"),
    Mutant("sum-beyond-the-vma", "adds what a VMA was merged with",
           f"{MODULE}/sums.rs", "let part = pos.max(vma.start)..vma.end.min(end);",
           "let part = pos.max(vma.start)..vma.end;"),
    Mutant("behind-what-was-merged", "goes on behind what a VMA was merged with",
           f"{MODULE}/sums.rs", "            if pos == end {\n                return Ok((Some(here.release(end)), pos));",
           "            if pos == end {\n                return Ok((Some(here.release(vma.end)), pos));"),
    Mutant("another-mapping", "adds another mapping to the sum of a VMA",
           f"{MODULE}/sums.rs", "let added = match is_part(&here) {", "let added = match is_part(&here) || pos != 0 {"),
    Mutant("vma-kept", "keeps a VMA locked from one piece to the next",
           f"{MODULE}/sums.rs", "                walk::let_go(here, pos, &mut budget)?", "                Some(here)"),
    Mutant("entries-not-counted", "looks at all page tables of a VMA at once",
           TASK_MMU, "\t\tbudget -= min(budget, cost);\n", "\t\tbudget -= min(budget, 0 * cost);\n"),
    Mutant("page-table-too-many", "looks at more entries than it may",
           TASK_MMU, "\t\t\tif (addr != start && cost > budget)\n", "\t\t\tif (addr != start && cost > 2 * budget)\n"),
    Mutant("table-of-pmds-kept", "looks for page tables in the table of those before",
           TASK_MMU, "\t\tif (!pud || !(addr & ~PUD_MASK))\n", "\t\tif (!pud)\n"),
    Mutant("writer-not-seen", "looks at the next page table although a writer waits for the VMA",
           TASK_MMU, "\t\t\t\t\t\t      vma_lock_is_contended(walk->vma));\n", "\t\t\t\t\t\t      false);\n"),
    Mutant("writer-of-mmap-lock-not-seen", "looks at the next page table although a writer waits for mmap_lock",
           TASK_MMU, "need_resched() || (stop->mmap_locked ?", "need_resched() || (!walk->mm ?"),
    Mutant("cpu-kept-for-page-tables", "looks at the next page table although another task is to run",
           TASK_MMU, "\treturn need_resched() || (stop->", "\treturn (stop->"),
    Mutant("page-table-looked-at-whole", "looks at a page table to its end although others wait",
           TASK_MMU, "#define PART_ENTRIES\t\t128\n", "#define PART_ENTRIES\t\t512\n"),
    Mutant("writer-that-comes-back", "lets a writer go first that comes back at once",
           f"{MODULE}/walk.rs", "*budget = Budget::AFTER_WRITER;",
           "*budget = if pos == 0 { Budget::AFTER_WRITER } else { Budget::FULL };"),
    Mutant("huge-page-added-whole", "adds a huge page whole of which a part was added",
           TASK_MMU, "\tif (size != HPAGE_PMD_SIZE) {\n", "\tif (!size) {\n"),
    Mutant("rcu-kept-for-page-tables", "looks at five page tables in an RCU section",
           f"{MODULE}/walk.rs", "entries: 4 * Self::PAGE_TABLE,", "entries: 5 * Self::PAGE_TABLE,"),
    Mutant("writer-not-waited-for", "does not wait until the writer is done for which it has let go",
           f"{MODULE}/walk.rs", "        A::count(&idle, pos, Event::GiveWay);\n        idle = A::wait(idle)?;\n",
           "        A::count(&idle, pos, Event::GiveWay);\n        if pos == 0 {\n"
           "            idle = A::wait(idle)?;\n        }\n"),
    Mutant("writer-sleeps-at-once", "lets a writer sleep for a reader that is about to unlock the VMA",
           "mm/mmap_lock.c", "(25 * NSEC_PER_USEC)", "(0 * NSEC_PER_USEC)"),
    Mutant("sum-after-the-process", "sums up the memory of a process that is gone",
           f"{MODULE}/walk.rs", "    A::check(&at)?;\n", "    let _ = A::check(&at);\n"),
    Mutant("last-user-not-seen", "does not see that it is the last user of an address space",
           ITER, "users.load(Relaxed) == 1", "users.load(Relaxed) == 0"),
    Mutant("waits-for-its-buffer", "waits for any page of its own buffer",
           "rust/kernel/seq_file/operations.rs", "(done != 0).then(faults::disable)",
           "(done == usize::MAX).then(faults::disable)", "proc-maps-trace -f maps_trace"),
    Mutant("lazily-preempted", "goes on reading while another task waits for it to return",
           "rust/kernel/seq_file/operations.rs", "|| current.need_resched_lazy()",
           "|| (current.need_resched_lazy() && size == 0)", "proc-maps-trace -t lazy_preemption"),
    Mutant("turn-not-killable", "cannot be killed while it waits for another reader",
           "rust/kernel/seq_file/operations.rs", "let _guard = turn.lock_killable()?;",
           "let _guard = turn.lock();", "proc-maps-trace -f maps_trace"),
    Mutant("path-of-before", "does not look whether a path has changed",
           f"{MODULE}/last_file.rs", "            && !path.has_changed_since(&self.seq);",
           "            && (!path.has_changed_since(&self.seq) || section.is_some());",
           "proc-maps-rename -t mapped_after"),
    Mutant("unlink-not-seen", "does not look whether a file was unlinked",
           "fs/d_path.c", "seq->unlinked != data_race(d_unlinked(path->dentry));",
           "(seq->unlinked && !path->dentry);"),
    Mutant("dentry-without-rcu", "compares the address of a dentry that is freed at once",
           "fs/d_path.c", "(READ_ONCE(dentry->d_flags) & DCACHE_NORCU))",
           "(READ_ONCE(dentry->d_flags) & 0))"),
    Mutant("clean-pages-not-counted", "takes clean pages for dirty ones",
           TASK_MMU, "\t\t\tn->private_clean += nr;\n", "\t\t\tn->private_clean += 0;\n", "proc-smaps-diff -t process"),
    Mutant("share-of-others", "divides pages by how often those after them are mapped",
           TASK_MMU, "\tconst u32 share = (u32)(PAGE_SIZE << PSS_SHIFT) / (n->more + 1);\n",
           "\tconst u32 share = (u32)(PAGE_SIZE << PSS_SHIFT) / (more + 1);\n", "proc-smaps-diff -t process"),
    Mutant("large-folio-mapped-once", "takes each page of a large folio for mapped once",
           TASK_MMU, "\tif (folio_large_mapcount(folio) != nr) {\n",
           "\tif (folio_large_mapcount(folio) < 0) {\n", "proc-smaps-diff -t process"),
    Mutant("large-folio-mapped-alike", "takes all pages of a large folio for mapped as often as the first",
           TASK_MMU, "\twhile (i < nr && atomic_read(&page[i]._mapcount) == mapcount)\n",
           "\twhile (i < nr && mapcount > INT_MIN)\n", "proc-smaps-diff -t process"),
    Mutant("other-entries-counted-twice", "counts entries that are no pages as anonymous ones",
           TASK_MMU, "\tmss->pages.nr -= nr;\n\treturn nr;\n", "\tmss->pages.nr -= 0;\n\treturn nr;\n",
           "proc-smaps-diff -t process"),
    Mutant("pages-counted-in-another-vma", "counts pages of a VMA that is locked in memory as those of others",
           TASK_MMU, "\tif (unlikely(mss->pages.locked != locked)) {\n", "\tif (mss->pages.locked && !locked) {\n",
           "proc-smaps-diff -t process"),
    Mutant("not-added-up", "says what has been added up, without what has been counted since",
           f"{MODULE}/abstractions/page_walk.rs", "unsafe { bindings::smaps_add_pages(&mut self.0) };",
           "unsafe { bindings::smaps_add_pages(&mut pin_init::zeroed()) };"),
    Mutant("most-mappings-of-the-last", "forgets the page that is mapped most often",
           TASK_MMU, "\tif (unlikely(atomic_read(&folio->_mapcount) > n->more))\n",
           "\tif (atomic_read(&folio->_mapcount) != n->more)\n", "proc-smaps-diff -t process"),
    Mutant("pages-of-the-vma-before", "adds the pages of one line of numa_maps to those of the next",
           f"{MODULE}/abstractions/page_walk.rs", "if self.0.pages == 0 {", "if self.0.pages != 0 {",
           "proc-smaps-diff -t process"),
    Mutant("policy-of-the-task", "says of memory that has a policy that it has the task's",
           f"{MODULE}/numa_maps.rs", "Some(policy) => policy.put(line)", "Some(_) => task_policy.put(line)",
           "proc-smaps-diff -t process"),
]


def replaced(text, mutant):
    if text.count(mutant.old) != 1:
        raise Failed(f"mutant {mutant.name}: {mutant.path} has {text.count(mutant.old)} places "
                     "where it would be applied, not one")
    return text.replace(mutant.old, mutant.new)


def check(mutants=None):
    """Fails if there is nothing to replace for one."""
    for mutant in mutants or MUTANTS:
        replaced((TREE / mutant.path).read_text(), mutant)


def kunit(kernel):
    """The cases of the series' KUnit suites that fail."""
    suites = [suite for suite, _ in test.suites() if suite.startswith("task_mmu_")]
    try:
        result = guest.boot("true", name="mutant", kernel=kernel, timeout=60,
                            append="kunit.enable=1 kunit.autorun=1 kunit.filter_glob=task_mmu_*")
    except Failed as e:
        return [f"kunit: {str(e).splitlines()[0]}"]
    cases = {c.name: c for c in ktap.parsed(result.log)}
    failed = [f"kunit: no suite {s}" for s in suites if s not in cases]
    failed += [f"kunit: {leaf.name}" for s in suites if s in cases for leaf in cases[s].leaves()
               if leaf.result == "not ok"]
    return failed + [f"kunit: {line}" for line in result.reports()[:1]]


def selftest(program):
    """The cases of a selftest that fail."""
    try:
        result = guest.boot(f"{test.SHORT}/selftests/proc/{program}", name="mutant", timeout=900)
    except Failed as e:
        return [f"{program}: {str(e).splitlines()[0]}"]
    failed = re.findall(r"^not ok \d+ (\S+)", result.output.decode(errors="replace"), re.M)
    if result.status and not failed:
        failed = [f"exit status {result.status}"]
    return [f"{program}: {name}" for name in failed]


def tests(path, program, kernel="slim", first=False):
    """All tests that fail for a file of the tree and, if given, a selftest; or those of the
    first kind that does."""
    failed = kunit(build.build(kernel))
    if program and not (first and failed):
        failed += selftest(program)
    if path in PROTOCOLS and not (first and failed):
        failed += [f"model: {run}" for run in model.failures(MODEL_TIMEOUT)]
    return failed


def catchers(mutant, first):
    """The tests that see the mutant."""
    path = TREE / mutant.path
    with build.restored(mutant.path):
        path.write_text(replaced(path.read_text(), mutant))
        try:
            return tests(mutant.path, mutant.selftest, mutant.kernel, first)
        except Failed as e:
            if mutant.error and mutant.error in str(e):
                return [f"the compiler: {mutant.error}"]
            raise


def each(chosen, first, known_to_pass):
    """Runs the tests over each; gives the names of those that survive."""
    check(chosen)
    wrong = []
    if not known_to_pass:
        wrong += tests(PROTOCOLS[0], "")
        for kernel in sorted({m.kernel for m in chosen} - {"slim"}):
            wrong += kunit(build.build(kernel))
        for program in sorted({m.selftest for m in chosen if m.selftest}):
            wrong += selftest(program)
    if wrong:
        raise Failed("\n  ".join(["tests fail without any mutant:", *wrong]))

    survived = []
    print(f"1..{len(chosen)}", flush=True)
    for number, mutant in enumerate(chosen, 1):
        try:
            found = catchers(mutant, first)
        except Failed as e:
            found = []
            print(f"# {str(e).splitlines()[0]}")
        if not found:
            survived.append(mutant.name)
        print(f"{'ok' if found else 'not ok'} {number} {mutant.name}: {mutant.what}")
        for name in found[:6]:
            print(f"#   {name}")
        if len(found) > 6:
            print(f"#   and {len(found) - 6} more")
        print(end="", flush=True)
    return survived


def run():
    names = [m.name for m in MUTANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="mutants:\n" + "\n".join(f"  {m.name:32}{m.what}" for m in MUTANTS))
    parser.add_argument("mutant", nargs="*", metavar="MUTANT", help="only these (default: all)")
    parser.add_argument("--all", action="store_true",
                        help="try the selftest and the model also where KUnit has seen the mutant")
    parser.add_argument("--known-to-pass", action="store_true",
                        help="do not run the tests without a mutant first: `make test` has passed")
    args = parser.parse_args()
    for name in args.mutant:
        if name not in names:
            raise Failed(f"there is no mutant {name}; there are: {', '.join(names)}")
    chosen = [m for m in MUTANTS if not args.mutant or m.name in args.mutant]

    # Nobody else may build, or take edits from, a tree with a mutant in it.
    with lock():
        series.lay()
        guest.make_image()
        survived = each(chosen, not args.all, args.known_to_pass)
        build.build("slim")
    print(f"{len(chosen)} mutants, {len(survived)} survived", flush=True)
    if survived:
        say(f"these survived: {', '.join(survived)}")
    return 1 if survived else 0


if __name__ == "__main__":
    main(run)
