"""Write a model as one ONNX file that takes decoded pixels, and check that it scores as the model.

onnx, onnxscript and onnxruntime are optional: ``pip install indad[export]``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indad import __version__, methods
from indad.core import atomic, provenance
from indad.core.errors import ConfigError, DataError, ExportError
from indad.core.progress import Progress, ignore
from indad.data import manifest
from indad.data.images import to_rgb
from indad.inference.loading import place_in_results
from indad.inference.model import Model
from indad.inference.photos import open_photo

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 20
#: Largest relative difference between the scores of the file and of the model.
TOLERANCE = 1e-4
#: Bytes that one ONNX file can hold, less room for the graph.
MOST_BYTES = (2 << 30) - (16 << 20)


@dataclass(frozen=True)
class Parity:
    """How an exported file compares with the model it was made from.

    Attributes:
        images: number of images compared.
        score: largest difference of an image's scores, relative to the model's.
        map: largest difference of map values, relative to the highest value of the image's map.
        seconds: median time of one image in the file, with onnxruntime on a CPU.
        model_seconds: median time of the same images in the model.
    """

    images: int
    score: float
    map: float
    seconds: float
    model_seconds: float


def check_packages() -> None:
    """Check that the packages of the export are installed.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"export: needs {', '.join(missing)}, which are not installed: "
            "pip install 'indad[export]', or in a clone: pip install -e '.[export]'"
        )


def export(model: Model, path: Path, images: Iterable[Path], progress: Progress = ignore) -> Parity:
    """Write a model as an ONNX file, after the file's scores were compared with the model's.

    The file's inputs, outputs and metadata are described in ``docs/deployment.md``.

    Args:
        model: a model of `load_model` on a CPU. Its threshold becomes that of the file.
        path: the ONNX file; it appears only if all scores agree.
        images: images to compare, at least one.
        progress: called with the number of compared images and of all.

    Raises:
        ConfigError: a package is missing, there are no images, or the model cannot be exported.
        DataError: an image cannot be read.
        ExportError: scores or verdicts differ; nothing is written.
    """
    check_packages()
    images = list(images)
    if not images:
        raise ConfigError("export: there are no images to compare scores on; name some (--images)")
    with atomic.replacing(path) as temporary:
        _write(model, temporary)
        return compare(model, temporary, images, progress)


def _write(model: Model, path: Path) -> None:
    """Write the ONNX file, without a check."""
    import torch
    from torch.export import Dim

    from indad.inference.graph import TRANSLATIONS, Scorer

    scorer = Scorer(model).eval()
    tensors = [*scorer.parameters(), *scorer.buffers()]
    size = sum(each.numel() * each.element_size() for each in tensors)
    if size > MOST_BYTES:
        raise ConfigError(
            f"{model.path}: its arrays take {size / 1e9:.1f} GB, more than one ONNX file can hold "
            "(2 GB); use fewer 'dimensions' (PaDiM) or a smaller 'coreset_ratio' (PatchCore)"
        )
    height, width = model.input_size
    # Sizes that differ from each other and from the output, so that none is taken as fixed.
    example = torch.zeros(2, height + 37, width + 74, 3, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.onnx.export(
            scorer,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=scorer.outputs,
            dynamic_shapes=({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},),
            custom_translation_table=TRANSLATIONS,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        {key: each if isinstance(each, str) else json.dumps(each) for key, each in facts(model)}
    )
    program.save(path, external_data=False)


def facts(model: Model) -> Iterable[tuple[str, Any]]:
    """Yield the metadata of an exported model: keys and JSON values."""
    header = methods.read_header(model.path, verify=False)
    known, features = model.calibration, header["features"]
    yield "indad_version", __version__
    yield "method", header["method"]
    yield "parameters", model.detector.parameters
    if known is not None and known.experiment:
        yield "experiment", known.experiment
        yield "dataset", known.dataset
        yield "category", known.category
    yield "labels", ["good", "anomalous"]
    yield "threshold", None if model.threshold is None else asdict(model.threshold)
    yield "backbone", features["backbone"]
    yield "layers", features["layers"]
    yield "weights_sha256", features["weights_sha256"]
    yield "train_sha256", header["train_sha256"]
    yield (
        "geometry",
        {key: features[key] for key in ("resize", "crop", "input_size", "mean", "std")},
    )
    yield "versions", features.get("versions", {})


def open_session(path: Path) -> InferenceSession:
    """Open an ONNX file with onnxruntime on the CPU, with as many threads as torch uses."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(
    model: Model, path: Path, images: Iterable[Path], progress: Progress = ignore
) -> Parity:
    """Compare the scores and verdicts of an exported file with those of its model.

    Args:
        model: the model, with the threshold it was exported with.
        path: the ONNX file.
        images: at least one.
        progress: as in `export`.

    Raises:
        DataError: an image cannot be read.
        ExportError: a score differs by more than `TOLERANCE`, or a verdict differs.
    """
    images, session = list(images), open_session(path)
    names = [each.name for each in session.get_outputs()]
    rows = []
    for done, image in enumerate(images, 1):
        try:
            pixels = np.asarray(to_rgb(open_photo(image)))
        except ValueError as error:
            raise DataError(f"{image}: {error}") from None
        started = time.perf_counter()
        expected = model.predict(pixels)
        between = time.perf_counter()
        found = dict(zip(names, _run(session, image, pixels), strict=True))
        seconds = time.perf_counter() - between, between - started
        score, values = float(found["score"][0]), found["map"][0]
        difference = abs(score - expected.score) / max(abs(expected.score), np.finfo(float).tiny)
        verdict = bool(found["anomalous"][0]) if "anomalous" in found else None
        # "not <=": a score that is not a number is no agreement.
        if not difference <= TOLERANCE or verdict != expected.anomalous:
            raise ExportError(
                f"{image}: the exported file gives the score {score:.7g} (anomalous: {verdict}), "
                f"the model {expected.score:.7g} (anomalous: {expected.anomalous}), a relative "
                f"difference of {difference:.2g}; up to {TOLERANCE:g} and equal verdicts are "
                "required. Nothing was written"
            )
        highest = max(float(np.abs(expected.map).max()), np.finfo(float).tiny)
        rows.append((difference, np.abs(values - expected.map).max() / highest, *seconds))
        progress(done, len(images))
    table = np.array(rows)
    return Parity(len(rows), *table[:, :2].max(axis=0).tolist(), *np.median(table[:, 2:], axis=0))


def _run(session: InferenceSession, image: Path, pixels: np.ndarray) -> list[np.ndarray]:
    try:
        return session.run(None, {"images": pixels[None]})
    except Exception as error:  # onnxruntime's errors have no common class
        raise ExportError(f"{image}: onnxruntime cannot run the exported file: {error}") from None


def images_of_run(model: Path) -> list[Path]:
    """List the test images of the run that a model belongs to.

    Args:
        model: a model file in a results folder of a finished run.

    Raises:
        ConfigError: the model is in no such folder, or the images are no longer there.
    """
    advice = "name images to compare scores on (--images)"
    place = place_in_results(model)
    if place is None or not (record := place.results / "provenance.json").is_file():
        raise ConfigError(f"{model}: not in the results folder of a finished run; {advice}")
    category = f"{place.dataset}/{place.category}"
    table = f"manifests/{category}.csv"
    folders = provenance.read(record)["data"]
    if table not in folders:
        raise ConfigError(f"{record}: the run has no {category}; {advice}")
    rows = manifest.read(place.results / table)
    images = [
        place.results / folders[table] / name for name in rows["image"][rows["split"] == "test"]
    ]
    missing = [each for each in images if not each.is_file()]
    if missing:
        raise ConfigError(f"{missing[0]}: the run's test images are no longer there; {advice}")
    return images
