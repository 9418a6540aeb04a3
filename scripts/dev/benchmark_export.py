"""Exported models beside the models they were made from: scores, verdicts, time and size.

    python scripts/dev/benchmark_export.py RESULTS [--category C ...] [--experiment E ...]

Exports models of a finished run and scores all test images with the model, with onnxruntime and
with OpenVINO. anomalib's models of the same size are exported by anomalib and compared with
themselves. OpenVINO and anomalib take part if they are installed. Every contender gets one image
at a time on one thread, and times are processor time, which hardly depends on what else the
machine computes. Writes the table of ``docs/deployment.md``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import ROOT, machine
from tabulate import tabulate

from indad import load_model
from indad.data.images import decode, to_rgb
from indad.inference.export import export, images_of_run, open_session
from indad.inference.model import Model
from indad.methods.padim import PaDiM
from indad.reporting import readme

EXPERIMENTS = ("PaDiM-R18-100", "PatchCore-R18-1", "PatchCore-R18-10", "PatchCore-ViT-10")
HEADERS = (
    "model", "category", "by", "MB", "ms per image",
    "scores differ by", "maps differ by", "other verdicts",
)  # fmt: skip


class Answer(NamedTuple):
    """The score, the anomaly map and the verdict of one image."""

    score: float
    map: np.ndarray
    anomalous: bool | None


class Contender(NamedTuple):
    """A way to score an image, uint8 ``(h, w, 3)``, and the files that it needs."""

    name: str
    score: Callable[[np.ndarray], Answer]
    files: Sequence[Path] = ()


# -- contenders -----------------------------------------------------------------------------------


def with_indad(model: Model) -> Contender:
    """The model as Python loads it."""

    def score(pixels: np.ndarray) -> Answer:
        result = model.predict(pixels)
        return Answer(result.score, result.map, result.anomalous)

    return Contender("indad", score, [model.path])


def with_onnxruntime(file: Path) -> Contender:
    """The exported file in onnxruntime."""
    session = open_session(file)

    def score(pixels: np.ndarray) -> Answer:
        score, values, anomalous, _ = session.run(None, {"images": pixels[None]})
        return Answer(float(score[0]), values[0], bool(anomalous[0]))

    return Contender("ONNX, onnxruntime", score, [file])


def with_openvino(file: Path) -> Contender:
    """The exported file in OpenVINO."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(file, "CPU", settings)

    def score(pixels: np.ndarray) -> Answer:
        found = compiled({"images": pixels[None]})
        return Answer(float(found["score"][0]), found["map"][0].copy(), bool(found["anomalous"][0]))

    return Contender("ONNX, OpenVINO", score, [file])


def with_anomalib(model: Model, train: Sequence[Path], folder: Path) -> list[Contender]:
    """anomalib's model with the same backbone and as many parameters, and its exported file.

    PaDiM is fitted on the same images. PatchCore gets the same memory bank.
    """
    from anomalib.models import Padim, Patchcore

    made, detector = model.detector.made_with_, model.detector
    options = {"backbone": "resnet18", "pre_trained": False, "visualizer": False}
    size = (made["resize"],) * 2
    if isinstance(detector, PaDiM):
        options |= {"layers": list(detector.layers_), "n_features": detector.dimensions}
        theirs = Padim(**options, pre_processor=Padim.configure_pre_processor(size))
    else:
        options |= {"layers": list(detector.layers_)}
        theirs = Patchcore(**options, pre_processor=Patchcore.configure_pre_processor(size))
        theirs.model.memory_bank = detector.bank_in_use
    weights = torch.load(made["weights_source"].removeprefix("file "), weights_only=True)
    network = theirs.model.feature_extractor.feature_extractor
    missing = network.load_state_dict(weights, strict=False).missing_keys
    assert not missing, missing

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255

    if isinstance(detector, PaDiM):
        theirs.model.train()
        for path in train:
            theirs.model(theirs.pre_processor(tensor(read(path))))
        theirs.fit()
    theirs.eval()
    # With the default axes, the batch of the file is that of the example, two images.
    file = theirs.to_onnx(folder, input_size=size, dynamic_axes={})
    session = open_session(file)
    names = [each.name for each in session.get_outputs()]

    def score(pixels: np.ndarray) -> Answer:
        with torch.no_grad():
            found = theirs(tensor(pixels))
        return Answer(float(found.pred_score), found.anomaly_map.numpy(), None)

    def exported(pixels: np.ndarray) -> Answer:
        values = session.run(None, {"input": tensor(pixels).numpy()})
        found = dict(zip(names, values, strict=True))
        return Answer(float(found["pred_score"].item()), found["anomaly_map"], None)

    files = list(file.parent.iterdir())
    return [
        Contender("anomalib", score),
        Contender("anomalib's ONNX, onnxruntime", exported, files),
    ]


# -- measurement ----------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    """Decode an image to RGB, as the workflow does."""
    return np.asarray(to_rgb(decode(path)))


def compare(contenders: Sequence[Contender], images: Sequence[Path]) -> list[list[str]]:
    """Score images with all contenders in turn; return the cells of their rows.

    Differences are those from the first contender: of scores relative to its score, of maps
    relative to the highest value of its map.
    """
    answers: list[list[Answer]] = [[] for _ in contenders]
    seconds: list[list[float]] = [[] for _ in contenders]
    for path in images:
        pixels = read(path)
        for number, contender in enumerate(contenders):
            started = time.process_time()
            answers[number].append(contender.score(pixels))
            seconds[number].append(time.process_time() - started)
    rows = []
    for number, contender in enumerate(contenders):
        size = sum(file.stat().st_size for file in contender.files)
        cells = [contender.name, f"{size / 1e6:.0f}" if size else ""]
        cells.append(f"{1000 * statistics.median(seconds[number]):.0f}")
        if number:
            pairs = list(zip(answers[0], answers[number], strict=True))
            scores = max(abs(b.score - a.score) / abs(a.score) for a, b in pairs)
            maps = max(np.abs(b.map - a.map).max() / np.abs(a.map).max() for a, b in pairs)
            flipped = str(sum(a.anomalous != b.anomalous for a, b in pairs))
            known = pairs[0][0].anomalous is not None
            cells += [f"{scores:.0e}", f"{maps:.0e}", f"{flipped} of {len(pairs)}" if known else ""]
        rows.append(cells)
    return rows


def measure(folder: Path, anomalib: bool) -> list[list[str]]:
    """Export the model of an experiment's scores; return the rows of all contenders."""
    model = load_model(folder, device="cpu")
    images = images_of_run(model.path)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "model.onnx")
        export(model, file, images[:1])
        contenders = [with_indad(model), with_onnxruntime(file)]
        if find_spec("openvino"):
            contenders.append(with_openvino(file))
        rows = compare(contenders, images)
        if anomalib and model.detector.made_with_["backbone"].startswith("resnet18"):
            train = sorted(images[0].parents[2].glob("train/good/*"))
            rows += compare(with_anomalib(model, train, Path(scratch, "anomalib")), images)
    return rows


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("results", type=Path, help="results folder of a finished run")
    parse.add_argument("--dataset", default="mvtec")
    parse.add_argument("--category", nargs="+", default=["bottle", "capsule"])
    parse.add_argument("--experiment", nargs="+", default=list(EXPERIMENTS))
    parse.add_argument("--anomalib", action=argparse.BooleanOptionalAction, default=True)
    parse.add_argument("--page", type=Path, default=ROOT / "docs/deployment.md")
    given = parse.parse_args()
    torch.set_num_threads(1)
    table = []
    for experiment in given.experiment:
        for category in given.category:
            folder = given.results / "scores" / given.dataset / category / experiment / "seed0"
            for cells in measure(folder, bool(given.anomalib and find_spec("anomalib"))):
                table.append([experiment, category, *cells])
                print(*table[-1], sep="\t", flush=True)
    text = tabulate(table, HEADERS, "pipe", disable_numparse=True)
    readme.update(given.page, "exports", f"{text}\n\nOn {machine()}.")


if __name__ == "__main__":
    main()
