"""Choose the threshold between good and anomalous images."""

from __future__ import annotations

import math
from pathlib import Path

from indad.core.errors import ConfigError
from indad.evaluation.calibration import Calibration, Threshold


def choose_threshold(
    model: Path,
    calibration: Calibration | None,
    *,
    false_alarms: float | None = None,
    given: str | None = None,
) -> Threshold | None:
    """Choose a threshold as the command line asks for it.

    Args:
        model: the model file, for messages.
        calibration: scores of images whose labels are known, or None.
        false_alarms: the rate of good images that may exceed the threshold; None for the default.
        given: a number, ``f1max``, ``none`` or None.

    Returns:
        The threshold, or None for ``none``.

    Raises:
        ConfigError: ``given`` is none of these, or there are too few scores to choose from.
    """
    if given == "none":
        return None
    if given not in (None, "f1max"):
        value = _number(given)
        return calibration.at(value) if calibration else Threshold(value, None, "as given")
    if calibration is None:
        raise ConfigError(
            f"{model}: no threshold is known: there is no calibration.json of an experiment of "
            "this model in its folder or in its results folder. Run the workflow again, or give "
            "--good DIR with good images, --threshold NUMBER, or --threshold none for scores alone"
        )
    if given == "f1max":
        return calibration.at_f1_max()
    return calibration.at_false_alarms(false_alarms)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--threshold: must be a number, f1max or none, got {text!r}")
    return value
