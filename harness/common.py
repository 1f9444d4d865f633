# SPDX-License-Identifier: GPL-2.0
"""What all programs of the harness share: paths, errors, steps with progress."""

import contextlib
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

SRC = pathlib.Path("/src")
CACHE = pathlib.Path("/cache")
BASE = CACHE / "base"
TREE = CACHE / "tree"
LOG = CACHE / "log"
OUT = SRC / "out"

# What looks like the reason when a log is all that is left of a step.
ERROR = re.compile(r"\berror\b|\*\*\*|fatal|undefined|No space left|cannot ", re.IGNORECASE)


class Failed(Exception):
    """A step that failed; the text is what a user has to know."""


def shown(path):
    """The path as the user's host knows it."""
    for inside, name in ((CACHE, "HOST_CACHE"), (SRC, "HOST_SRC")):
        try:
            return str(pathlib.Path(os.environ[name]) / pathlib.Path(path).relative_to(inside))
        except ValueError:
            pass
    return str(path)


def say(text):
    print(text, file=sys.stderr, flush=True)


def main(function):
    """Runs a program's main function; its result is the exit status."""
    # so that what is changed for a while in the kernel tree is put back
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        status = function()
    except Failed as e:
        say(f"error: {e}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    sys.exit(status)


@contextlib.contextmanager
def lock():
    """Keeps two runs from laying or building over each other."""
    with open(CACHE / "lock.build", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another run that builds in this cache")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def need_space(gigabytes, path=CACHE):
    st = os.statvfs(path)
    free = st.f_bavail * st.f_frsize // 2**30
    if free < gigabytes:
        raise Failed(f"{shown(path)} needs {gigabytes} GB of free disk space and has {free} GB; "
                     "free some or give another folder as CACHE=DIR")


def duration(seconds):
    seconds = int(seconds)
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"


class Progress:
    """Says what a long step does and how far it is: on one line that is
    rewritten in a terminal, otherwise on a line every 30 seconds."""

    def __init__(self, title):
        self.title = title
        self.far = ""
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _line(self):
        far = f", {self.far}" if self.far else ""
        return f"{self.title}: {duration(time.monotonic() - self.start)}{far}"

    def _run(self):
        while not self.end.wait(1 if self.terminal else 30):
            if self.terminal:
                print(f"\r\033[K{self._line()}", end="", file=sys.stderr, flush=True)
            else:
                say(self._line())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.end.set()
        self.thread.join()
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        if kind is None and time.monotonic() - self.start >= 1:
            say(self._line())


def step(title, argv, log, cwd=None, env=None, count=None, of=None, what="objects"):
    """Runs argv with its output in LOG/log; returns the output's lines.

    count is a pattern whose lines are counted as the progress, of how many
    there will be, where that is known.
    """
    path = LOG / log
    path.parent.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(count) if count else None
    lines = []
    done = 0
    with Progress(title) as progress, open(path, "w") as f:
        child = subprocess.Popen([str(a) for a in argv], cwd=cwd, env={**os.environ, **(env or {})},
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, errors="replace",
                                 start_new_session=True)
        try:
            for line in child.stdout:
                f.write(line)
                f.flush()
                lines.append(line.rstrip("\n"))
                if pattern and pattern.search(line):
                    done += 1
                    progress.far = f"{done} of about {max(of, done)} {what}" if of else f"{done} {what}"
            status = child.wait()
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise
        if status:
            reasons = [n for n, line in enumerate(lines) if ERROR.search(line)]
            first = reasons[0] if reasons else len(lines)
            tail = lines[max(0, first - 2):first + 12] or lines[-12:]
            raise Failed("\n  ".join([f"{title} failed; the log is {shown(path)}", *tail]))
    return lines


def git(*args, cwd, env=None, check=True, data=None):
    """Runs git, untouched by anybody's configuration; gives its output as bytes."""
    clean = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1",
             **(env or {})}
    done = subprocess.run(["git", *map(str, args)], cwd=cwd, env=clean, input=data,
                          capture_output=True)
    if check and done.returncode:
        raise Failed(f"git {args[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done if not check else done.stdout
