"""Load a model with all it needs to score images: calibration, backbone, weights, gallery."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from indad import methods
from indad.core import checksum
from indad.core.cores import available_cores
from indad.core.device import import_large, import_torch, use_device
from indad.core.errors import ConfigError, StoreError, WeightsError
from indad.evaluation import calibration
from indad.evaluation.calibration import Calibration
from indad.features.settings import AUTO_BATCH, EXTRACT_VERSION
from indad.features.source import FeatureSource
from indad.features.store import FeatureStore
from indad.features.weights import PACKAGE, RANDOM, weights_sha256_of
from indad.inference.model import Extractor, Model
from indad.methods.base import Detector
from indad.methods.ensemble import Ensemble, Member

if TYPE_CHECKING:
    from indad.features.backbone import Backbone


def load_model(
    path: str | os.PathLike[str],
    *,
    experiment: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    device: str = "auto",
    batch_size: int | str = "auto",
) -> Model:
    """Load a fitted model and its backbone, to score images with.

    The threshold is that of ``calibration.FALSE_ALARMS`` if a calibration of the model is found: in
    the results folder of the model, or in the model's own folder as a file whose name ends in
    ``calibration.json``. Torch's TF32 switches are set as they were for the training features.

    Args:
        path: a model file; or the folder of an experiment's scores, which names its model.
        experiment: whose scoring parameters to use, if several experiments share the model. By
            default the model's own, or those of its only experiment.
        weights: the backbone's weights file, if it has moved since the model's features were made.
            Its SHA-256 must be the same.
        features: SPADE's feature store, if it has moved.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        batch_size: images that the backbone gets at once, or ``auto``.

    Raises:
        StoreError: the model, its calibration or its gallery is missing, damaged, or of another
            version.
        WeightsError: the weights are missing, or differ from those the model was fitted with.
        DeviceError: ``device`` is ``cuda`` and there is no GPU.
        ConfigError: the model has no such experiment.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: must be auto, cpu or cuda, got {device!r}")
    model, known = choose_experiment(path, experiment)
    header = methods.read_header(model, verify=False)
    options = {"device": device, "batch_size": batch_size}
    absolute = Path(path).expanduser().absolute()
    again = partial(
        load_model, absolute, experiment=experiment, weights=weights, features=features, **options
    )
    load = partial(_load_member, **options)
    if header["method"] != Ensemble.method:
        parameters = None if known is None else known.parameters
        member = load(model, header, parameters, weights=weights, features=features)
        return Model(model, [member], None, known, again)
    if weights is not None or features is not None:
        raise ConfigError(
            f"{model}: an ensemble has a backbone and features for each member, so neither weights "
            "nor features can be named; keep those of its members where the workflow read them"
        )
    ensemble, files = open_ensemble(model)
    members = [
        load(each.path, methods.read_header(each.path, verify=False), each.parameters)
        for each in files
    ]
    return Model(model, members, ensemble, known, again)


def _load_member(
    model: Path,
    header: Mapping[str, Any],
    parameters: Mapping[str, Any] | None,
    *,
    weights: str | os.PathLike[str] | None = None,
    features: str | os.PathLike[str] | None = None,
    device: str,
    batch_size: int | str,
) -> tuple[Detector, Extractor]:
    """Load the detector of a model file, and its backbone."""
    import_torch()
    import torch

    made_with = _made_with(model, header)
    settings = {"device": device, "tf32": bool(made_with.get("tf32"))}
    device = use_device(settings, min(torch.get_num_threads(), available_cores()))
    gallery = _open_gallery(model, header, features)
    detector = methods.load(model, gallery=gallery, device=device, parameters=parameters)
    backbone = _load_backbone(model, made_with, weights, device)
    size = AUTO_BATCH[device] if isinstance(batch_size, str) else batch_size
    return detector, Extractor(backbone, made_with, device, size)


def open_ensemble(path: Path) -> tuple[Ensemble, list[Member]]:
    """Read an ensemble that can score new images, and find the models of its members.

    Raises:
        ConfigError: its scales come from the test images.
        StoreError: it is damaged, or a member's model is missing or was fitted again.
    """
    ensemble, members = Ensemble.load(path)
    if ensemble.scaling == "test":
        raise ConfigError(
            f"{path}: this ensemble is transductive: 'scaling: test' scales its members by their "
            "range over all test images, so that it cannot score other images. Set 'scaling: "
            "training' and run the workflow again"
        )
    for each in members:
        if not each.path.is_file():
            raise StoreError(
                f"{each.path}: no such model. The ensemble {path} needs the models of its members; "
                "copy the whole folder 'models', or run the workflow again"
            )
        if checksum.recorded_digest(each.path) != each.digest:
            raise StoreError(
                f"{path}: {each.path}, a member of this ensemble, was fitted again afterwards; run "
                "the workflow again"
            )
    return ensemble, members


# -- the model file and its calibration -----------------------------------------------------------


def choose_experiment(
    path: str | os.PathLike[str], experiment: str | None = None
) -> tuple[Path, Calibration | None]:
    """Return the model file that ``path`` refers to, and the calibration of one experiment.

    Args:
        path: a model file; or the folder of an experiment's scores, or the calibration in it.
        experiment: its name. By default the only one, or the one whose scoring parameters are the
            model's own.

    Raises:
        StoreError: there is no such model, or a calibration is damaged.
        ConfigError: the model has no such experiment, or several and none is named.
    """
    model, known = _find_model(Path(path).expanduser())
    names = ", ".join(known) or "none is known"
    if experiment is not None:
        if experiment not in known:
            raise ConfigError(f"experiment {experiment!r}: not among those of {model}: {names}")
        return model, known[experiment]
    if len(known) < 2:
        return model, next(iter(known.values()), None)
    own = methods.read_header(model, verify=False)["parameters"]
    for each in known.values():
        if each.parameters.items() <= own.items():
            return model, each
    raise ConfigError(f"{model}: several experiments share this model; choose one of {names}")


def _find_model(path: Path) -> tuple[Path, dict[str, Calibration]]:
    """Return the model file that ``path`` refers to, and its calibrations by experiment."""
    if path.is_dir():
        if not (path / calibration.NAME).is_file():
            raise StoreError(
                f"{path}: a folder without {calibration.NAME}; give a model file "
                "(run.py list names them) or the folder of an experiment's scores"
            )
        path /= calibration.NAME
    if path.suffix == ".json":
        found = calibration.read(path)
        model = Path(os.path.normpath(path.parent / found.model))
        if found.model_identity != _identity(model):
            raise StoreError(
                f"{path}: {model} was fitted again after these scores were made; run the workflow "
                "again"
            )
        return model, {found.experiment: found}
    identity = _identity(path)
    known: dict[str, Calibration] = {}
    for file in _calibration_files(path.absolute()):
        found = calibration.read(file)
        if found.model_identity == identity:
            known.setdefault(found.experiment, found)
    return path, known


def _identity(model: Path) -> str:
    return calibration.identity(methods.read_header(model, verify=False))


def _calibration_files(model: Path) -> list[Path]:
    """List the calibration files in the model's folder and in its results folder."""
    neighbours = sorted(model.parent.glob(f"*{calibration.NAME}"))
    place = place_in_results(model)
    if place is None:
        return neighbours
    scores = place.results / "scores" / place.dataset / place.category
    return neighbours + sorted(scores.glob(f"*/{model.stem}/{calibration.NAME}"))


class Place(NamedTuple):
    """Where a model lies in a results folder."""

    results: Path
    dataset: str
    category: str


def place_in_results(model: Path) -> Place | None:
    """Return the place of ``RESULTS/models/DATASET/CATEGORY/MODEL/seedN.safetensors``, or None."""
    parts = model.absolute().parts
    if len(parts) < 6 or parts[-5] != "models":
        return None
    return Place(Path(*parts[:-5]), parts[-4], parts[-3])


# -- the gallery and the backbone -----------------------------------------------------------------


def _made_with(model: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the model's features, if this library makes such features."""
    made_with = header["features"]
    if "backbone" not in made_with:
        raise StoreError(
            f"{model}: does not record how its features were made, so that no image can be scored "
            "with it; fit it with the workflow"
        )
    if made_with["extract_version"] != EXTRACT_VERSION:
        raise StoreError(
            f"{model}: fitted on features of version {made_with['extract_version']}, this library "
            f"makes version {EXTRACT_VERSION}; run the workflow again"
        )
    return made_with


def _open_gallery(
    model: Path, header: Mapping[str, Any], features: str | os.PathLike[str] | None
) -> FeatureSource | None:
    """Open the feature store that a model refers to, if any."""
    if "gallery" not in header:
        return None
    link = header["gallery"]["path"]
    if features is None and link is None:
        raise StoreError(f"{model}: was fitted on features in memory; name their feature store")
    path = Path(features) if features else Path(os.path.normpath(model.parent / link))
    try:
        store = FeatureStore(path)
    except StoreError as error:
        raise StoreError(
            f"{error}. The model {model} needs this feature store: if the model was copied, name "
            "the store (--features FILE)"
        ) from None
    if store.identity != header["gallery"]["identity"]:
        raise StoreError(
            f"{path}: not the feature store that {model} was fitted on; run the workflow again, or "
            "name the right one (--features FILE)"
        )
    return store.split("train")


def _load_backbone(
    model: Path,
    made_with: Mapping[str, Any],
    weights: str | os.PathLike[str] | None,
    device: str,
) -> Backbone:
    """Load the backbone that the model's features were made with."""
    import_large("indad.features.extract")
    from indad.features.extract import open_backbone

    settings = ("backbone", "layers", "embedding", "precision")
    backbone = open_backbone(
        {name: made_with[name] for name in settings}
        | {"tiles": made_with.get("tiles"), "weights": _find_weights(model, made_with, weights)},
        device,
    )
    expected = made_with["weights_sha256"]
    if backbone.weights_sha256 != expected:
        versions = made_with.get("versions", {})
        raise WeightsError(
            f"{model}: {backbone.weights_source} of {made_with['backbone']} differ from those it "
            f"was fitted with: the sha256 of their tensors is {backbone.weights_sha256}, the "
            f"model's {expected}. It was made with torch {versions.get('torch', '?')} and timm "
            f"{versions.get('timm', '?')}; install those, or run the workflow again"
        )
    return backbone


def _find_weights(
    model: Path, made_with: Mapping[str, Any], weights: str | os.PathLike[str] | None
) -> str | None:
    """Return the ``weights`` setting of the model's backbone: None for timm's own.

    The hash of a file is compared here, before torch reads the file. Other weights have a hash of
    their tensors, which the caller compares.
    """
    original, source = made_with["weights"], made_with["weights_source"]
    is_file = original not in ("timm", RANDOM) and not original.startswith(PACKAGE)
    if weights is not None and not is_file:
        raise WeightsError(
            f"{model}: fitted with {source}, which is not a file that could be compared with "
            f"{os.fspath(weights)}; leave the weights out to load them from there again"
        )
    if original == "timm":
        return None
    name = original if weights is None else os.fspath(weights)
    # A relative path is relative to the folder where the workflow ran; the source is absolute.
    absolute = Path(source.removeprefix("file "))
    if weights is None and is_file and absolute.is_absolute() and not Path(name).exists():
        name = str(absolute)
    try:
        actual = weights_sha256_of(name)
    except WeightsError as error:
        hint = "; if the file has moved, name it (--weights FILE)" if is_file else ""
        raise WeightsError(
            f"{error}. The model {model} was fitted with {source}, sha256 "
            f"{made_with['weights_sha256']}{hint}"
        ) from None
    if actual not in (None, made_with["weights_sha256"]):
        raise WeightsError(
            f"weights {name}: not those that {model} was fitted with: their sha256 is {actual}, "
            f"the model's {made_with['weights_sha256']}"
        )
    return name
