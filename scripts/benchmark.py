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
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from indad import atomic

#: A contender gets the case's data and returns by how much to multiply its time: 1 when it did the
#: whole work.
Contender = Callable[[dict[str, Any]], float]


@dataclass(frozen=True)
class Case:
    """Something to measure: how to make its data, and who does the work. The first is ours."""

    title: str
    setup: Callable[[bool], dict[str, Any]]
    contenders: dict[str, Contender]
    needs: dict[str, str]


def clustered(count: int, dimensions: int, seed: int = 0) -> Any:
    """Points as patch features lie: clusters of low intrinsic dimension, float32 tensor."""
    import torch

    rng = np.random.default_rng(seed)
    spread = 1 / np.arange(1, dimensions + 1) ** 0.7
    centres = rng.normal(size=(200, dimensions)) * spread * 2
    points = centres[rng.integers(200, size=count)]
    points += rng.normal(size=(count, dimensions)) * spread
    return torch.from_numpy(points.astype(np.float32))


# -- coreset --------------------------------------------------------------------------------------


def coreset_data(small: bool) -> dict[str, Any]:
    points = clustered(20_000 if small else 163_856, 128)
    return {"points": points, "count": len(points) // 10}


def coreset_ours(data: dict[str, Any]) -> float:
    from indad.coreset import greedy_k_center

    greedy_k_center(data["points"], data["count"], start=0)
    return 1


def coreset_products(data: dict[str, Any]) -> float:
    """The bare matrix products of one distance per point and pick."""
    import torch

    points = data["points"]
    picks = points[: data["count"]].T.contiguous()
    block = torch.empty(1024, data["count"])
    for part in points.split(1024):
        torch.mm(part, picks, out=block[: len(part)])
    return 1


def coreset_loop(data: dict[str, Any], picks: int = 100) -> float:
    """One pass over all points a pick, scaled from 100 picks."""
    import torch

    points = data["points"]
    nearest = torch.full((len(points),), torch.inf)
    pick = 0
    for _ in range(picks):
        nearest = torch.minimum(nearest, (points - points[pick]).square_().sum(dim=1))
        pick = int(nearest.argmax())
    return data["count"] / picks


def coreset_anomalib(data: dict[str, Any], picks: int = 100) -> float:
    """anomalib's KCenterGreedy without its projection, scaled from 100 picks."""
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy

    # Points of three axes are not projected again, so that both choose on the same 128 dimensions.
    points = data["points"][:, None]
    KCenterGreedy(points, (picks + 0.5) / len(points)).select_coreset_idxs()
    return data["count"] / picks


# -- nearest neighbours ---------------------------------------------------------------------------


def search_data(dimensions: int, bank: int, queries: int) -> Callable[[bool], dict[str, Any]]:
    def setup(small: bool) -> dict[str, Any]:
        import torch

        size = bank // 8 if small else bank
        points = clustered(size + queries, dimensions)
        # Test patches are not bank patches; shuffled clusters make neighbours of all.
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
        return {"bank": points[order[:size]], "queries": points[order[size:]]}

    return setup


def search_ours(data: dict[str, Any]) -> float:
    from indad.neighbors import nearest

    nearest(data["queries"], data["bank"])
    return 1


def search_products(data: dict[str, Any]) -> float:
    """The bare matrix product, in blocks that fit the cache."""
    import torch

    bank = data["bank"].T.contiguous()
    block = torch.empty(512, bank.shape[1])
    for part in data["queries"].split(512):
        torch.mm(part, bank, out=block[: len(part)])
    return 1


def search_faiss(data: dict[str, Any]) -> float:
    import faiss

    index = faiss.IndexFlatL2(data["bank"].shape[1])
    index.add(data["bank"].numpy())
    index.search(data["queries"].numpy(), 1)
    return 1


# -- metrics --------------------------------------------------------------------------------------


def metrics_data(small: bool) -> dict[str, Any]:
    from scipy.ndimage import gaussian_filter

    count = 20 if small else 115
    rng = np.random.default_rng(0)
    maps = np.stack([gaussian_filter(rng.random((224, 224), np.float32), 4) for _ in range(count)])
    masks = np.zeros(maps.shape, bool)
    for mask in masks[count // 4 :]:
        for _ in range(rng.integers(1, 4)):
            row, column = rng.integers(0, 180, 2)
            mask[row : row + rng.integers(8, 44), column : column + rng.integers(8, 44)] = True
    maps[masks] += 0.02
    return {"maps": maps, "masks": masks}


def metrics_ours(data: dict[str, Any]) -> float:
    from indad.metrics import pixel_metrics

    pixel_metrics(data["maps"], data["masks"])
    return 1


def metrics_sklearn(data: dict[str, Any]) -> float:
    """scikit-learn's three, and an AUPRO from a ROC curve and one curve per region."""
    from scipy.ndimage import label
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )

    maps, masks = data["maps"], data["masks"]
    truth, scores = masks.reshape(-1), maps.reshape(-1)
    roc_auc_score(truth, scores)
    average_precision_score(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    np.nanmax(2 * precision * recall / (precision + recall + 1e-12))
    rate, _, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    overlap, regions = np.zeros(len(rate)), 0
    for image, mask in zip(maps, masks, strict=True):
        numbered, count = label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = np.sort(image[numbered == region])
            overlap += 1 - np.searchsorted(inside, thresholds) / len(inside)
            regions += 1
    below = rate <= 0.3
    np.trapezoid((overlap / regions)[below], rate[below])
    return 1


# -- PaDiM ----------------------------------------------------------------------------------------


def padim_data(count: int, dimensions: int, channels: tuple[int, ...]) -> Any:
    def setup(small: bool) -> dict[str, Any]:
        from indad.features import ArrayFeatures

        side = 14 if small else 56
        rng = np.random.default_rng(0)

        def source(images: int) -> ArrayFeatures:
            return ArrayFeatures(
                {
                    f"layer{i + 1}": rng.random((images, c, side >> i, side >> i), np.float32)
                    for i, c in enumerate(channels)
                },
                input_size=(4 * side, 4 * side),
            )

        return {"train": source(count), "test": source(16), "dimensions": dimensions}

    return setup


def padim_ours(data: dict[str, Any]) -> float:
    from indad.methods.padim import PaDiM

    PaDiM(dimensions=data["dimensions"]).fit(data["train"]).score(data["test"])
    return 1


def padim_anomalib(data: dict[str, Any]) -> float:
    """anomalib's Gaussian and anomaly map on the same features, embedded as it does."""
    import torch
    from anomalib.models.components.stats import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
    from torch.nn.functional import interpolate

    def embed(source: Any) -> torch.Tensor:
        maps = [torch.from_numpy(source.maps(layer)) for layer in source.layers]
        size = maps[0].shape[-2:]
        joined = torch.cat([interpolate(m, size=size, mode="nearest") for m in maps], dim=1)
        chosen = torch.randperm(joined.shape[1])[: data["dimensions"]]
        return joined[:, chosen]

    gaussian = MultiVariateGaussian()
    with torch.no_grad():
        gaussian.fit(embed(data["train"]))
        AnomalyMapGenerator()(
            embedding=embed(data["test"]),
            mean=gaussian.mean,
            inv_covariance=gaussian.inv_covariance,
            image_size=data["test"].input_size,
        )
    return 1


WRN50, RESNET18 = (256, 512, 1024), (64, 128, 256)
SEARCH = {"indad": search_ours, "faiss flat L2": search_faiss, "matrix product": search_products}
PADIM = {"indad": padim_ours, "anomalib": padim_anomalib}
_ANOMALIB_MODULES = (
    "anomalib.models.components.sampling.k_center_greedy",
    "anomalib.models.components.stats",
    "anomalib.models.image.padim.anomaly_map",
)
#: What a contender imports, before its time begins.
WARM = {
    "indad": (
        "indad.coreset", "indad.neighbors", "indad.metrics", "indad.methods.padim",
        "indad.anomaly_map",
    ),
    "anomalib": _ANOMALIB_MODULES,
    "anomalib (scaled)": _ANOMALIB_MODULES,
    "faiss flat L2": ("faiss",),
    "scikit-learn + plain AUPRO": ("sklearn.metrics", "scipy.ndimage"),
}  # fmt: skip
ANOMALIB = {"anomalib": "anomalib"}
FAISS = {"faiss flat L2": "faiss"}
CASES = {
    "coreset": Case(
        "Greedy k-centre, 163,856 x 128, 10 %",
        coreset_data,
        {
            "indad": coreset_ours,
            "matrix products": coreset_products,
            "plain loop (scaled)": coreset_loop,
            "anomalib (scaled)": coreset_anomalib,
        },
        {"anomalib (scaled)": "anomalib"},
    ),
    "patchcore": Case(
        "PatchCore search, 16 images, bank 16,385 x 384",
        search_data(384, 16_385, 16 * 784),
        SEARCH,
        FAISS,
    ),
    "patchcore-official": Case(
        "PatchCore search, 16 images, bank 16,385 x 1024",
        search_data(1024, 16_385, 16 * 784),
        SEARCH,
        FAISS,
    ),
    "spade-layer1": Case(
        "SPADE gallery, 1 image, layer 1 of 50 images (256)",
        search_data(256, 156_800, 3136),
        SEARCH,
        FAISS,
    ),
    "spade-r18": Case(
        "SPADE gallery, 1 image, layer 1 of 50 images (64)",
        search_data(64, 156_800, 3136),
        SEARCH,
        FAISS,
    ),
    "metrics": Case(
        "Pixel metrics of 5.8 million pixels",
        metrics_data,
        {"indad": metrics_ours, "scikit-learn + plain AUPRO": metrics_sklearn},
        {},
    ),
    "padim-r18": Case(
        "PaDiM fit + 16 images, 209 training images, 100 of 448",
        padim_data(209, 100, RESNET18),
        PADIM,
        ANOMALIB,
    ),
    "padim-wrn50-60": Case(
        "PaDiM fit + 16 images, 60 training images, 550 of 1792",
        padim_data(60, 550, WRN50),
        PADIM,
        ANOMALIB,
    ),
    "padim-wrn50": Case(
        "PaDiM fit + 16 images, 209 training images, 550 of 1792",
        padim_data(209, 550, WRN50),
        PADIM,
        ANOMALIB,
    ),
}

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
    seconds = (time.perf_counter() - started) * scale
    return {"seconds": seconds, "extra_mb": memory("VmHWM") - before}


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
