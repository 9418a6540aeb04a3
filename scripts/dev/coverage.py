"""How often the intervals of the metrics contain the truth, by simulation.

    python scripts/dev/coverage.py            all of it: about three minutes on one core
    python scripts/dev/coverage.py --small    a quick look

Image scores are drawn from two normal distributions whose AUROC is known; anomaly maps are made of
noise, with defects of random size, number and contrast, and their true values are those of a very
large sample. Test sets are as large as small and large MVTec AD categories. Beside indad's
intervals stand the two of a plain bootstrap, percentile and BCa (Efron 1987), from the same
resamples; and for two experiments that are equally good, how often a difference is claimed. Writes
a CSV and a page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from tabulate import tabulate

from indad.core import atomic
from indad.data.ground_truth import GroundTruth
from indad.evaluation import bootstrap, comparison, evaluate, metrics
from indad.evaluation.resamples import Resamples

LEVEL = 0.95
#: Good and defective test images; the last four as MVTec AD's toothbrush, bottle, pill and screw.
SIZES = ((3, 8), (12, 30), (20, 63), (26, 141), (41, 119))
AUROCS = (0.75, 0.9, 0.97, 0.995, 0.9995)
#: Mean contrast of the defects and its standard deviation between defects.
CONTRASTS = ((1.5, 1.0), (3.0, 1.5), (5.0, 1.5))
SIDE = 16
TITLES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO",
}  # fmt: skip


def image_truth(auroc: float, good: int, defective: int) -> dict[str, float]:
    """Return the metrics that infinitely many images in these proportions would have."""
    shift = ndtri(auroc) * np.sqrt(2)
    threshold = np.linspace(shift + 9, -9, 200_001)
    recall, fp = ndtr(shift - threshold), good * ndtr(-threshold)
    tp = defective * recall
    precision = tp / np.maximum(tp + fp, 1e-300)
    f1 = 2 * tp / (tp + fp + defective)
    values = (auroc, np.trapezoid(precision, recall), f1.max())
    return dict(zip(metrics.IMAGE_METRICS, map(float, values), strict=True))


def image_scores(rng: np.random.Generator, auroc: float, labels: np.ndarray) -> np.ndarray:
    return rng.normal(size=len(labels)) + labels * ndtri(auroc) * np.sqrt(2)


def maps(
    rng: np.random.Generator, labels: np.ndarray, contrast: float, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw anomaly maps and masks ``(N, SIDE, SIDE)``: images differ in level, defects in all."""
    shape = (len(labels), SIDE, SIDE)
    drawn = rng.normal(size=shape) + 0.5 * rng.normal(size=(len(labels), 1, 1))
    masks = np.zeros(shape, bool)
    for i in np.flatnonzero(labels):
        for number in range(1 + (rng.random() < 0.3)):
            height, width = np.clip(np.exp(rng.normal(1.2, 0.5, 2)), 1, SIDE // 2 - 1).astype(int)
            top = rng.integers(SIDE // 2 - height) + number * SIDE // 2
            left = rng.integers(SIDE - width + 1)
            box = i, slice(top, top + height), slice(left, left + width)
            masks[box] = True
            drawn[box] += contrast + spread * rng.normal()
    return drawn.astype(np.float32), masks


def plain_intervals(
    value: float, resampled: np.ndarray, left_out: np.ndarray, labels: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Return the percentile and the BCa interval."""
    tails = np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    parts = [left_out[labels == each] for each in (0, 1)]
    influence = np.concatenate([(len(p) - 1) / len(p) * (p.mean() - p) for p in parts])
    total = (influence**2).sum()
    acceleration = (influence**3).sum() / total**1.5 / 6 if total else 0.0
    share = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    bias = ndtri(np.clip(share, 0.5 / len(resampled), 1 - 0.5 / len(resampled)))
    z = bias + ndtri(tails)
    corrected = ndtr(bias + z / (1 - acceleration * z))
    return {
        "percentile": tuple(np.quantile(resampled, tails)),
        "BCa": tuple(np.quantile(resampled, corrected)),
    }


class Cell:
    """Counts how often intervals miss."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], list[tuple[bool, bool, float]]] = {}

    def add(self, metric: str, method: str, bounds: tuple[float, float], truth: float) -> None:
        low, high = bounds
        row = (truth < low, truth > high, high - low)
        self.rows.setdefault((metric, method), []).append(row)

    def summary(self) -> Iterator[dict[str, Any]]:
        for (metric, method), rows in self.rows.items():
            low, high, width = np.mean(rows, axis=0)
            yield {
                "metric": metric,
                "method": method,
                "coverage": 1 - low - high,
                "truth_below": low,
                "truth_above": high,
                "mean_width": width,
                "simulations": len(rows),
            }


def simulate(
    rng: np.random.Generator,
    labels: np.ndarray,
    truth: dict[str, float],
    kind: tuple[float, ...],
    *,
    count: int,
    resamples: int,
) -> Iterator[dict[str, Any]]:
    """Draw ``count`` test sets of one kind: an AUROC of images, or contrast and spread of maps."""
    cell = Cell()
    one_out = 1 - np.eye(len(labels))
    for number in range(count):
        if len(kind) == 1:
            scores, drawn = image_scores(rng, kind[0], labels), np.zeros((len(labels), 1, 1))
            masks = np.zeros(drawn.shape, bool)
            counted = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
        else:
            drawn, masks = maps(rng, labels, *kind)
            scores = drawn.max(axis=(1, 2)).astype(float)
            counted = bootstrap.ImageCounts.from_scores(drawn, metrics.regions(masks), 1024)
        names = np.arange(len(labels)).astype(str)
        known = GroundTruth(names, labels, names, np.ones(len(labels), bool), masks)
        values = dict(zip(truth, counted.metrics(np.ones((1, len(labels))))[:, 0], strict=False))
        weights = bootstrap.draws(labels, resamples, number)
        resampled = dict(zip(truth, counted.metrics(weights), strict=False))
        left_out = dict(zip(truth, counted.metrics(one_out), strict=False))
        found = evaluate.intervals(values, resampled, scores, known, level=LEVEL)
        for metric, value in values.items():
            cell.add(metric, "indad", found[metric], truth[metric])
            plain = plain_intervals(value, resampled[metric], left_out[metric], labels)
            for method, bounds in plain.items():
                cell.add(metric, method, bounds, truth[metric])
    yield from cell.summary()


def claims(
    rng: np.random.Generator, labels: np.ndarray, auroc: float, *, count: int, resamples: int
) -> Iterator[dict[str, Any]]:
    """Compare two equally good experiments, whose scores are correlated as on the same images."""
    claimed: dict[str, list[bool]] = {}
    names = np.arange(len(labels)).astype(str)
    for number in range(count):
        shared = rng.normal(size=len(labels))
        runs, rows = [], []
        for experiment in "ab":
            own = (shared + rng.normal(size=len(labels))) / np.sqrt(2)
            scores = own + labels * ndtri(auroc) * np.sqrt(2)
            counted = bootstrap.ImageCounts.from_scores(scores, labels.astype(np.int32))
            drawn = counted.metrics(bootstrap.draws(labels, resamples, number))
            resampled = dict(zip(metrics.IMAGE_METRICS, drawn, strict=False))
            runs.append(Resamples("", "", experiment, 0, names, labels, scores, resampled, 0, 0, 0))
            values = metrics.image_metrics(labels, scores)
            rows.append(evaluate.tidy(values, experiment=experiment, seed=0))
        table = comparison.within(runs, pd.concat(rows), ["a", "b"], level=LEVEL)
        for row in table.itertuples():
            claimed.setdefault(row.metric, []).append(row.p < 1 - LEVEL)
    for metric, rejected in claimed.items():
        yield {
            "metric": metric,
            "method": "difference claimed",
            "coverage": 1 - np.mean(rejected),
            "simulations": count,
        }


def study(
    sizes: tuple[tuple[int, int], ...], images: int, pixels: int, resamples: int
) -> pd.DataFrame:
    """Run all simulations: a row for each metric, size, true AUROC or contrast, and method."""
    rows = []
    large = np.repeat([0, 1], 10_000)
    for number, (contrast, spread) in enumerate(CONTRASTS):
        # The truth: of so many images that chance is far below an interval's width.
        big = maps(np.random.default_rng([1, number]), large, contrast, spread)
        for good, defective in sizes:
            labels = np.repeat([0, 1], [good, defective])
            share = np.r_[0 : 10_000 * good // max(good, defective)]
            bad = np.r_[10_000 : 10_000 + 10_000 * defective // max(good, defective)]
            chosen = np.r_[share, bad]
            truth = metrics.pixel_metrics(big[0][chosen], big[1][chosen])
            rng = np.random.default_rng([2, number, good, defective])
            kind = (contrast, spread)
            found = simulate(rng, labels, truth, kind, count=pixels, resamples=resamples)
            keys = {"n_good": good, "n_defective": defective, "case": truth["pixel_auroc"]}
            rows += [keys | row | {"truth": truth[row["metric"]]} for row in found]
            print(f"maps, contrast {contrast}, {good} + {defective} images", file=sys.stderr)
    for auroc in AUROCS:
        for good, defective in sizes:
            labels = np.repeat([0, 1], [good, defective])
            truth = image_truth(auroc, good, defective)
            rng = np.random.default_rng([3, int(auroc * 10_000), good, defective])
            found = simulate(rng, labels, truth, (auroc,), count=images, resamples=resamples)
            keys = {"n_good": good, "n_defective": defective, "case": auroc}
            rows += [keys | row | {"truth": truth[row["metric"]]} for row in found]
            equal = claims(rng, labels, auroc, count=images // 2, resamples=resamples)
            rows += [keys | row | {"truth": truth[row["metric"]]} for row in equal]
            print(f"scores, AUROC {auroc}, {good} + {defective} images", file=sys.stderr)
    columns = [
        "metric", "n_good", "n_defective", "case", "truth", "method", "coverage", "truth_below",
        "truth_above", "mean_width", "simulations",
    ]  # fmt: skip
    return pd.DataFrame(rows)[columns]


def page(table: pd.DataFrame) -> str:
    """Return the study as markdown."""
    parts = [
        "# How far the intervals can be trusted",
        "Share of simulated test sets whose nominal 95 % interval holds the true value, in "
        "percent, and in brackets the mean width of the interval in percentage points. Made "
        "by `python scripts/dev/coverage.py`, which says how; all figures: "
        "[coverage.csv](coverage.csv).",
    ]
    own = table[table["method"] == "indad"]
    for group, case in ((metrics.IMAGE_METRICS, "AUROC"), (metrics.PIXEL_METRICS, "pixel AUROC")):
        rows = own[own["metric"].isin(group)]
        cases = sorted(rows["case"].unique())
        # A contrast's pixel AUROC differs in the last digits with the share of good images.
        labels = dict.fromkeys(f"{100 * each:.4g}" for each in _merge(cases))
        body = []
        for (metric, good, defective), cell in rows.groupby(
            ["metric", "n_good", "n_defective"], sort=False
        ):
            shown = cell.sort_values("case")
            values = [
                f"{100 * r.coverage:.0f} ({100 * r.mean_width:.1f})" for r in shown.itertuples()
            ]
            body.append([TITLES[metric], f"{good} / {defective}", *values])
        body.sort(key=lambda line: list(TITLES.values()).index(line[0]))
        headers = ["metric", "good / defective", *(f"true {case} {each}" for each in labels)]
        parts.append(_table(body, headers))
    parts.append(
        "Intervals of image metrics err on the wide side. Those of pixel AUROC and AUPRO are too "
        "narrow where few images are tested and nearly all defects are found: a defect that is "
        "missed counts for most of the loss, and a small test set holds none of that kind."
    )
    parts.append(
        "## Beside a plain bootstrap\n\nMean over all cases, and the worst case. A percentile or "
        "BCa interval of perfect scores has no width, so it misses every true value below 100 %: "
        "the closer to perfect, the more often."
    )
    methods = table[table["method"].isin(["indad", "percentile", "BCa"])]
    pivot = methods.pivot_table(
        index="metric", columns="method", values="coverage", aggfunc=["mean", "min"]
    )
    body = [
        [
            TITLES[metric],
            *(
                f"{100 * pivot.loc[metric, ('mean', m)]:.0f} "
                f"(worst {100 * pivot.loc[metric, ('min', m)]:.0f})"
                for m in ("indad", "BCa", "percentile")
            ),
        ]
        for metric in TITLES
    ]
    parts.append(_table(body, ["metric", "indad", "BCa", "percentile"]))
    parts.append(
        "## Differences claimed between equals\n\nTwo experiments of the same true quality, scores "
        "correlated at 0.5: share of test sets on which p < 0.05, in percent, nominally 5."
    )
    equal = table[table["method"] == "difference claimed"]
    body = []
    for (metric, good, defective), cell in equal.groupby(
        ["metric", "n_good", "n_defective"], sort=False
    ):
        shown = cell.sort_values("case")["coverage"]
        body.append(
            [TITLES[metric], f"{good} / {defective}", *(f"{100 * (1 - c):.0f}" for c in shown)]
        )
    body.sort(key=lambda line: list(TITLES.values()).index(line[0]))
    headers = [f"true AUROC {100 * each:.4g}" for each in sorted(equal["case"].unique())]
    parts.append(_table(body, ["metric", "good / defective", *headers]))
    counts = table.groupby("method")["simulations"]
    parts.append(
        f"{counts.max()['indad']} simulated test sets a cell for images, "
        f"{counts.min()['indad']} for maps, {counts.max()['difference claimed']} for differences."
    )
    return "\n\n".join(parts) + "\n"


def _merge(cases: list[float]) -> list[float]:
    """Take cases that differ by less than a hundredth as one."""
    merged: list[float] = []
    for each in cases:
        if not merged or each - merged[-1] > (0.01 if each < 0.99 else 0.002):
            merged.append(each)
    return merged


def _table(body: list[list[str]], headers: list[str]) -> str:
    return tabulate(
        body,
        headers,
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * (len(headers) - 2)),
    )


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--small", action="store_true", help="a quick look: fewer simulations")
    parse.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent.parent.parent / "docs/coverage",
        help="where to write, without a suffix (default: docs/coverage)",
    )
    given = parse.parse_args()
    settings = (SIZES[1:3], 40, 10, 200) if given.small else (SIZES, 400, 120, 300)
    table = study(*settings)
    with atomic.replacing(given.output.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    rounded = pd.read_csv(given.output.with_suffix(".csv"))  # so that the page is the file's
    atomic.write_text(given.output.with_suffix(".md"), page(rounded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
