"""Find a model file and the calibrations that belong to it."""

from __future__ import annotations

import os
from pathlib import Path

from indad import methods
from indad.core.errors import ConfigError, StoreError
from indad.evaluation import calibration
from indad.evaluation.calibration import Calibration


def find_model(path: str | os.PathLike[str]) -> tuple[Path, list[Calibration]]:
    """Return the model file that ``path`` refers to, and the calibrations of this model.

    Args:
        path: a model file; or the folder of an experiment's scores, or the calibration in it.

    Raises:
        StoreError: there is no such model, or a calibration is damaged.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if not (path / calibration.NAME).is_file():
            raise StoreError(
                f"{path}: a folder without {calibration.NAME}; give a model file "
                "(run.py list names them) or the folder of an experiment's scores"
            )
        path /= calibration.NAME
    if path.suffix == ".json":
        return _model_of(path)
    identity = calibration.identity(methods.read_header(path, verify=False))
    found: dict[str, Calibration] = {}
    for file in _calibration_files(path.absolute()):
        each = calibration.read(file)
        if each.model_identity == identity:
            found.setdefault(each.experiment, each)
    return path, list(found.values())


def _model_of(path: Path) -> tuple[Path, list[Calibration]]:
    """Return the model that a calibration file names, and the calibration."""
    found = calibration.read(path)
    model = Path(os.path.normpath(path.parent / found.model))
    if calibration.identity(methods.read_header(model, verify=False)) != found.model_identity:
        raise StoreError(
            f"{path}: {model} was fitted again after these scores were made; run the workflow again"
        )
    return model, [found]


def _calibration_files(model: Path) -> list[Path]:
    """List the calibration files in the model's folder and in its results folder."""
    neighbours = sorted(model.parent.glob(f"*{calibration.NAME}"))
    *_, models, dataset, category, _ = ["", "", "", *model.parent.parts]
    if models != "models":
        return neighbours
    scores = model.parents[4] / "scores" / dataset / category
    return neighbours + sorted(scores.glob(f"*/{model.stem}/{calibration.NAME}"))


def choose_experiment(
    path: str | os.PathLike[str], experiment: str | None = None
) -> tuple[Path, Calibration | None]:
    """Return the model file that ``path`` refers to, and the calibration of one experiment.

    Args:
        path: as in `find_model`.
        experiment: its name. By default the only one, or the one whose scoring parameters are the
            model's own.

    Raises:
        StoreError: there is no such model, or a calibration is damaged.
        ConfigError: the model has no such experiment, or several and none is named.
    """
    model, calibrations = find_model(path)
    names = ", ".join(each.experiment for each in calibrations) or "none is known"
    if experiment is not None:
        for each in calibrations:
            if each.experiment == experiment:
                return model, each
        raise ConfigError(f"experiment {experiment!r}: not among those of {model}: {names}")
    if len(calibrations) < 2:
        return model, calibrations[0] if calibrations else None
    own = methods.read_header(model, verify=False)["parameters"]
    for each in calibrations:
        if each.parameters.items() <= own.items():
            return model, each
    raise ConfigError(f"{model}: several experiments share this model; choose one of {names}")
