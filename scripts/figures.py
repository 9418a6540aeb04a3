"""Draw the curves of one category, its scores and its AUROC by kind of defect."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.evaluation import scores
from indad.pipeline.job import Job, run
from indad.reporting import curve_figures, defect_figures, style
from indad.reporting.curve_figures import DrawnCurve


def read(
    paths: Sequence[str], rows: pd.DataFrame, folder: Path, full: scores.FullSize | None
) -> tuple[pd.DataFrame, DrawnCurve | None]:
    """Return an experiment's image scores and the curve of its pixels."""
    scored, truth = scores.read_with_truth(scores.ScoreFiles(*map(Path, paths)), rows, full)
    return scored.table, curve_figures.pixel_curve(scored.maps, truth, folder)


def main(job: Job) -> None:
    rows = manifest.read(Path(job.input.manifest))
    settings = job.params.settings
    names = list(settings["models"])
    files = zip(job.input.tables, job.input.maps, job.input.pixels, strict=True)
    folder = Path(job.output.curves).parent
    full = [
        scores.FullSize.from_settings(job.params.folder, settings | geometry)
        for geometry in settings["geometries"]
    ]
    read_all = (read(paths, rows, folder, each) for paths, each in zip(files, full, strict=True))
    tables, by_pixel = zip(*read_all, strict=True)
    at = job.wildcards
    title = style.category_title(at.dataset, at.category, settings["remark"])
    curve_figures.draw_curves(names, tables, by_pixel, Path(job.output.curves), title=title)
    defect_figures.draw_scores(names, tables, Path(job.output.scores), title=title)
    defects = defect_figures.defect_table(names, tables)
    defect_figures.draw_defects(defects, Path(job.output.defects), title=title)
    write_csv(defects, Path(job.output.table))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
