"""Time and memory of the heavy stages beside what a user would pick instead.

    python scripts/dev/benchmark.py                      all cases, at the sizes of a real category
    python scripts/dev/benchmark.py --small              a quick look
    python scripts/dev/benchmark.py --case coreset       one case

Every contender runs in a process of its own, in turn (A B C, A B C, ...), on the same data, so that
a machine whose speed drifts is fair to all. What takes too long to run whole is run in part and
scaled, and the table says so. anomalib and faiss take part where they are installed
(``pip install ".[benchmark]"``). Writes a CSV and a markdown table, and at full size the README's;
results of other cases that are in the CSV stay, if they are of the same machine.
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

from benchmark_cases import CASES, WARM
from tabulate import tabulate

from indad.core import atomic, device
from indad.reporting import readme

#: Contenders shown in the README; docs/benchmark.md has all.
HEADLINE = (
    "anomalib", "anomalib (scaled)", "anomalib (scaled from a quarter)", "faiss flat L2",
    "scikit-learn + plain AUPRO", "bare network",
)  # fmt: skip

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
    children_before = children_mb()  # an import may have forked
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
    child = children_mb() if children_mb() > children_before else 0.0
    return {"seconds": seconds, "extra_mb": max(memory("VmHWM") - before, child)}


def children_mb() -> float:
    """Return the peak memory of the largest process this one has started, in MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


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

    return f"{device.machine()}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="an eighth of the size, or less")
    parse.add_argument("--case", action="append", choices=list(CASES), help="may be repeated")
    parse.add_argument("--runs", type=int, default=3, help="runs of each (default: %(default)s)")
    parse.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parse.add_argument("--output", type=Path, metavar="PREFIX", help="default: docs/benchmark")
    parse.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.child:
        print(json.dumps(measure(*given.child, given.small, given.threads)))
        return

    output = given.output or Path("results/benchmark" if given.small else "docs/benchmark")
    where = {"small": str(given.small), "threads": str(given.threads), "machine": machine()}
    rows = [row for row in kept(output) if all(row[key] == where[key] for key in where)]
    for name in given.case or CASES:
        case = CASES[name]
        running = [who for who in case.contenders if find_spec(case.needs.get(who, "indad"))]
        for who in case.contenders.keys() - running:
            print(f"{case.title}: without {who}, it is not installed")
        results: dict[str, list[dict[str, float]]] = {who: [] for who in running}
        for _ in range(min(given.runs, case.most_runs)):
            for who in running:
                results[who].append(run_child(name, who, given.small, given.threads))
        rows = [row for row in rows if row["case"] != name]
        for who in running:
            rows.append({"case": name, "contender": who} | summary(results[who], results["indad"]))
            rows[-1] |= where
            print(*rows[-1].values(), flush=True)
        rows.sort(key=lambda row: list(CASES).index(row["case"]))
        write(rows, output)  # after each case: some take long
    if not given.small and not given.output:
        readme.update(Path("README.md"), "speed", f"{headline(rows)}\n\n{notes(rows)}")


def summary(runs: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, str]:
    """Summarise the runs of one contender; ratios are taken within a round, then the median."""
    ratios = [each["seconds"] / own["seconds"] for each, own in zip(runs, ours, strict=True)]
    return {
        "seconds": f"{statistics.median(each['seconds'] for each in runs):.2f}",
        "times_indad": f"{statistics.median(ratios):.2f}",
        "extra_mb": f"{statistics.median(each['extra_mb'] for each in runs):.0f}",
        "runs": str(len(runs)),
    }


def kept(output: Path) -> list[dict[str, str]]:
    """Read what earlier runs measured, of cases that still exist."""
    path = output.with_suffix(".csv")
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["case"] in CASES]


def write(rows: list[dict[str, str]], output: Path) -> None:
    """Write the CSV and the markdown table."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic.replacing(output.with_suffix(".csv")) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = f"# Speed and memory\n\n{table(rows)}\n\n{notes(rows)}\n"
    atomic.write_text(output.with_suffix(".md"), text)


def table(rows: list[dict[str, str]]) -> str:
    """Return the markdown table."""
    columns = ("contender", "seconds", "times_indad", "extra_mb", "runs")
    cells = [[CASES[row["case"]].title, *(row[column] for column in columns)] for row in rows]
    headers = ["work", "by", "seconds", "times indad", "extra peak memory, MB", "runs"]
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


def headline(rows: list[dict[str, str]]) -> str:
    """Return the README's table: a line a case, ours beside the slowest-to-beat alternative."""
    cells = []
    for name, case in CASES.items():
        mine = [row for row in rows if row["case"] == name and row["contender"] == "indad"]
        others = [row for row in rows if row["case"] == name and row["contender"] in HEADLINE]
        for other in others:
            times = float(other["times_indad"])
            cells.append(
                [
                    case.title.removesuffix("; bare: the network alone"),
                    mine[0]["seconds"],
                    other["contender"],
                    f"{times:.2f}" if times < 3 else f"{times:.0f}",
                    f"{mine[0]['extra_mb']} / {other['extra_mb']}",
                ]
            )
    headers = ["work", "indad, s", "beside", "takes times as long", "peak MB, ours / theirs"]
    return tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)


def notes(rows: list[dict[str, str]]) -> str:
    """Say how and on what the table was measured."""
    size = "A quick look at reduced sizes. " if rows[0]["small"] == "True" else ""
    files = "MVTec AD bottle" if "INDAD_TEST_MVTEC" in os.environ else "drawn images"
    return (
        f"{size}Medians of the runs, in turn, each in a process of its own, {rows[0]['threads']} "
        f"threads, on {rows[0]['machine']}. Scaled: 100 picks of the coreset, or a quarter of the "
        "positions, were run; each costs the same. Extra memory is what was seen in the part that "
        "was run. anomalib inverts its covariances in one thread here: in several, MKL can hang on "
        "them. Made by `make benchmark` on synthetic features of a real category's sizes; what "
        f"begins with image files, on {files}."
    )


if __name__ == "__main__":
    main()
