"""Draw the curves of one category, its scores and its AUROC by kind of defect."""

from pathlib import Path

from indad.core.csv_files import write_csv
from indad.data import manifest
from indad.evaluation import scores
from indad.pipeline.job import Job, run
from indad.reporting import curve_figures, defect_figures, style


def main(job: Job) -> None:
    rows = manifest.read(Path(job.input.manifest))
    names, tables, by_pixel = list(job.params.experiments), [], []
    for paths in zip(job.input.tables, job.input.maps, job.input.pixels, strict=True):
        scored, truth = scores.read_with_truth(scores.ScoreFiles(*map(Path, paths)), rows)
        tables.append(scored.table)
        by_pixel.append(curve_figures.pixel_curve(scored.maps, truth))
    at = job.wildcards
    title = style.category_title(at.dataset, at.category, job.params.remark)
    curve_figures.draw_curves(names, tables, by_pixel, Path(job.output.curves), title=title)
    defect_figures.draw_scores(names, tables, Path(job.output.scores), title=title)
    defects = defect_figures.defect_table(names, tables)
    defect_figures.draw_defects(defects, Path(job.output.defects), title=title)
    write_csv(defects, Path(job.output.table))


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
