"""The largest differences between the results of two runs, such as one on a CPU and one on a GPU.

    python scripts/dev/compare_results.py results/cpu results/gpu --names "a CPU" "a GPU"

Both folders are results of the same configuration. Writes a Markdown page: for each category and
experiment, the largest difference of a metric over seeds and metrics, and of an image score.
"""

import argparse
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from indad.core import atomic

KEY = ["dataset", "category", "experiment"]
PAGE = """# The same results on another device

The largest differences between {names[0]} and {names[1]}: of all metrics, which are
between 0 and 1, over all seeds; and of the scores of test images, relative to the score. A dash
means that the scores were not kept.

{table}

Made by `python scripts/dev/compare_results.py`.
"""


def metric_differences(first: Path, second: Path) -> pd.DataFrame:
    """Return the absolute difference of each metric that both runs have, and its experiment."""
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (first, second)]
    both = pd.merge(*tables, on=[*KEY, "seed", "metric"], validate="one_to_one")
    return both.assign(difference=(both["value_x"] - both["value_y"]).abs())


def score_difference(first: Path, second: Path, experiment: tuple[str, ...]) -> str:
    """Return the largest relative difference of an image score; "–" without scores."""
    largest = []
    for path in sorted((second / "scores").joinpath(*experiment).glob("seed*/scores.csv")):
        other = first / path.relative_to(second)
        both = pd.merge(pd.read_csv(other), pd.read_csv(path), on="image", validate="one_to_one")
        largest.append(((both["score_x"] - both["score_y"]).abs() / both["score_x"].abs()).max())
    return f"{max(largest):.0e}" if largest else "–"


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parse.add_argument("first", type=Path, help="results folder")
    parse.add_argument("second", type=Path, help="results folder of the same configuration")
    parse.add_argument("--names", nargs=2, default=["the first run", "the second run"])
    parse.add_argument("--output", type=Path, default=Path("docs/devices.md"))
    given = parse.parse_args()
    found = metric_differences(given.first, given.second)
    rows = [
        [
            *(*experiment, len(rows), f"{rows['difference'].max():.0e}"),
            score_difference(given.first, given.second, experiment),
        ]
        for experiment, rows in found.groupby(KEY)
    ]
    headers = [*KEY, "values", "metrics differ by", "scores differ by"]
    table = tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True)
    atomic.write_text(given.output, PAGE.format(names=given.names, table=table))


if __name__ == "__main__":
    main()
