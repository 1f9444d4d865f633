#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Measures how long a database of this machine takes to answer while others monitor
it: nobody, programs that C serves, and the same that Rust serves. It runs in the guest
as root.

The database is H2, in a JVM with a heap of 1.5 GiB of 4 KiB pages, that starts a thread
for each connection, so that each request changes the address space. What monitors it
is what people run: the process exporter of Prometheus, asked for smaps_rollup; atop -R;
and an agent that reads smaps. Each line of JSON says what the answers took in ns.
"""

import argparse
import contextlib
import json
import subprocess
import threading
import urllib.request

from clients import Target, Wrong, serve

JAR = "/usr/share/java/h2.jar"
HEAP = "1536m"
URL = "jdbc:h2:tcp://127.0.0.1:9092/mem:test;DB_CLOSE_DELAY=-1"
EXPORTER = "127.0.0.1:9259"
USUAL = 10      # s between two looks of a program that monitors
WARM_UP = 90    # s
# without the second compiler, which would be at work for longer than is measured
JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def repeated(interval, look, errors):
    """Runs look() at each interval until the event that it gives is set."""
    ended = threading.Event()

    def work():
        while not ended.wait(interval):
            try:
                look()
            except Exception as e:      # told where it is waited for
                errors.append(f"{look.__name__}: {type(e).__name__}: {e}")
                return
    thread = threading.Thread(target=work)
    thread.start()
    return ended, thread


@contextlib.contextmanager
def monitored(pid, interval):
    """Lets the programs monitor a process."""
    errors = []

    def scrape():
        with urllib.request.urlopen(f"http://{EXPORTER}/metrics", timeout=60) as answer:
            if b"proportionalResident" not in answer.read():
                raise Wrong("the exporter tells nothing of smaps_rollup")

    def agent():
        with open(f"/proc/{pid}/smaps") as f:
            if "Pss:" not in f.read():
                raise Wrong("smaps is empty")
    atop = Target("atop", ["atop", "-R", "-P", "PRM", str(interval)])
    threads = [repeated(interval, look, errors) for look in (scrape, agent)]
    try:
        yield
    finally:
        for ended, thread in threads:
            ended.set()
            thread.join()
        if atop.child.poll() is not None:
            errors.append(f"atop has ended: {atop.said()[-200:]}")
        atop.kill()
    if errors:
        raise Wrong(*errors)


class Requests:
    """The program that asks."""

    def __init__(self, interval):
        self.child = subprocess.Popen(
            [*JAVA, "-Xmx128m", "-cp", f"{JAR}:/usr/local/lib/task_mmu", "Requests", URL, str(interval)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.child.stdout.readline() != "ready\n":
            raise Wrong("the program that asks does not start")

    def ask(self, seconds):
        """What each answer took in that time."""
        self.child.stdin.write(f"{seconds}\n")
        self.child.stdin.flush()
        took = [int(ns) for ns in self.child.stdout.readline().split()]
        if not took:
            raise Wrong("the program that asks has ended")
        return took


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of all of them in turn (default: 2)")
    parser.add_argument("--seconds", type=int, default=60, help="for each (default: 60)")
    parser.add_argument("--interval", type=int, default=100_000, help="us between two requests (default: 100000)")
    args = parser.parse_args()
    with open("/sys/kernel/mm/transparent_hugepage/enabled", "w") as f:
        f.write("madvise")      # as databases ask for it
    server = Target("database", [*JAVA, f"-Xms{HEAP}", f"-Xmx{HEAP}", "-XX:+AlwaysPreTouch", "-cp", JAR,
                                 "org.h2.tools.Server", "-tcp", "-tcpPort", "9092", "-ifNotExists"])
    server.wait_for("TCP server running", 300)
    exporter = Target("exporter", ["prometheus-process-exporter", f"-web.listen-address={EXPORTER}",
                                   "-procnames=java", "-gather-smaps", "-threads=false"])
    exporter.wait_for("Listening|Reading|msg=", 60)
    requests = Requests(args.interval)
    requests.ask(WARM_UP)
    for number in range(1, args.rounds + 1):
        for who, interval in (("", 0), ("C", USUAL), ("Rust", USUAL), ("C", USUAL // 10), ("Rust", USUAL // 10)):
            if who:
                serve(who)
                with monitored(server.pid, interval):
                    took = requests.ask(args.seconds)
            else:
                took = requests.ask(args.seconds)
            print(json.dumps({"who": who, "interval": interval, "round": number, "ns": took}), flush=True)
    for target in (exporter, server):
        target.kill()


if __name__ == "__main__":
    main()
