"""What large runs cost before they are run: planning, asked memory, extrapolated time and disk.

    python scripts/dev/scale.py                       docs/scale.md: planning and 100,000 images
    python scripts/dev/scale.py --asked results ...   docs/resources.md: asked beside measured

Planning is measured on this machine, by dry runs of configurations made here. The extrapolation
takes the slopes of docs/scaling.csv (``scripts/dev/scaling.py``).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from indad.core import atomic
from indad.data.images import Geometry
from indad.pipeline import resources
from indad.pipeline.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
CATEGORIES, BACKBONES, EXPERIMENTS, SEEDS = 15, 20, 10, 5
IMAGES, TEST = 100_000, 10_000
#: Seconds on these CPU cores that one second on a GPU is taken for: stated, not measured.
GPU_SPEED = 50


# -- planning ------------------------------------------------------------------------------------


def large_config(backbones: int, experiments: int, seeds: int) -> dict[str, Any]:
    """Return a configuration of so many backbones with so many experiments each on MVTec AD."""
    methods: list[dict[str, Any]] = [
        *({"method": "patchcore", "coreset_ratio": ratio} for ratio in (0.25, 0.1, 0.01)),
        *({"method": "padim", "dimensions": dimensions} for dimensions in (100, 200, 300)),
        *({"method": "spade", "k_image": k} for k in (5, 50)),
        *({"method": "patchcore", "embedding": "concat", "coreset_ratio": r} for r in (0.1, 0.01)),
    ]
    network = {"backbone": "resnet18.tv_in1k", "weights": "random"}
    network["layers"] = ["layer1", "layer2", "layer3"]
    made = {
        f"m{j}-b{i}": methods[j % len(methods)] | {"extractor": f"b{i}"}
        for i in range(backbones)
        for j in range(experiments)
    }
    return {
        "run": {
            "datasets": ["mvtec_ad"],
            "experiments": list(made),
            "seeds": list(range(seeds)),
        },
        "extractors": {f"b{i}": network for i in range(backbones)},
        "experiments": made,
    }


def snakemake(folder: Path, config: dict[str, Any], *arguments: str) -> dict[str, Any]:
    """Run Snakemake in ``folder``; return its output, jobs, seconds and peak memory."""
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile")]
    command += ["--directory", str(folder), "--cores", "1", "--nocolor"]
    command += ["--configfile", str(ROOT / "config/config.yaml"), str(file), *arguments]
    # A process of its own, whose children's memory and time are this command's.
    child = f"""if True:
        import json, resource, subprocess, sys, time
        started = time.perf_counter()
        done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(json.dumps({{
            "code": done.returncode, "output": done.stdout + done.stderr,
            "seconds": time.perf_counter() - started, "cpu": used.ru_utime + used.ru_stime,
            "mb": used.ru_maxrss / {1024 if sys.platform == "linux" else 1 << 20},
        }}))"""
    done = subprocess.run([sys.executable, "-c", child, *command], capture_output=True, text=True)
    result = json.loads(done.stdout)
    if result["code"]:
        raise SystemExit(f"snakemake {' '.join(arguments)}: failed\n{result['output'][-3000:]}")
    return result | {"jobs": sum(job_counts(result["output"]).values())}


def job_counts(output: str) -> dict[str, int]:
    """Read the table of jobs that Snakemake prints."""
    lines = output.partition("Job stats:")[2].splitlines()
    rows = [line.split() for line in lines[3:]]
    ends = next((i for i, row in enumerate(rows) if not row or row[0] == "total"), 0)
    return {rule: int(count) for rule, count in rows[:ends]}


def planning(sizes: list[tuple[int, int, int]]) -> Iterator[dict[str, Any]]:
    """Measure dry runs of growing configurations."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            made = snakemake(Path(folder), large_config(*size), "-n", "--quiet", "rules", "host")
        backbones, experiments, seeds = size
        yield {
            "what": f"{CATEGORIES} x {backbones} x {experiments} x {seeds}, nothing made yet",
        } | made


def finished_run(config: dict[str, Any], what: str) -> dict[str, Any]:
    """Measure a run that finds everything made: empty products, taken for finished ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = snakemake(folder, config, "--summary")["output"].splitlines()
        table = csv.DictReader(
            listed[next(i for i, line in enumerate(listed) if line.startswith("output_file")) :],
            delimiter="\t",
        )
        for row in table:
            path = folder / (row["output_file"] or "")
            if path.suffix:  # folders have none
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True, exist_ok=True)
        touched = snakemake(folder, config, "--touch")
        done = snakemake(folder, config)
        if "Nothing to be done" not in done["output"]:
            raise SystemExit(f"not a finished run\n{done['output'][-3000:]}")
        return {"what": what} | done | {"jobs": touched["jobs"]}


def plan_table(rows: list[dict[str, Any]]) -> str:
    """Return the planning measurements as Markdown."""
    cells = [
        [
            row["what"],
            f"{row['jobs']:,}",
            f"{row['cpu']:.1f}",
            f"{row['mb']:,.0f}",
        ]
        for row in rows
    ]
    header = [
        "categories x backbones x experiments x seeds",
        "jobs",
        "CPU seconds",
        "peak MB",
    ]
    return tabulate(cells, header, tablefmt="github", disable_numparse=True)


# -- 100,000 images ------------------------------------------------------------------------------


def extrapolated(file: Path) -> str:
    """Extend the measured slopes to ``IMAGES`` training and ``TEST`` test images, as Markdown."""
    with file.open(encoding="utf-8", newline="") as text:
        rows = [
            {**row, "images": int(row["images"]), "seconds": float(row["seconds"])}
            for row in csv.DictReader(text)
            if row["side"] == "224"
        ]
    cells = []
    for stage in dict.fromkeys(row["stage"] for row in rows):
        points = [(row["images"], row["seconds"]) for row in rows if row["stage"] == stage]
        (n0, t0), (n1, t1) = points[-2:]
        if stage.startswith("score"):
            # Measured on 16 test images; the search in PatchCore's bank grows with it too.
            grows = IMAGES / n1 if "PatchCore" in stage else 1
            seconds, how = (
                t1 / 16 * TEST * grows,
                "per test image" + (", times the bank" if grows > 1 else ""),
            )
        elif "PatchCore" in stage:
            seconds, how = t1 * (IMAGES / n1) ** 2, "quadratic"
        else:
            seconds = t1 + max(0.0, (t1 - t0) / (n1 - n0)) * (IMAGES - n1)
            how = "linear"
        cells.append(
            [
                stage,
                how,
                f"{t1:g} at {n1:,}",
                f"{seconds / 3600:,.1f}",
                f"{seconds / 3600 / GPU_SPEED:,.2f}" if stage != "decode" else "-",
            ]
        )
    header = [
        "stage",
        "growth",
        "measured seconds",
        "CPU hours",
        f"GPU hours, if {GPU_SPEED} times as fast",
    ]
    return tabulate(cells, header, tablefmt="github", disable_numparse=True)


#: ``(C, h, w)`` of the tapped layers for 224 x 224 pixels, and the embedding's length.
NETWORKS: dict[str, tuple[dict[str, tuple[int, int, int]], int]] = {
    "ResNet-18": ({"1": (64, 56, 56), "2": (128, 28, 28), "3": (256, 14, 14)}, 512),
    "Wide ResNet-50-2": ({"1": (256, 56, 56), "2": (512, 28, 28), "3": (1024, 14, 14)}, 2048),
}


def large_store() -> str:
    """Return disk and asked memory for ``IMAGES`` images, as Markdown."""
    cells = []
    for name, (layers, embedding) in NETWORKS.items():
        features = resources.Features(IMAGES, TEST, layers, embedding, (224, 224))
        bytes_each = 4 * (sum(map(math.prod, layers.values())) + embedding)
        dimensions = 100 if name == "ResNet-18" else 550
        common: dict[str, Any] = {"layers": None}
        padim = common | {"dimensions": dimensions}
        patchcore = {
            "layers": ["2", "3"],
            "embedding": "official",
            "coreset_ratio": 0.01,
            "projection": 128,
        }
        spade = common | {"k_pixel": 50}
        asked = [
            resources.fit("padim", padim, features, gpu=False, threads=8).mem_mb,
            resources.fit("patchcore", patchcore, features, gpu=False, threads=8).mem_mb,
            *(
                resources.score(
                    method, values, features, memory_mb=1024, gpu=False, threads=8
                ).mem_mb
                for method, values in (
                    ("spade", spade),
                    ("padim", padim),
                    ("patchcore", patchcore),
                )
            ),
            resources.evaluate(
                resources.Images(IMAGES, TEST, *features.input_size), features.input_size
            ).mem_mb,
        ]
        cells.append(
            [
                name,
                f"{bytes_each * (IMAGES + TEST) / 1e12:.2f}",
                f"{bytes_each * (IMAGES + TEST) / 2e12:.2f}",
                *(f"{each / 1000:,.0f}" for each in asked),
            ]
        )
    header = ["network", "features, TB", "as float16", "fit PaDiM, GB", "fit PatchCore 1 %"]
    header += ["score SPADE", "score PaDiM", "score PatchCore", "evaluate"]
    return tabulate(cells, header, tablefmt="github", disable_numparse=True)


SCALE = """\
# Scale

Written by `python scripts/dev/scale.py` ({machine}).

## Planning

Dry runs of MVTec AD's {categories} categories with many backbones, and a run that finds the
standard configuration finished. CPU time of one process, since other work shared the cores: on an
idle core it is about the time. Small jobs travel in groups, so a cluster sees fewer than these.

{plan}

## {images:,} training and {test:,} test images in one category

Extended from `docs/scaling.csv`: ResNet-18, 224 x 224 pixels, on {machine_scaling}.
Beyond the images measured the growth is an assumption, and so is the GPU's speed.

{stages}

Disk for the features, and the memory that the jobs would ask for ([resources.md](resources.md)):

{store}

What this says: extraction and PaDiM grow with the images and stay small in memory; one feature file
of a ResNet-18 is large but serves, since all readers take it in pieces. Two things do not scale to
this size as they are: anomaly maps and masks of the test images are held whole by score and
evaluate, and PatchCore's greedy coreset is quadratic in the patches: divide the data into
categories, or use fewer patches, before that.
"""


# -- asked and measured --------------------------------------------------------------------------


def asked_of(results: Path, config: Config, path: Path, threads: int) -> resources.Needs | None:
    """Return what the job asks for whose run-time record is ``path``; None for a local rule."""
    rule, *names = path.relative_to(results / "benchmarks").with_suffix("").parts
    if len(names) < 2 or rule == "download":  # those on the head are of no category, but one
        return None
    dataset, category, *rest = names
    place = Path(dataset, category)
    images = resources.images_of(str(results / "manifests" / f"{place}.csv"))

    def features(extractor: str) -> resources.Features | None:
        return resources.features_of(str(results / "features" / place / f"{extractor}.h5"))

    if rule == "index":
        return resources.index()
    if rule == "decode":
        geometry = Geometry.from_config(**config.geometries[rest[0]])
        return resources.decode(images, geometry.output(images.height, images.width), threads)
    if rule == "figures":
        sizes = (
            Geometry.from_config(**each).output(images.height, images.width)
            for each in config.geometries.values()
        )
        return resources.figures(images, max(sizes), len(config.experiments))
    if rule == "pictures":
        return resources.pictures(len(config.experiments))
    if rule == "extract":
        settings = config.extractor(rest[0])
        geometry = Geometry.from_config(settings["resize"], settings["crop"])
        file = Path(settings["weights"] or "")
        return resources.extract(
            images,
            geometry.output(images.height, images.width),
            weights_mb=file.stat().st_size / 1e6 if file.is_file() else resources.WEIGHTS_MB,
            batch_size="auto",
            gpu=False,
            threads=threads,
        )
    if rule == "fit":
        model = config.models[rest[0]]
        found = features(model["extractor"])
        return resources.fit(
            model["method"], model["parameters"], found, gpu=False, threads=threads
        )
    experiment = config.experiments[rest[0]]
    found = features(experiment.extractor)
    if rule == "score":
        parameters = resources.score_parameters(
            experiment.parameters, config.models[experiment.model]["parameters"]
        )
        return resources.score(
            experiment.method, parameters, found, memory_mb=1024, gpu=False, threads=threads
        )
    assert rule == "evaluate"
    return resources.evaluate(images, found.input_size)


def asked_and_measured(results: Path, file: Path | None, threads: int) -> list[dict[str, Any]]:
    """Return, for each finished job, its asked and measured memory (MB) and time.

    Args:
        results: folder of the run.
        file: its configuration, merged over config/config.yaml.
        threads: cores that its heavy jobs had.
    """
    from snakemake.utils import validate

    from indad.pipeline.config_files import load_config

    settings = load_config(file)
    validate(settings, schema=str(ROOT / "workflow/schemas/config.schema.yaml"))
    config = Config(settings)
    rows = []
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        needs = asked_of(results, config, path, threads)
        if needs is None:
            continue
        with path.open(encoding="utf-8", newline="") as file:
            (record,) = csv.DictReader(file, delimiter="\t")
        rows.append(
            {
                "job": path.relative_to(results / "benchmarks").with_suffix("").as_posix(),
                "asked": needs.mem_mb,
                "measured": float(record["max_rss"]) + resources.SNAKEMAKE_MB,
                "minutes": needs.runtime,
                "seconds": float(record["s"]),
            }
        )
    return rows


ASKED = """\
# Memory and time asked for

Written by `python scripts/dev/scale.py --asked RESULTS --configfile FILE`. Measured is the peak of
the script's memory in a finished run (`{results}/benchmarks/`), with {snakemake} MB for the two
Snakemake processes that start it within a cluster's job. `scripts/indad/resources.py` has the
estimates; jobs killed for memory or time are tried again with twice as much.

{table}
"""


def write_asked(results: Path, file: Path | None, threads: int, output: Path) -> None:
    """Write the table of asked and measured memory of a finished run."""
    from indad.pipeline.config_files import load_config

    rows = asked_and_measured(results, file, threads)
    cells = [
        [
            row["job"],
            f"{row['asked']:,}",
            f"{row['measured']:,.0f}",
            f"{row['asked'] / row['measured']:.1f}",
            row["minutes"],
            f"{row['seconds'] / 60:.1f}",
        ]
        for row in rows
    ]
    header = ["job", "asked MB", "measured MB", "ratio", "asked minutes", "measured minutes"]
    atomic.write_text(
        output,
        ASKED.format(
            results=load_config(file)["results"],
            snakemake=resources.SNAKEMAKE_MB,
            table=tabulate(cells, header, tablefmt="github", disable_numparse=True),
        ),
    )


def machine_of(file: Path) -> str:
    """Return the machine that docs/scaling.csv was measured on."""
    with file.open(encoding="utf-8", newline="") as text:
        return next(csv.DictReader(text))["machine"]


def write_scale(scaling: Path, output: Path, sizes: list[tuple[int, int, int]]) -> None:
    """Write the page on planning and 100,000 images."""
    from benchmark import machine

    rows = list(planning(sizes))
    rows.append(
        finished_run({}, f"{CATEGORIES} x 1 x 5 x 1, the standard configuration, all made before")
    )
    atomic.write_text(
        output,
        SCALE.format(
            machine=machine(),
            categories=CATEGORIES,
            plan=plan_table(rows),
            images=IMAGES,
            test=TEST,
            machine_scaling=machine_of(scaling),
            stages=extrapolated(scaling),
            store=large_store(),
        ),
    )


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--asked", type=Path, metavar="RESULTS", help="folder of a finished run")
    parse.add_argument("--configfile", type=Path, metavar="FILE", help="of that run")
    parse.add_argument("--threads", type=int, default=2, help="of that run")
    parse.add_argument("--small", action="store_true", help="plan few jobs only")
    parse.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR")
    given = parse.parse_args()
    if given.asked:
        write_asked(given.asked, given.configfile, given.threads, given.docs / "resources.md")
        return
    sizes = [(1, 2, 1)]
    if not given.small:
        sizes = [(8, 10, 5), (BACKBONES, EXPERIMENTS, SEEDS)]
    write_scale(ROOT / "docs/scaling.csv", given.docs / "scale.md", sizes)


if __name__ == "__main__":
    main()
