"""The settings that identify features: what a feature store records and a reader compares."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from indad import __version__
from indad.core.errors import WeightsError
from indad.data.images import Geometry
from indad.features.weights import weights_sha256_of

#: Raised when features of the same settings would change.
EXTRACT_VERSION = 2
#: Images per batch of the backbone with ``batch_size: auto``. On a CPU the maps of a larger batch
#: do not fit in the cache; a GPU needs more images to be busy.
AUTO_BATCH = {"cpu": 8, "cuda": 64}


def made_with(extractor: Mapping[str, Any], weights_sha256: str | None) -> dict[str, Any]:
    """Return the settings of an extractor as its feature stores record them.

    A value of None is not compared (see ``store.FeatureStore``). The batch size is left out: it
    changes features by rounding only.
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
        "tiles": extractor.get("tiles") or {},
        "mean": extractor.get("mean"),
        "std": extractor.get("std"),
        "precision": extractor["precision"],
        "dtype": extractor["dtype"],
    }


def geometry_of(made_with: Mapping[str, Any]) -> Geometry:
    """Return the resize and crop that features were made with."""
    crop = made_with["crop"]
    return Geometry.from_config(made_with["resize"], None if crop == "none" else crop)


def origin(manifest_sha256: str, device: str, tf32: bool) -> dict[str, Any]:
    """Return what a feature store records besides `made_with`: images, device and versions.

    Args:
        manifest_sha256: the ``content_hash`` of the images' manifest.
        device: ``cpu`` or ``cuda``.
        tf32: whether a GPU may multiply with 10 bits of mantissa. A CPU never does.
    """
    packages = ("torch", "timm", "pillow", "numpy")
    return {
        "manifest_sha256": manifest_sha256,
        "device": device,
        "tf32": device != "cpu" and tf32,
        "versions": {"indad": __version__, **{name: version(name) for name in packages}},
    }


def expected_store(extractor: Mapping[str, Any], *, tf32: bool) -> dict[str, Any]:
    """Return the settings a feature store must have for a stage that does not run the backbone.

    Such a stage may run on a machine without the weights file: then its hash is not compared, while
    all settings are.

    Args:
        extractor: settings as ``Config.extractor`` returns them.
        tf32: as configured. Features of a CPU match either value, since a CPU has no TF32.
    """
    try:
        sha256 = weights_sha256_of(extractor["weights"])
    except WeightsError:
        sha256 = None
    return made_with(extractor, sha256) | {"tf32": tf32}
