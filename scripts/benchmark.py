"""Time and memory of the heavy stages beside what a user would pick instead.

    python scripts/benchmark.py                      all cases, at the sizes of a real category
    python scripts/benchmark.py --small              a quick look
    python scripts/benchmark.py --case coreset       one case

Every contender runs in a process of its own, in turn (A B C, A B C, ...), on the same data, so that
a machine whose speed drifts is fair to all. What takes too long to run whole is run in part and
scaled, and the table says so. anomalib and faiss take part where they are installed
(``pip install ".[benchmark]"``). Writes a CSV and a markdown table.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark_cases import CASES, WARM
from indad import atomic

# -- measuring ------------------------------------------------------------------------------------


def memory(field: str) -> float:
    """Read a field of this process's memory, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure(case: str, contender: str, small: bool, threads: int) -> dict[str, float]:
    """Run one contender once, in this process."""
    import torch

    torch.set_num_threads(threads)
    chosen = CASES[case]
    data = chosen.setup(small)
    for module in WARM.get(contender, ()):  # importing is not what is measured
        import_module(module)
    torch.mm(torch.rand(512, 512), torch.rand(512, 512))
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the set-up
    except OSError:
        before = float("nan")
    else:
        before = memory("VmRSS")
    started = time.perf_counter()
    scale = chosen.contenders[contender](data)
    seconds = data.get("seconds", time.perf_counter() - started) * scale
    # What works in processes of its own is the largest of them.
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": seconds, "extra_mb": max(memory("VmHWM") - before, child)}


def run_child(case: str, contender: str, small: bool, threads: int) -> dict[str, float]:
    """Run one contender once, in a new process."""
    command = [sys.executable, __file__, "--child", case, contender, "--threads", str(threads)]
    done = subprocess.run(
        [*command, *(["--small"] if small else [])],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        raise SystemExit(f"{case}, {contender}: failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> str:
    """Name the processor, the cores and the versions."""
    import torch

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch " + str(
        torch.__version__
    )


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="an eighth of the size, or less")
    parse.add_argument("--case", action="append", choices=list(CASES), help="may be repeated")
    parse.add_argument("--runs", type=int, default=3, help="runs of each (default: %(default)s)")
    parse.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parse.add_argument("--output", type=Path, default=Path("docs/benchmark"), metavar="PREFIX")
    parse.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.child:
        print(json.dumps(measure(*given.child, given.small, given.threads)))
        return

    rows, absent = [], set()
    for name in given.case or CASES:
        case = CASES[name]
        missing = {who: package for who, package in case.needs.items() if not find_spec(package)}
        absent |= set(missing.values())
        running = [who for who in case.contenders if who not in missing]
        results: dict[str, list[dict[str, float]]] = {who: [] for who in running}
        for _ in range(given.runs):
            for who in running:
                results[who].append(run_child(name, who, given.small, given.threads))
        ours = results["indad"]
        for who in running:
            seconds = [each["seconds"] for each in results[who]]
            ratios = [a["seconds"] / b["seconds"] for a, b in zip(results[who], ours, strict=True)]
            row = {
                "case": case.title,
                "contender": who,
                "seconds": statistics.median(seconds),
                "times_ours": statistics.median(ratios),
                "extra_mb": statistics.median(each["extra_mb"] for each in results[who]),
                "runs": given.runs,
                "small": given.small,
            }
            rows.append(row)
            print(
                f"{case.title:58} {who:28} {row['seconds']:9.2f} s  x {row['times_ours']:7.2f}"
                f"  {row['extra_mb']:7.0f} MB",
                flush=True,
            )
        write(rows, given.output, absent, given.threads)  # after each case: some take long


def write(rows: list[dict[str, Any]], output: Path, absent: set[str], threads: int) -> None:
    """Write the CSV and the markdown table."""
    from tabulate import tabulate

    with (
        atomic.replacing(output.with_suffix(".csv")) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    cells = [
        [
            row["case"],
            row["contender"],
            f"{row['seconds']:.2f}",
            f"{row['times_ours']:.2f}",
            f"{row['extra_mb']:.0f}",
        ]
        for row in rows
    ]
    headers = ["work", "by", "seconds", "times indad", "peak memory beyond the data, MB"]
    text = tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)
    size = "A quick look at reduced sizes. " if rows[0]["small"] else ""
    notes = (
        f"{size}Medians of {rows[0]['runs']} runs in turn, each in a process of its own, "
        f"{threads} threads, on {machine()}. Scaled: 100 picks were run, each costs the same. "
        "Made by `make benchmark` on synthetic features of a real category's sizes."
    )
    if absent:
        notes += f" Not installed, so not measured: {', '.join(sorted(absent))}."
    atomic.write_text(output.with_suffix(".md"), f"# Speed and memory\n\n{text}\n\n{notes}\n")


if __name__ == "__main__":
    main()
