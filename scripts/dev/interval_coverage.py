"""How often intervals contain the true value, and tests find differences that are not there.

    python scripts/dev/interval_coverage.py            everything: about 20 minutes on one core
    python scripts/dev/interval_coverage.py --small    fewer simulations

Image scores are drawn from two normal distributions, or from two of Student's t with 3 degrees of
freedom, whose AUROC is known. Anomaly maps have 16 x 16 pixels of 128 levels: noise, a level of
each image, and one or two rectangular defects of random size and contrast in each defective image.
Their true metrics are those of a very large sample. The variants of the maps:

* ``normal``: normal noise; sides of defects are log-normal.
* ``heavy tails``: Student's t with 3 degrees of freedom instead of normal noise.
* ``correlated``: noise smoothed with a Gaussian (sigma 1.5 pixels).
* ``unequal kinds``: three in ten defects are large and faint, the others at most 3 x 3 pixels.

Intervals are computed by the code of the workflow. Averages are over independent categories of
different difficulty and size. Writes a CSV file and a Markdown page.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_comparisons import SCENARIOS, average_claims, claims, five_experiments, pair_tests
from simulated_intervals import averages, coverage, rate, test_sets
from simulated_sets import CONTRASTS, HEAVY, NORMAL, VARIANTS, Cell
from threadpoolctl import threadpool_limits

from indad.core import atomic
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from indad.reporting.markdown import markdown_table

TITLES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO",
    "aupro_05": "AUPRO-05",
}  # fmt: skip
#: Good and defective test images; the last three are MVTec AD's toothbrush, bottle and screw.
SIZES = ((2, 20), (3, 8), (12, 30), (20, 63), (41, 119))
AUROCS = (0.9, 0.97, 0.995)


def cells_of(sizes: Sequence[tuple[int, int]]) -> tuple[list[Cell], list[Cell]]:
    """Return the cells of image scores and those of maps."""
    images = [
        Cell(variant, auroc, *size)
        for variant, auroc, size in product((NORMAL, HEAVY), AUROCS, sizes)
        if size[0] > 2 and (variant == NORMAL or auroc == AUROCS[1])
    ]
    maps = [
        Cell(variant, contrast, *size)
        for variant, (contrast, _), size in product(VARIANTS, CONTRASTS, sizes)
        if variant == NORMAL or (contrast == CONTRASTS[1][0] and size[0] < 40)
    ]
    return images, maps


def study_coverage(pool: Executor, images: list[Cell], maps: list[Cell], **given: int) -> list:
    """Return the coverage of intervals in each cell, and of averages over cells."""
    rows: list[dict] = []
    for cells in (images, maps):
        found = list(pool.map(partial(test_sets, **given), cells))
        for cell, each in zip(cells, found, strict=True):
            rows += coverage(cell, each)
        rows += averages(large(cells, found), cells[0].metrics)
    return rows


def study_pairs(pool: Executor, images: list[Cell], maps: list[Cell], **given: int) -> list:
    """Return how often equal experiments are called different, in cells and by averages."""
    rows: list[dict] = []
    middle = [cell for cell in maps if cell.case == CONTRASTS[1][0] and 2 < cell.good < 40]
    for cells in (images, middle):
        found = list(pool.map(partial(pair_tests, **given), cells))
        for cell, each in zip(cells, found, strict=True):
            for metric, tests in each.items():
                keys = {"study": "claims", "metric": metric, **cell._asdict()}
                rows.append(keys | rate(claims(tests)))
        rows += average_claims(large(cells, found), cells[0].metrics)
    return rows


def study(
    *, sizes: Sequence[tuple[int, int]], runs: int, resamples: int, jobs: int = 1
) -> pd.DataFrame:
    """Simulate ``runs`` test sets in each cell, half as many pairs; one row for each rate."""
    cells = cells_of(sizes)
    # More threads than cores only wait for each other in products of small matrices.
    with ProcessPoolExecutor(jobs, initializer=threadpool_limits, initargs=(1,)) as pool:
        rows = study_coverage(pool, *cells, runs=runs, resamples=resamples)
        rows += study_pairs(pool, *cells, runs=runs // 2, resamples=resamples)
        for each in pool.map(partial(five_experiments, runs=runs), SCENARIOS):
            rows += each
    return pd.DataFrame(rows)


def large(cells: Sequence[Cell], found: Sequence[dict]) -> list[dict]:
    """Return what was found in all but the smallest test sets, in random order."""
    chosen = [each for cell, each in zip(cells, found, strict=True) if cell.good > 3]
    return [chosen[i] for i in np.random.default_rng(6).permutation(len(chosen))]


# -- the page -------------------------------------------------------------------------------------

#: The text of the page, with places for its tables.
TEXT = Path(__file__).with_suffix(".md")


def page(table: pd.DataFrame) -> str:
    """Return the study as Markdown."""
    studies = dict(iter(table.groupby("study", sort=False)))
    found, claimed = studies["coverage"], studies["claims"]
    ours = found[found["method"] == "indad"]
    return TEXT.read_text(encoding="utf-8").format(
        runs=f"{found['runs'].max():,}",
        claims_runs=f"{claimed['runs'].max():,}",
        images=by_size(ours[ours["metric"].isin(IMAGE_METRICS)], "AUROC"),
        pixels=by_size(ours[ours["metric"].isin(PIXEL_METRICS)], "contrast"),
        averages=by_categories(studies["average"], "metric"),
        bootstrap=bootstrap_table(found),
        best=by_categories(studies["best of five"], "variant"),
        image_claims=by_size(claimed[claimed["metric"].isin(IMAGE_METRICS)], "AUROC"),
        pixel_claims=by_size(claimed[claimed["metric"].isin(PIXEL_METRICS)], "contrast"),
        average_claims=by_categories(studies["average claims"], "metric"),
    )


def cells(rows: pd.DataFrame) -> list[str]:
    """Return rate, its error, and the mean width if there is one."""
    return [
        f"{100 * row.rate:.1f} ± {100 * row.error:.1f}"
        + (f" ({100 * row.width:.1f})" if pd.notna(row.width) else "")
        for row in rows.itertuples()
    ]


def by_size(rows: pd.DataFrame, case: str) -> str:
    """Return a table of rates: a row for each metric and case, a column for each size."""
    sizes = [f"{int(row.good)} / {int(row.defective)}" for row in rows.itertuples()]
    rows = rows.assign(cell=cells(rows), size=sizes)
    rows["metric"] = rows["metric"].map(TITLES)
    scale = 100 if case == "AUROC" else 1
    rows["case"] = [f"{scale * each:g}" for each in rows["case"]]
    keys = ["metric", "variant", "case"]
    wide = rows.pivot_table("cell", keys, "size", aggfunc="first", sort=False)
    wide = wide[sorted(wide, key=lambda size: [int(part) for part in size.split(" / ")])]
    return markdown(wide, ["metric", "noise and defects", case, *wide])


def by_categories(rows: pd.DataFrame, name: str) -> str:
    """Return a table of rates: a column for each number of categories."""
    rows = rows.assign(cell=cells(rows), name=rows[name].replace(TITLES))
    wide = rows.pivot_table("cell", "name", "case", aggfunc="first", sort=False)
    return markdown(wide, ["", *(f"{categories:g} categories" for categories in wide)])


def bootstrap_table(found: pd.DataFrame) -> str:
    """Return mean and worst coverage of our and of the percentile intervals."""
    rates = found.groupby(["metric", "method"], sort=False)["rate"].agg(["mean", "min"])
    body = {}
    for metric in rates.index.unique("metric"):
        both = [100 * rates.loc[metric, method] for method in ("indad", "percentile")]
        body[TITLES[metric]] = [f"{each['mean']:.1f} (worst {each['min']:.1f})" for each in both]
    return markdown(pd.DataFrame(body).T, ["metric", "indad", "percentile bootstrap"])


def markdown(table: pd.DataFrame, header: Sequence[str]) -> str:
    """Return a table with its index; what was not simulated is empty."""
    rows = table.fillna("").reset_index().to_numpy()
    return markdown_table(header, rows, left=range(len(header)))


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--small", action="store_true", help="fewer simulations")
    parse.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parse.add_argument(
        "--output", type=Path, default=Path("docs/coverage"), metavar="PREFIX",
        help="where to write, without suffix (default: %(default)s)",
    )  # fmt: skip
    given = parse.parse_args()
    if given.small:
        table = study(sizes=SIZES[2:3], runs=50, resamples=100, jobs=given.jobs)
    else:
        table = study(sizes=SIZES, runs=2000, resamples=100, jobs=given.jobs)
    file = given.output.with_suffix(".csv")
    with atomic.replacing(file) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4g", lineterminator="\n")
    # Read back, so that the page shows the rounded values of the file.
    atomic.write_text(given.output.with_suffix(".md"), page(pd.read_csv(file)))


if __name__ == "__main__":
    main()
