#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Builds what is not built yet and runs a command in the guest.

Without a command: shows which implementation serves /proc/PID/maps and what it
gives. The exit status is the command's, the standard output nothing but its
output.
"""

import argparse
import os
import shlex
import sys

import build
import guest
import series
from common import Failed, lock, main, say, shown

TOUR = r"""
section() { printf '\n== %s\n' "$1"; }
section 'kernel'
uname -sr
section 'who serves /proc/PID/maps'
switch=/sys/module/task_mmu/parameters/rust
case $(cat $switch 2>/dev/null) in
Y) echo "Rust ($switch is Y)" ;;
N) echo "C ($switch is N)" ;;
*) echo "C (this kernel has no $switch)" ;;
esac
set -e
section 'cat /proc/self/maps'
cat /proc/self/maps
section 'cat /proc/1/maps'
cat /proc/1/maps
section 'a process with 10,000 mappings: head, tail and number of lines'
mappings 10000 sh -c 'head -n 5 /proc/$MAPPINGS_PID/maps; echo ...
tail -n 5 /proc/$MAPPINGS_PID/maps; wc -l < /proc/$MAPPINGS_PID/maps'
"""


def build_all():
    """Lays, builds and makes the guest's file system, as far as anything changed."""
    with lock():
        series.lay()
        build.build("slim")
        guest.make_image()


def seconds(text):
    try:
        return int(text)
    except ValueError:
        raise Failed(f"TIMEOUT={text} is no number of seconds") from None


def conclude(result, log):
    """Says what the kernel of a guest has reported, and the command's exit status; gives that."""
    for line in result.reports():
        say(f"kernel: {line}")
    if result.reports():
        say(f"the kernel's log has reports of errors; all of it is {shown(log)}")
    if result.status:
        say(f"the command's exit status is {result.status}")
    return result.status


def run():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="only build")
    parser.add_argument("--shell", action="store_true", help="run an interactive shell")
    parser.add_argument("command", nargs=argparse.REMAINDER,
                        help="command and arguments (default: the shell command in CMD)")
    parser.epilog = """environment:
  CMD      shell command to run
  SHARE    folder of the host that the guest has as /share
  ICOUNT   1: guest time counts instructions, one CPU
  ACCEL    kvm or tcg (default: kvm where it works)
  TIMEOUT  seconds after which the guest is killed (default: 600)"""
    args = parser.parse_args()
    timeout = seconds(os.environ.get("TIMEOUT") or "600")
    guest.asked()       # so that a mistake is told before building, not after it
    build_all()
    if args.build:
        return 0
    share = "/share" if os.environ.get("SHARE") else None
    if args.shell:
        return guest.boot("", share=share, terminal=True, name="shell").status
    command = shlex.join(args.command) if args.command else os.environ.get("CMD") or TOUR
    result = guest.boot(command, share=share, timeout=timeout, output=sys.stdout.buffer)
    return conclude(result, result.log_path)


if __name__ == "__main__":
    main(run)
