"""Time and memory of the expensive stages, compared with other implementations.

    python scripts/dev/benchmark.py                      all cases, at the size of a real category
    python scripts/dev/benchmark.py --small              all cases at reduced size
    python scripts/dev/benchmark.py --case coreset       one case
    python scripts/dev/benchmark.py --device cuda        on a GPU

Every contender runs in a process of its own. The contenders take turns (A B C, A B C, ...) on the
same data, so that a machine whose speed drifts affects all of them. Contenders that take too long
are run on a part of the work and scaled; the table says so. anomalib, faiss, ADEval and OpenVINO
take part if they are installed (``make benchmark`` installs them). Writes a CSV file and a Markdown
table. Results of other cases in the CSV file are kept if they come from the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from benchmark_cases import CASES, CPU_ONLY, IMPORTS, Case
from benchmark_methods import Data
from measure import machine, measured, run_child
from tabulate import tabulate

from indad.core import atomic
from indad.core.csv_files import write_csv

Row = dict[str, str]
#: The text of the pages, with places for their tables.
PAGES = {
    "cpu": Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
    "cuda": Path(__file__).with_name("benchmark_gpu.md").read_text(encoding="utf-8"),
}


def measure(case: Case, contender: str, given: argparse.Namespace) -> dict[str, float]:
    """Run one contender once in this process: seconds, and peak memory beyond its data."""
    torch.set_num_threads(given.threads)
    for module in IMPORTS.get(contender, ()):  # imports are not part of the measured time
        import_module(module)
    torch.mm(torch.rand(512, 512), torch.rand(512, 512))
    data = on_device(case.setup(given.small), given.device)
    results = []
    for _ in range(3 if given.device == "cuda" and not case.cold else 1):
        factor, seconds, extra_mb = measured(
            partial(case.contenders[contender], data), given.device
        )
        results.append((seconds * (factor or 1) + data.get("extra_seconds", 0), extra_mb))
    seconds, extra_mb = sorted(results)[len(results) // 2]
    return {"seconds": seconds, "extra_mb": extra_mb}


def on_device(data: Data, device: str) -> Data:
    """Return the data of a case with its tensors on a device, and the device's name."""
    moved = {name: each.to(device) for name, each in data.items() if isinstance(each, torch.Tensor)}
    return data | moved | {"device": device}


def is_installed(contender: str) -> bool:
    """Return whether the packages that a contender imports are installed."""
    return all(find_spec(module.partition(".")[0]) for module in IMPORTS.get(contender, ()))


def measure_case(name: str, given: argparse.Namespace) -> list[Row]:
    """Run all installed contenders of a case; return one row for each."""
    case = CASES[name]
    able = [who for who in case.contenders if given.device == "cpu" or who not in CPU_ONLY]
    installed = [who for who in able if is_installed(who)]
    for who in set(able).difference(installed):
        print(f"{case.title}: without {who}, which is not installed")
    small = ["--small"] if given.small else []
    options = ["--threads", str(given.threads), "--device", given.device, *small]
    results: dict[str, list[dict[str, float]]] = {who: [] for who in installed}
    for _ in range(min(given.runs, case.max_runs)):
        for who in installed:
            found = run_child(__file__, name, who, *options, threads=given.threads)
            results[who].append(found)
    return [
        {"case": name, "contender": who} | summarise(results[who], results["indad"])
        for who in installed
    ]


def summarise(runs: list[dict[str, float]], ours: list[dict[str, float]]) -> Row:
    """Return medians over the runs; time ratios are taken within each round first."""
    ratios = [each["seconds"] / own["seconds"] for each, own in zip(runs, ours, strict=True)]
    return {
        "seconds": seconds_text(statistics.median(each["seconds"] for each in runs)),
        "times_indad": f"{statistics.median(ratios):.2f}",
        "extra_mb": f"{statistics.median(each['extra_mb'] for each in runs):.0f}",
        "runs": str(len(runs)),
    }


def seconds_text(seconds: float) -> str:
    """Return seconds with three significant digits, from 100 on without decimals."""
    return f"{seconds:.0f}" if seconds >= 100 else f"{seconds:#.3g}"


def page(rows: list[Row], device: str) -> str:
    """Return the results as a Markdown page."""
    columns = ("contender", "seconds", "times_indad", "extra_mb", "runs")
    cells = [[CASES[row["case"]].title, *(row[column] for column in columns)] for row in rows]
    headers = ["work", "by", "seconds", "times indad", "extra peak memory, MB", "runs"]
    table = tabulate(cells, headers=headers, tablefmt="pipe", disable_numparse=True)
    size = "Reduced sizes (`--small`). " if rows[0]["small"] == "True" else ""
    files = "MVTec AD bottle" if "INDAD_TEST_MVTEC" in os.environ else "drawn images"
    return PAGES[device].format_map(rows[0] | {"table": table, "size": size, "files": files})


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--small", action="store_true", help="an eighth of the size, or less")
    parse.add_argument("--case", action="append", choices=list(CASES), help="may be repeated")
    parse.add_argument("--runs", type=int, default=3, help="runs of each (default: %(default)s)")
    parse.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parse.add_argument("--device", choices=list(PAGES), default="cpu", help="default: %(default)s")
    parse.add_argument(
        "--output",
        type=Path,
        metavar="PREFIX",
        help="default: docs/benchmark, or docs/benchmark_gpu",
    )
    parse.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parse.parse_args()
    if given.child:
        case, contender = given.child
        print(json.dumps(measure(CASES[case], contender, given)))
        return

    name = "benchmark" if given.device == "cpu" else "benchmark_gpu"
    output = given.output or Path("results" if given.small else "docs") / name
    table, markdown = output.with_suffix(".csv"), output.with_suffix(".md")
    setting = {
        "small": str(given.small),
        "threads": str(given.threads),
        "machine": machine(given.device),
    }
    rows = pd.read_csv(table, dtype=str).to_dict("records") if table.exists() else []
    rows = [row for row in rows if row["case"] in CASES and setting.items() <= row.items()]
    able = [name for name, case in CASES.items() if case.on_gpu or given.device == "cpu"]
    for name in given.case or able:
        found = [row | setting for row in measure_case(name, given)]
        rows = [row for row in rows if row["case"] != name] + found
        rows.sort(key=lambda row: list(CASES).index(row["case"]))
        for row in found:
            print(*row.values(), flush=True)
        write_csv(pd.DataFrame(rows), table)  # after each case, since some take long
        atomic.write_text(markdown, page(rows, given.device))


if __name__ == "__main__":
    main()
