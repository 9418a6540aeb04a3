"""What identifies the features of an extractor: the settings a feature store must agree with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indad.core.errors import WeightsError
from indad.features.weights import weights_sha256_of

#: Raised when features of the same settings would come out differently.
EXTRACT_VERSION = 2
#: Images the backbone sees at once when the configuration says ``auto``. On a CPU the maps of a
#: larger batch fall out of the cache; a GPU wants more to do.
AUTO_BATCH = {"cpu": 8, "cuda": 64}


def made_with(extractor: Mapping[str, Any], weights_sha256: str | None) -> dict[str, Any]:
    """Return the settings a feature store of this extractor must have been made with.

    A value of None is not compared (see ``store.FeatureStore``). Batch size and device do not
    change features beyond rounding and are left out.
    """
    return {
        "extract_version": EXTRACT_VERSION,
        "backbone": extractor["backbone"],
        "weights": extractor["weights"] or "timm",
        "weights_sha256": weights_sha256,
        "layers": list(extractor["layers"]),
        "embedding": extractor["embedding"],
        "resize": extractor["resize"],
        "crop": extractor["crop"] or "none",
        "mean": extractor.get("mean"),
        "std": extractor.get("std"),
        "precision": extractor["precision"],
        "dtype": extractor["dtype"],
    }


def expected_store(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``made_with`` for a stage that reads a store and never runs the backbone.

    Such a stage may run where the weights file is not: then the hash is not compared, while all
    settings still are.
    """
    try:
        sha256 = weights_sha256_of(extractor["weights"])
    except WeightsError:
        sha256 = None
    return made_with(extractor, sha256)
