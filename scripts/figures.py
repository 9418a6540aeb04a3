"""Draw the curves of one category, its scores and its AUROC by kind of defect."""

from pathlib import Path

from indad.core import atomic
from indad.data import manifest
from indad.pipeline.job import Job, run
from indad.reporting import figures


def main(job: Job) -> None:
    rows = manifest.read(Path(job.input.manifest))
    measured = [
        figures.measure(name, Path(table), Path(maps), Path(pixels), rows)
        for name, table, maps, pixels in zip(
            job.params.experiments, job.input.tables, job.input.maps, job.input.pixels, strict=True
        )
    ]
    title = f"{job.wildcards.dataset} / {job.wildcards.category}"
    if job.params.remark:
        title += f" ({job.params.remark})"
    figures.draw_curves(measured, Path(job.output.curves), title=title)
    figures.draw_scores(measured, Path(job.output.scores), title=title)
    defects = figures.defect_table(measured)
    figures.draw_defects(defects, Path(job.output.defects), title=title)
    with atomic.replacing(job.output.table) as temporary:
        defects.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


if __name__ == "__main__":
    run(main, globals().get("snakemake"))
