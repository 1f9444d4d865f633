# SPDX-License-Identifier: GPL-2.0
"""The plots of the benchmarks: SVG that can be read on a light and on a dark page."""

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402

# as far from black as from white
TEXT = "#767676"
IMPLEMENTATIONS = ("C", "mmap_lock", "Rust")
COLORS = {"": "#767676", "base": "#767676", "C": "#d1661a", "mmap_lock": "#a05fc4", "Rust": "#2a86d6"}
NAMES = {"": "no reader", "base": "the base, C", "C": "C", "mmap_lock": "C that holds mmap_lock", "Rust": "Rust"}
SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "task_mmu", "font.size": 9, "font.family": "sans-serif",
    "text.color": TEXT, "axes.labelcolor": TEXT, "axes.edgecolor": TEXT, "axes.titlesize": 9,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.color": TEXT, "ytick.color": TEXT,
    "legend.frameon": False, "axes.titlelocation": "left",
}


def save(figure, target):
    figure.savefig(target, transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = "".join(f"{line.rstrip()}\n" for line in target.read_text().splitlines())
    head, rest = text.split("?>\n", 1)
    target.write_text(f"{head}?>\n<!-- SPDX-License-Identifier: GPL-2.0 -->\n{rest}")


def bars(axes, rows, length):
    """A group of bars for each row, which is a title, and numbers by implementation;
    how long is what length makes of a number and its row."""
    height = 0.26
    shown = [i for i in COLORS if any(i in numbers for _, numbers in rows)]
    for n, (title, numbers) in enumerate(rows):
        for i, implementation in enumerate(shown):
            if implementation in numbers:
                number = numbers[implementation]
                bar = axes.barh(n + (i - (len(shown) - 1) / 2) * height, length(number, numbers), height * 0.9,
                                color=COLORS[implementation], label=NAMES[implementation] if n == 0 else None)
                axes.bar_label(bar, [f"{number:,.0f}"], padding=2, fontsize=7)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def cost(rows, target):
    """Bars for each workload: rows are a title, and instructions by implementation."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(figsize=(8, 0.52 * len(rows) + 0.8), layout="constrained")
        bars(axes, rows, lambda spent, row: spent / row["C"])
        axes.set_xlabel("instructions for a line or VMA (numbers), as a part of those of C (bars)")
        figure.legend(loc="outside upper left", ncols=3)
        save(figure, target)


def pages(rows, target):
    """Bars for each kind of page: rows are a title, and instructions by implementation."""
    with plt.rc_context(SETTINGS):
        figure, axes = plt.subplots(figsize=(8, 0.52 * len(rows) + 0.8), layout="constrained")
        bars(axes, rows, lambda spent, row: spent)
        axes.set_xlabel("instructions for a page")
        figure.legend(loc="outside upper left", ncols=3)
        save(figure, target)


def proc_vs_map(panels, target):
    """Bars for each file: panels are a title, the time in us without a reader, and rows of a
    file and times in us by implementation."""
    with plt.rc_context(SETTINGS):
        figure, grid = plt.subplots(1, len(panels), figsize=(8, 3.2), layout="constrained", sharey=True)
        for axes, (title, alone, rows) in zip(grid, panels):
            bars(axes, rows, lambda time, row: time)
            axes.axvline(alone, color=COLORS[""], linewidth=1, linestyle="--", zorder=0, label=NAMES[""])
            axes.set_xscale("log")
            times = [alone, *(time for _, row in rows for time in row.values())]
            axes.set_xlim(min(times) / 2, 4 * max(times))
            axes.xaxis.set_major_formatter(lambda us, _: f"{us:g} us" if us < 1000 else f"{us / 1000:g} ms")
            axes.set_title(title)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4)
        save(figure, target)


def application(found, target):
    """How long answers took that somebody waits for; found has times in ms by the interval of the
    monitoring and who serves that, which are 0 and "" without it."""
    with plt.rc_context(SETTINGS):
        intervals = sorted({interval for interval, who in found if who}, reverse=True)
        figure, grid = plt.subplots(1, len(intervals), figsize=(8, 3.2), layout="constrained", sharey=True, sharex=True)
        for axes, interval in zip(grid, intervals):
            for who, name in {"": "not monitored", "C": "C", "Rust": "Rust"}.items():
                times = sorted(found[(interval, who) if who else (0, "")])
                axes.step(times, [1 - n / len(times) for n in range(len(times))], where="pre", color=COLORS[who],
                          linewidth=1.5, label=name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"monitored each {f'{interval} s' if interval > 1 else 'second'}")
            axes.grid(True, color=TEXT, alpha=0.25, linewidth=0.5)
            axes.set_yticks([1, 0.1, 0.01, 0.001], ["all", "10 %", "1 %", "0.1 %"])
            axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
            axes.set_xlabel("time until the answer")
        grid[0].set_ylabel("answers that take longer")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        save(figure, target)


# What is shown of all that is measured, by its key.
PANELS = (
    (("fragmented", "mmap and munmap", "2", "alone", "smaps_rollup"),
     "mmap and munmap in 128 MiB of fragments,\ntwo readers of smaps_rollup"),
    (("large", "mprotect", "1", "alone", "smaps_rollup"),
     "mprotect of a page in 1 GiB,\na reader of smaps_rollup"),
    (("large", "mprotect every 1 ms", "1", "alone", "smaps"),
     "mprotect of a page in 1 GiB every millisecond,\na reader of smaps"),
    (("fragmented", "mmap and munmap", "2", "normal", "maps"),
     "mmap and munmap in 128 MiB of fragments,\ntwo readers of maps beside two busy tasks"),
    (("hot", "mprotect", "4", "normal", "maps"),
     "mprotect of a page without pause,\nfour readers of maps beside two busy tasks"),
    (("hot", "mprotect", "4", "nice 15", "maps"),
     "mprotect of a page without pause, four readers\nof maps, nice 15, beside two busy tasks"),
)


def exceeding(classes):
    """Points of the share of operations that take longer than a time in us."""
    left = total = sum(classes.values())
    points = []
    for number in sorted(classes):
        begin = (4 + number % 4) * 2 ** (number // 4 - 2) / 1000
        end = (5 + number % 4) * 2 ** (number // 4 - 2) / 1000
        points.append((begin, left / total))
        left -= classes[number]
        points.append((end, left / total if left else 0.3 / total))
    return zip(*points)


def writers(found, target):
    """How long operations of the process took, for some of what was measured; found
    has it by key and implementation."""
    with plt.rc_context(SETTINGS):
        figure, grid = plt.subplots(3, 2, figsize=(8, 9), layout="constrained", sharey=True, sharex=True)
        for axes, (key, title) in zip(grid.flat, PANELS):
            lines = found[key] | found[*key[:2], "0", "alone", ""]
            for implementation in NAMES:
                if implementation in lines:
                    axes.plot(*exceeding(lines[implementation].classes), color=COLORS[implementation],
                              linewidth=1.5, label=NAMES[implementation])
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(title)
            axes.grid(True, color=TEXT, alpha=0.25, linewidth=0.5)
            axes.set_yticks([10.0 ** -n for n in range(6)], ["all", "10 %", "1 %", "0.1 %", "0.01 %", "0.001 %"])
            axes.set_ylim(3e-6, 1.3)
            axes.set_xticks([10, 100, 1e3, 1e4, 1e5, 1e6], ["10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s"])
            axes.minorticks_off()
        for axes in grid[-1]:
            axes.set_xlabel("time that an operation takes")
        for axes in grid[:, 0]:
            axes.set_ylabel("operations that take longer")
        handles = {}
        for axes in grid.flat:
            handles |= {label: line for line, label in zip(*axes.get_legend_handles_labels())}
        labels = [name for name in NAMES.values() if name in handles]
        figure.legend([handles[name] for name in labels], labels, loc="outside upper left", ncols=4)
        save(figure, target)
