#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Turns the checkout into sets of patches over the base kernel, and back.

series/sets names the sets in their order, each a folder of series/ with a `cover`.
series/SET/NN-name/ is one commit: `message`, `files` (the new files it brings, one
path a line) and `edits.patch` (changes to files that the base or an earlier commit has).
New files stand in the checkout in their last form; what a commit brings of one is that
without what later commits change in it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile

from common import BASE, CACHE, OUT, SRC, TREE, Failed, git, lock, main, need_space, say, shown, step

SERIES = SRC / "series"
COMMITS_TREE = CACHE / "tree-commits"   # where one commit after the other is built
FIXES_TREE = CACHE / "tree-fixes"       # where those of the set `fixes` are tested
FIXES_BASE_TREE = CACHE / "tree-fixes-base"     # and their tests without them
TREES = (TREE, COMMITS_TREE, FIXES_TREE, FIXES_BASE_TREE)
LENT = CACHE / "lent"                   # what files of the tree were before a test changed them
# New files of the series stand in the checkout under these.
FOLDERS = ("fs", "rust", "mm", "include", "Documentation", "tools", "kernel", "lib", "samples")


def conf():
    lines = (SRC / "harness/base.conf").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")


def version(tree):
    text = (tree / "Makefile").read_text()
    return ".".join(re.search(rf"^{name} = (\d+)$", text, re.M)[1]
                    for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))


def unpack_base():
    """Unpacks the base kernel's source once per version."""
    want = conf()
    tarball = pathlib.Path(f"/usr/src/{want['package']}.tar.xz")
    if not tarball.exists():
        raise Failed(f"the toolchain root has no {tarball}: package= in harness/base.conf "
                     "names no source package of the suite")
    stamp = CACHE / "base.stamp"
    identity = f"{tarball.stat().st_size} {tarball.stat().st_mtime}"
    if not BASE.exists() or (stamp.exists() and stamp.read_text() != identity):
        need_space(4)
        new = CACHE / "base.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        step("unpacking the base kernel", ["tar", "-xvf", tarball, "-C", new,
             "--strip-components=1", "--no-same-owner"], "base.log", count=".", what="files")
        shutil.rmtree(BASE, ignore_errors=True)
        new.rename(BASE)
        # another base: everything that was copied from the old one goes
        for tree in TREES:
            shutil.rmtree(tree, ignore_errors=True)
    stamp.write_text(identity)
    found = version(BASE)
    if not found.startswith(want["version"] + "."):
        raise Failed(f"the base kernel is Linux {found}, the series is for {want['version']}.y: "
                     "see harness/base.conf")
    return found


class Commit:
    """One folder of a set."""

    def __init__(self, folder):
        self.folder = folder
        self.set = folder.parent.name
        self.name = f"{self.set}/{folder.name}"
        try:
            self.message = (folder / "message").read_text()
        except FileNotFoundError:
            raise Failed(f"series/{self.name} has no file `message`") from None
        signed = re.search(r"^Signed-off-by: (.+) <(.+)>$", self.message, re.M)
        if not signed:
            raise Failed(f"series/{self.name}/message has no line `Signed-off-by: NAME <ADDRESS>`")
        self.author, self.address = signed.groups()
        files = folder / "files"
        self.files = files.read_text().split() if files.exists() else []
        self.patch = folder / "edits.patch"
        text = self.patch.read_text() if self.patch.exists() else ""
        self.edited = sorted(set(re.findall(r"^\+\+\+ b/(\S+)", text, re.M)))
        if not self.files and not self.edited:
            raise Failed(f"series/{self.name} has neither `files` nor an `edits.patch`")


def sets():
    """The names of the sets, in the order in which they are applied."""
    try:
        names = (SERIES / "sets").read_text().split()
    except FileNotFoundError:
        raise Failed("series/ has no file `sets`, which names the sets in their order") from None
    folders = {f.name for f in SERIES.iterdir() if f.is_dir()}
    if sorted(folders) != sorted(names) or any(not list((SERIES / n).glob("*/message")) for n in names):
        raise Failed(f"series/sets names {' '.join(names)}; the folders there are {' '.join(sorted(folders))}")
    return names


def commits():
    series = [Commit(f) for name in sets() for f in sorted((SERIES / name).iterdir()) if f.is_dir()]
    if not series:
        raise Failed("series/ holds no commit")
    owner = {}
    for number, c in enumerate(series):
        for path in c.files:
            if path in owner:
                raise Failed(f"{path} is brought by two commits: {series[owner[path]].name} and {c.name}")
            owner[path] = number
            if path.split("/")[0] not in FOLDERS:
                raise Failed(f"series/{c.name}/files: {path} is not under one of {' '.join(FOLDERS)}")
            if not (SRC / path).is_file():
                raise Failed(f"series/{c.name}/files names {path}, which is not in the checkout")
            if (BASE / path).exists():
                raise Failed(f"series/{c.name}/files names {path}, which the base has too: "
                             "change it in edits.patch")
    for number, c in enumerate(series):
        for path in c.edited:
            if path in owner and owner[path] >= number:
                raise Failed(f"series/{c.name}/edits.patch changes {path}, which {series[owner[path]].name} "
                             "brings: a new file stands in the checkout in its last form")
            if path not in owner and not (BASE / path).is_file():
                raise Failed(f"series/{c.name}/edits.patch changes {path}, which neither the base nor an "
                             "earlier commit has: name new files in `files`")
    here = {str(p.relative_to(SRC)) for top in FOLDERS for p in (SRC / top).rglob("*")
            if p.is_file() and not {"__pycache__", "target"} & set(p.parts)}
    for path in sorted(here - set(owner)):
        raise Failed(f"no commit brings {path}: name it in the `files` of one under series/")
    return series


def write(path, data, mode):
    """Replaces a file in one step, and only when it differs, so that what is
    equal keeps its time stamp."""
    if path.is_file() and path.read_bytes() == data and (path.stat().st_mode & 0o111) == (mode & 0o111):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new~")
    new.write_bytes(data)
    new.chmod(mode)
    new.rename(path)
    return True


def copy(source, target):
    return write(target, source.read_bytes(), source.stat().st_mode & 0o777)


def scratch(folder, series):
    """A git repository in folder that has the base's form of all files that
    the series changes."""
    for path in sorted({p for c in series for p in c.edited} - {p for c in series for p in c.files}):
        copy(BASE / path, folder / path)
    git("init", "-q", "-b", "series", cwd=folder)
    commit(folder, f"Linux {version(BASE)}", "base", "base@localhost")


def commit(folder, message, author, address):
    date = git("log", "-1", "--format=%cI", cwd=SRC, check=False).stdout.decode().strip()
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", author), ("EMAIL", address), ("DATE", date)) if value}
    git("add", "-A", cwd=folder)
    git("commit", "-q", "--allow-empty", "-F", "-", cwd=folder, env=who, data=message.encode())
    return git("rev-parse", "HEAD", cwd=folder).decode().strip()


def apply(folder, c, patch):
    done = git("apply", "--whitespace=nowarn", "-", cwd=folder, check=False, data=patch)
    if done.returncode:
        text = done.stderr.decode()
        files = re.findall(r"patch failed: (\S+):(\d+)", text)
        where = ", ".join(f"{f} at line {n}" for f, n in files) or text.strip()
        raise Failed(f"series/{c.name}/edits.patch no longer applies to Linux {version(BASE)}: {where}")


def first_forms(folder):
    """Puts the new files that later commits change into folder, as they are brought."""
    series = commits()
    brought = {p for c in series for p in c.files}
    for path in {p for c in series for p in c.edited if p in brought}:
        copy(SRC / path, folder / path)
    git("init", "-q", cwd=folder)
    for c in reversed(series):
        for path in brought.intersection(c.edited):
            done = git("apply", "-R", "--whitespace=nowarn", f"--include={path}", "-", cwd=folder, check=False,
                       data=c.patch.read_bytes())
            if done.returncode:
                raise Failed(f"series/{c.name}/edits.patch does not lead to {path} as it is in the checkout: "
                             f"{done.stderr.decode().splitlines()[0]}")


def make_commits(folder, series):
    """Makes one git commit of each commit of the series; gives their ids."""
    scratch(folder, series)
    ids = []
    with tempfile.TemporaryDirectory() as tmp:
        first = pathlib.Path(tmp)
        first_forms(first)
        for c in series:
            if c.edited:
                apply(folder, c, c.patch.read_bytes())
            for path in c.files:
                copy(first / path if (first / path).is_file() else SRC / path, folder / path)
            ids.append(commit(folder, c.message, c.author, c.address))
    return ids


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def manifest(tree):
    return tree.with_name(tree.name + ".laid")


def laid(tree=TREE):
    """What the last lay wrote into the tree: path and digest."""
    file = manifest(tree)
    return json.loads(file.read_text()) if file.exists() else {}


def note(tree, digests):
    """Notes what is laid now, or what was, if this is cut short."""
    new = tree.with_name(tree.name + ".laid.part")
    new.write_text(json.dumps(digests, indent=1, sort_keys=True))
    new.replace(manifest(tree))


def new_tree(tree, how):
    need_space(3)
    new = tree.with_name(tree.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    step("copying the base kernel", ["cp", how, "-v", BASE, new], f"{tree.name}.log",
         count=".", what="files")
    new.rename(tree)
    manifest(tree).unlink(missing_ok=True)


def unsaved(tree, old, wanted):
    """The files that were edited in the tree since the last lay."""
    edited = []
    for p, source in sorted(wanted.items()):
        before = old[p] if p in old else digest(BASE / p)
        if digest(tree / p) in (before, digest(source)):
            continue
        if digest(source) != before:
            raise Failed(f"{p} has edits in the kernel tree that are not in the series, and the series "
                         "has changed it too: bring the two together by hand, or drop the tree's by "
                         "`make lay FORCE=1`")
        edited.append(p)
    return edited


def lend(path):
    """Keeps a copy of a file of the tree that is going to be changed for a while."""
    copy(TREE / path, LENT / path)


def put_back():
    """Gives the files of the tree that were changed for a while their form before that."""
    for kept in sorted(p for p in LENT.rglob("*") if p.is_file() and not p.name.endswith(".new~")):
        copy(kept, TREE / kept.relative_to(LENT))
        kept.unlink()


def lay(force=False, tree=TREE, count=None):
    """Brings a kernel tree to the state after the last commit, or after the
    first count ones."""
    unpack_base()
    put_back()
    series = commits()[:count]
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        make_commits(folder, series)
        if not tree.exists():
            # nobody edits in other trees, so their files can be the base's own
            new_tree(tree, "-a" if tree == TREE else "-al")
        old = laid(tree)
        ours = {p for c in series for p in c.files + c.edited}
        wanted = {p: folder / p for p in ours}
        wanted |= {p: BASE / p for p in set(old) - ours}
        for p in [] if force else unsaved(tree, old, wanted):
            say(f"{p} has edits in the kernel tree that are not in the series; they stay "
                "(`make save COMMIT=SET/NN-name` keeps them, `make lay FORCE=1` drops them)")
            del wanted[p]
        changed = 0
        for p, source in wanted.items():
            if source.is_file():
                changed += copy(source, tree / p)
            elif (tree / p).exists():
                (tree / p).unlink()
                changed += 1
        note(tree, {p: digest(folder / p) for p in ours})
    if changed:
        say(f"laid {len(series)} commits over Linux {version(BASE)} in {shown(tree)}: "
            f"{changed} files changed")


def tree_differences():
    """Paths that differ between the base and the tree. Times and sizes tell
    which ones have to be read."""
    def walk(top):
        found = {}
        stack = [""]
        while stack:
            where = stack.pop()
            with os.scandir(os.path.join(top, where)) as entries:
                for e in entries:
                    path = os.path.join(where, e.name)
                    if e.is_dir(follow_symlinks=False):
                        stack.append(path)
                    elif e.is_file(follow_symlinks=False):
                        st = e.stat(follow_symlinks=False)
                        found[path] = (st.st_size, st.st_mtime_ns)
        return found

    base, tree = walk(BASE), walk(TREE)
    suspects = {p for p in base.keys() | tree.keys() if base.get(p) != tree.get(p)}
    return {p for p in suspects if digest(BASE / p) != digest(TREE / p)
            and not p.endswith(("~", ".orig", ".rej", ".o", ".cmd", ".pyc", ".swp"))}


def save(name):
    """Brings edits made in the kernel tree back into the checkout; those to
    the base's files go into the commit called name."""
    put_back()
    series = commits()
    chosen = [c for c in series if c.name == name]
    if not chosen:
        raise Failed(f"COMMIT={name or ''} names no commit; there are: {', '.join(c.name for c in series)}")
    chosen = chosen[0]
    brought = {p for c in series for p in c.files}
    old = laid()
    moves, patched = [], []

    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        ids = make_commits(folder, series)
        for p in sorted(tree_differences() | set(old)):
            now = digest(TREE / p)
            if now == digest(folder / p if (folder / p).is_file() else BASE / p):
                continue
            if p in old and now == old[p]:
                continue        # changed in the checkout only
            if now is None:
                raise Failed(f"{p} was removed from the kernel tree; remove it from the checkout "
                             "and from the series by hand")
            if p in old and digest(folder / p) != old[p]:
                raise Failed(f"{p} was changed both in the kernel tree and in the checkout since the "
                             "last `make lay`; bring the two together by hand")
            if (BASE / p).is_file():
                patched.append(p)
            elif p in brought or p.split("/")[0] in FOLDERS:
                moves.append(p)
            else:
                raise Failed(f"{p} is new in the kernel tree but under none of {' '.join(FOLDERS)}")

        patches = with_edits(folder, series, ids, chosen, patched) if patched else {}

    for p in moves:
        copy(TREE / p, SRC / p)
        say(f"saved {p}")
        if p not in brought:
            listed = chosen.files + [p]
            (chosen.folder / "files").write_text("".join(f"{f}\n" for f in sorted(listed)))
            say(f"added {p} to series/{chosen.name}/files")
    for c, patch in patches.items():
        c.patch.write_bytes(patch)
        say(f"wrote series/{c.name}/edits.patch")
    for p in moves + patched:
        old[p] = digest(TREE / p)
    note(TREE, old)
    if not moves and not patched:
        say("nothing to save: the kernel tree is as it was laid")


def edits(folder, before, after, but):
    """The difference of two git commits as an edits.patch, without the files in but."""
    text = git("diff", "--no-color", "--no-renames", before, after, "--", ".",
               *(f":(exclude){p}" for p in but), cwd=folder).decode()
    return re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+.*\n", "", text, flags=re.M).encode()


def with_edits(folder, series, ids, chosen, paths):
    """New edits.patch files that give paths their form in the tree, as a part
    of the commit chosen; commits after it are carried over the change."""
    first = series.index(chosen)
    patches = {}
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(tmp)
        git("clone", "-q", folder, work, cwd=folder)
        git("checkout", "-q", f"{ids[first]}~", cwd=work)
        for p in paths:
            copy(BASE / p, work / p)
            before_it = git("show", f"{ids[first]}~:{p}", cwd=folder, check=False)
            if before_it.returncode == 0:
                (work / p).write_bytes(before_it.stdout)
        before = commit(work, "before", "before", "before@localhost")
        for c, id in zip(series[first:], ids[first:]):
            for p in c.edited + c.files:
                (work / p).parent.mkdir(parents=True, exist_ok=True)
                (work / p).write_bytes(git("show", f"{id}:{p}", cwd=folder))
            for p in paths:
                merge(folder, work, id, ids[-1], p, c)
            after = commit(work, c.name, c.author, c.address)
            patch = edits(work, before, after, c.files)
            if patch != edits(folder, f"{id}~", id, c.files):
                patches[c] = patch
            before = after
    return patches


def merge(folder, work, id, last, path, c):
    """Puts what the tree changed in path, against the series' last form, into
    its form after the commit id."""
    def form(of):
        found = git("show", f"{of}:{path}", cwd=folder, check=False)
        return found.stdout if found.returncode == 0 else (BASE / path).read_bytes()

    with tempfile.TemporaryDirectory() as tmp:
        final = pathlib.Path(tmp) / "final"
        final.write_bytes(form(last))
        (work / path).write_bytes(form(id))
        done = git("merge-file", work / path, final, TREE / path, cwd=work, check=False)
        if done.returncode:
            raise Failed(f"the edits of {path} change lines that a commit after {c.name} brings; "
                         "name that one as COMMIT")


def export(wanted=None, quiet=False):
    """Writes the sets, or the one that is wanted, as mails for `git am`. Gives the mails
    of each, the cover letter first, and the git tree after all of them."""
    unpack_base()
    if wanted and wanted not in sets():
        raise Failed(f"SET={wanted} names no set; there are: {' '.join(sets())}")
    target = OUT / "series"
    shutil.rmtree(target, ignore_errors=True)
    mails = {}
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        series = commits()
        ids = make_commits(folder, series)
        last = git("rev-parse", "HEAD^{tree}", cwd=folder).decode().strip()
        for name in [wanted] if wanted else sets():
            mine = [n for n, c in enumerate(series) if c.set == name]
            mails[name] = mail(folder, series[mine[-1]], f"{ids[mine[0]]}~..{ids[mine[-1]]}", target / name)
    for name, patches in mails.items() if not quiet else ():
        say(f"wrote {len(patches) - 1} patches and the cover letter to {shown(target / name)}")
    return mails, last


def mail(folder, final, commits, target):
    """Writes the commits of one set, up to the one called final, as mails to target."""
    cover = SERIES / final.set / "cover"
    if not cover.exists():
        raise Failed(f"series/{final.set} has no file `cover`: subject, blank line, body of the cover letter")
    subject, _, body = cover.read_text().partition("\n")
    target.mkdir(parents=True)
    who = {"GIT_COMMITTER_NAME": final.author, "GIT_COMMITTER_EMAIL": final.address}
    git("format-patch", "-q", "--cover-letter", "--no-signature", "--no-renames", "-o", target, commits,
        cwd=folder, env=who)
    letter = target / "0000-cover-letter.patch"
    letter.write_text(letter.read_text().replace("*** SUBJECT HERE ***", subject)
                      .replace("*** BLURB HERE ***", body.strip()))
    return sorted(target.glob("*.patch"))


def check():
    """Applies the exported sets to a pristine base with git am, and compares
    the outcome with the series and with the laid tree."""
    mails, last = export(quiet=True)
    series = commits()
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp)
        scratch(folder, series)
        who = {"GIT_COMMITTER_NAME": "check", "GIT_COMMITTER_EMAIL": "check@localhost"}
        for patches in mails.values():
            git("am", "-q", *patches[1:], cwd=folder, env=who)
        if git("rev-parse", "HEAD^{tree}", cwd=folder).decode().strip() != last:
            raise Failed("git am of the exported patches gives other files than the series")
        for p in {p for c in series for p in c.files + c.edited}:
            if digest(folder / p) != digest(TREE / p):
                raise Failed(f"{p} in the kernel tree is not what the series gives: run `make lay`")
    say(f"{len(series)} patches apply with git am and give the laid tree")


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="do", required=True)
    p = sub.add_parser("lay", help="bring the kernel tree in the cache to the end of the series")
    p.add_argument("--force", action="store_true", default=bool(os.environ.get("FORCE")),
                   help="overwrite edits in the tree that were not saved (or FORCE=1)")
    p = sub.add_parser("save", help="bring edits made in the kernel tree back into the checkout")
    p.add_argument("commit", nargs="?", default=os.environ.get("COMMIT"),
                   help="the commit that edits of the base's files belong to (or COMMIT=)")
    p = sub.add_parser("export", help="write the sets for `git am` to out/series")
    p.add_argument("set", nargs="?", default=os.environ.get("SET"), help="only this one (or SET=)")
    sub.add_parser("check", help="apply the exported series to a pristine base and compare")
    args = parser.parse_args()
    with lock():
        if args.do == "lay":
            lay(args.force)
        elif args.do == "save":
            save(args.commit)
        elif args.do == "export":
            export(args.set)
        else:
            check()
    return 0


if __name__ == "__main__":
    main(run)
