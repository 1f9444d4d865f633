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
    """Prints a line for whoever waits, in place of the one that says how far all is."""
    with Progress.guard:
        clear = "\r\033[K" if Progress.going and sys.stderr.isatty() else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)


def tell(lines):
    """Prints results to the standard output."""
    with Progress.guard:
        if Progress.going and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(*lines, sep="\n", flush=True)


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


builds = threading.Lock()


@contextlib.contextmanager
def lock():
    """Keeps two runs, and two threads of one, from laying or building over each other."""
    with builds, open(CACHE / "lock.build", "w") as f:
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
    """Says what takes long and how far it is. All that go on at the same time are on
    one line, which is rewritten in a terminal; otherwise there is a line every 30
    seconds, and one for each that has ended."""

    going = []
    guard = threading.Lock()
    ticker = None

    def __init__(self, title, about=None):
        self.title = title
        self.about = about      # seconds that it takes
        self.far = ""
        self.start = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.start

    def _line(self):
        text = f"{self.title}: {duration(self.seconds())}"
        if self.about:
            text += f" of about {duration(self.about)}"
        return f"{text}, {self.far}" if self.far else text

    @classmethod
    def _tick(cls):
        terminal = sys.stderr.isatty()
        said = time.monotonic()
        while True:
            time.sleep(1)
            with cls.guard:
                line = "; ".join(p._line() for p in cls.going)
                if terminal and line:
                    width = os.get_terminal_size(2).columns
                    print(f"\r\033[K{line[:width - 1]}", end="", file=sys.stderr, flush=True)
                elif line and time.monotonic() - said >= 30:
                    said = time.monotonic()
                    print(line, file=sys.stderr, flush=True)

    def __enter__(self):
        with self.guard:
            self.going.append(self)
            if not Progress.ticker:
                Progress.ticker = threading.Thread(target=self._tick, daemon=True)
                Progress.ticker.start()
        return self

    def __exit__(self, kind, *_):
        with self.guard:
            self.going.remove(self)
        if kind is None and self.seconds() >= 1:
            self.about = None
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
