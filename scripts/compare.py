"""Compare the experiments on the same test images, and rank them over categories."""

from collections import defaultdict
from pathlib import Path

import pandas as pd

from indad.core import atomic
from indad.core.csv_files import write_csv
from indad.evaluation import comparison, evaluate, resamples
from indad.evaluation.metrics import EXTRA_METRICS
from indad.pipeline.job import Job, run
from indad.reporting import comparisons_document, diagrams, tables


def main(job: Job) -> None:
    # What is not defined, where all test images are of one kind, cannot be compared.
    metrics = evaluate.read([Path(job.input.metrics)]).dropna(subset="value")
    metrics = metrics[~metrics["metric"].isin(EXTRA_METRICS)]
    experiments, level = (job.params.settings[key] for key in ("experiments", "level"))
    runs = defaultdict(list)
    for path in job.input.resamples:
        run = resamples.read(Path(path))
        runs[run.dataset, run.category].append(run)
    parts, totals = [], {}
    for (dataset, category), group in runs.items():
        own = tables.select(metrics, dataset=dataset, category=category)
        parts.append(comparison.within(group, own, experiments, level=level))
        good, defective = totals.get(dataset, (0, 0))
        bad = int(group[0].label.sum())
        totals[dataset] = (good + len(group[0].label) - bad, defective + bad)
    within = _concat(parts)
    averages = comparison.averages(within, level=level)
    over = comparison.over(metrics, totals, experiments, level=level)
    pairs = _concat([within, averages, over])
    ranked = comparison.ranks(metrics, experiments, level=level)
    write_csv(pairs, Path(job.output.comparisons))
    write_csv(ranked, Path(job.output.ranks))

    with atomic.replacing(job.output.figures) as folder:
        folder.mkdir()
        shown = ranked[ranked["metric"].isin(tables.SUMMARY) & (ranked["friedman_p"] < 1 - level)]
        for (dataset, metric), rows in shown.groupby(["dataset", "metric"], sort=False):
            diagrams.critical_difference(
                rows,
                folder / f"{dataset}_{metric}.png",
                title=f"{tables.TITLES[metric]}: {dataset}",
            )
    text = comparisons_document.document(
        metrics,
        pairs,
        ranked,
        experiments,
        level=level,
        figure="../figures/critical_difference/{dataset}_{metric}.png",
    )
    atomic.write_text(job.output.document, text)


def _concat(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if not part.empty]
    return pd.concat(filled, ignore_index=True) if filled else parts[-1]


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
