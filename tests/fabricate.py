"""Made-up results of any size and with any names, to test the report."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from indad.core import checksum, provenance
from indad.core.csv_files import write_csv
from indad.evaluation import comparison
from indad.reporting import report, runtime, tables

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip
EXPERIMENTS = (
    "SPADE", "PaDiM", "PatchCore-25", "PatchCore-10", "PatchCore-1", "PaDiM-R18-100",
    "PatchCore-R18-concat", "SPADE-EfficientNet-Lite0", "PatchCore-ConvNeXt-tiny", "PaDiM-Lite0",
)  # fmt: skip
PICTURES = ("Typical images", "Clearest, hardest and wrong", "Curves", "Scores")
ODD = ('<script>alert("x")</script>', 'a & b\'s <i>"quoted"</i>', "Größe 5 µm, 猫", "NA")


def metrics(
    categories: Sequence[str],
    experiments: Sequence[str],
    *,
    dataset: str = "mvtec_ad",
    masks: bool = True,
    seeds: Sequence[int] = (0,),
) -> pd.DataFrame:
    """Tidy metrics of better and worse experiments on easy and hard categories."""
    rng = np.random.default_rng(0)
    hard = dict(zip(categories, rng.beta(1.2, 7, len(categories)), strict=True))
    rows = []
    for metric in tables.TITLES:
        if not masks and not metric.startswith("image"):
            continue
        for category, (number, experiment), of in itertools.product(
            categories, enumerate(experiments), seeds
        ):
            value = 1 - hard[category] * (1.1 - 0.09 * (number % 5)) * rng.uniform(0.75, 1.2)
            value = float(np.clip(value * (0.55 if metric == "pixel_ap" else 1), 0, 1))
            half = 0.02 + 0.3 * (1 - value)
            low, high = max(0, value - half), min(1, value + 0.6 * half)
            rows.append((dataset, category, experiment, of, metric, value, low, high))
    columns = ["dataset", "category", "experiment", "seed", "metric", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def picture(path: Path, size: tuple[int, int], rng: np.random.Generator) -> Path:
    """A picture that compresses about as well as a sheet of anomaly maps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 255, (size[1] // 24, size[0] // 24, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    image = image.filter(ImageFilter.GaussianBlur(2))
    draw = ImageDraw.Draw(image)
    for x in range(0, size[0], 150):
        draw.rectangle((x, 0, x + 6, size[1]), fill="white")
    draw.text((12, 12), "made up", fill="white")
    image.save(path)
    return path


def fabricate(
    folder: Path,
    categories: Sequence[str] = CATEGORIES,
    experiments: Sequence[str] = EXPERIMENTS[:8],
    *,
    dataset: str = "mvtec_ad",
    masks: bool = True,
    seeds: Sequence[int] = (0,),
    height: int = 1300,
) -> report.Sources:
    """Write products below ``folder``.

    Args:
        folder: of the results.
        categories, experiments, dataset, seeds: names of what was run.
        masks: whether there are pixel metrics.
        height: of the pictures.
    """
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    tidy = metrics(categories, experiments, dataset=dataset, masks=masks, seeds=seeds)
    layout = tables.Layout(
        list(experiments),
        groups={dataset: {"textures": ["carpet", "grid", "leather", "tile", "wood"]}},
        compared={dataset: "mvtec_ad"},
        published={name: name for name in experiments if name in EXPERIMENTS[:5]},
    )
    measured = tables.summarise(tidy, layout)
    found = []
    for metric in tables.TITLES:
        found.append(folder / f"tables/{metric}.csv")
        found[-1].parent.mkdir(exist_ok=True)
        write_csv(measured[measured["metric"] == metric], found[-1])
    settings = {
        name: {
            "method": name.split("-")[0].lower(),
            "backbone": "wide_resnet50_2.tv_in1k",
            "parameters": {"layers": ["layer1", "layer2"], "k": 5, "epsilon": None},
        }
        for name in experiments
    }
    shown = []
    pictures = {
        heading: picture(folder / f"pictures/{number}.png", (1200, height), rng)
        for number, heading in enumerate(PICTURES)
    }
    for i, name in enumerate(categories):
        place = folder / f"figures/{i}"
        place.mkdir(parents=True, exist_ok=True)
        kinds = ["scratch", "dent & <hole>", "missing_part"]
        by_defect = pd.DataFrame(
            [
                (experiment, kind, 10 + i, rng.uniform(0.8, 1), int(rng.integers(0, 4)))
                for experiment in experiments
                for kind in kinds
            ],
            columns=["experiment", "defect", "images", "image_auroc", "missed"],
        )
        write_csv(by_defect, place / "defects.csv")
        shown.append(report.Category(dataset, name, pictures, place / "defects.csv"))

    counted = pd.DataFrame(
        [
            (dataset, name, *part)
            for name in categories
            for part in (("train", "good", 209, 0), ("test", "good", 20, 0),
                         ("test", "scratch", 30, 30 * masks), ("test", "dent", 33, 33 * masks))
        ],
        columns=["dataset", "category", "split", "defect", "images", "masks"],
    )  # fmt: skip
    write_csv(counted, folder / "tables/images.csv")
    behind = [(dataset, name, 209, 20, 63, 63 * masks, 70 * masks) for name in categories]
    columns = ["n_train", "n_good", "n_defective", "n_masks", "n_regions"]
    write_csv(
        pd.DataFrame(behind, columns=["dataset", "category", *columns]), folder / "counts.csv"
    )
    main = tidy[tidy["metric"].isin(tables.SUMMARY)]
    wide = main.pivot_table("value", ["metric", "category"], "experiment", sort=False)
    within = []
    for (metric, category), row in wide.iterrows():
        for a, b in itertools.combinations(experiments, 2):
            d = row[a] - row[b]
            p = float(np.exp(-120 * abs(d)))
            within.append(
                (dataset, category, metric, a, b, d, d - 0.02, d + 0.02, p, min(1, 3 * p),
                 "DeLong" if metric == "image_auroc" else "paired bootstrap", 20, 63, np.nan,
                 0.01, np.inf)
            )  # fmt: skip
    pairs = pd.DataFrame(within, columns=list(comparison.COMPARISON_COLUMNS))
    averages = comparison.averages(pairs, level=0.95)
    over = comparison.over(main, {dataset: (300, 945)}, experiments, level=0.95)
    write_csv(pd.concat([pairs, averages, over]), folder / "comparisons.csv")
    ranked = comparison.ranks(main, experiments, level=0.95)
    write_csv(ranked, folder / "ranks.csv")
    diagrams = folder / "figures/critical_difference"
    if len(categories) >= comparison.FEWEST:
        for metric in tables.SUMMARY[: 3 if masks else 1]:
            picture(diagrams / f"{dataset}_{metric}.png", (1200, 300), rng)
    jobs = []
    for name in categories:
        jobs.append(("extract", dataset, name, "wrn50", None, 30, 28, 1800, 292, 26.1, None))
        for i, experiment in enumerate(experiments):
            jobs.append(
                ("fit", dataset, name, f"model-{experiment}", 0, 9, 8, 2200, 209, 5.5 + i, None)
            )
            jobs.append(
                ("score", dataset, name, experiment, 0, 6, 5, 900 + 100 * i, 83,
                 0.4 * 1.8**i, 12.5 * 2**i)
            )  # fmt: skip
    columns = [
        "stage", "dataset", "category", "name", "seed", "seconds", "cpu_seconds", "max_rss_mb",
        "images", "compute_seconds", "model_mb",
    ]  # fmt: skip
    times = pd.DataFrame(jobs, columns=columns).assign(cached=False)
    times = times.reindex(columns=list(runtime.COLUMNS))
    write_csv(times, folder / "runtime.csv")
    manifests = {f"manifests/{dataset}/{name}.csv": f"/data/{name}" for name in categories}
    made = {"device": "cpu", "hardware": "A processor <of> 2.8 GHz, 2 cores"}
    record = {
        "version": provenance.VERSION,
        "revision": "0123456789abcdef",
        "machine": made["hardware"],
        "platform": "Linux",
        "software": provenance.software(),
        "digests": dict.fromkeys(manifests, "sha256:0123456789abcdef"),
        "data": manifests,
        "weights": {"ab" * 32: {"backbone": "wide_resnet50_2.tv_in1k", "weights": None}},
        "runs": [{"made_with": {**made, "features_made_with": {"device": "cpu"}}}],
    }
    checksum.write_json(folder / "provenance.json", record)
    return report.Sources(
        metrics=found,
        categories=shown,
        experiments=settings,
        models={name: [f"model-{name}", "wrn50"] for name in experiments},
        notes={experiments[-1]: "random backbone weights, not pretrained"},
        config="run:\n  datasets: [" + dataset + "]\n",
        images=folder / "tables/images.csv",
        counts=folder / "counts.csv",
        comparisons=folder / "comparisons.csv",
        ranks=folder / "ranks.csv",
        diagrams=diagrams,
        runtime=folder / "runtime.csv",
        tradeoff=picture(folder / "figures/tradeoff.png", (1200, 600), rng),
        provenance=folder / "provenance.json",
        level=0.95,
    )
