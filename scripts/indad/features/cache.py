"""Features kept under their content's address, for other results folders and other users.

The address is a digest of all that the features depend on: the images' content, the extractor's
settings, the weights' bytes, the versions of the libraries and the device. What is taken is a copy,
and both the copy and what is kept are sealed: a cache that is deleted, damaged or cannot be
written to costs time, never a figure. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from indad import __version__
from indad.core import atomic, disk
from indad.core.errors import DiskError, StoreError
from indad.data.manifest import content_hash
from indad.features.settings import made_with
from indad.features.store import SCHEMA_VERSION, FeatureStore
from indad.features.weights import sha256_of_file, weights_sha256_of

logger = logging.getLogger("indad")

#: Begins the line of a log by which a run time is known for that of a copy.
TAKEN = "features taken from the cache"


def provenance(manifest: pd.DataFrame, device: str, tf32: bool) -> dict[str, Any]:
    """Return what a store says of its making beside ``extractor.made_with``.

    Args:
        manifest: the images.
        device: ``cpu`` or ``cuda``.
        tf32: whether a GPU may multiply with 10 bits of mantissa.
    """
    packages = ("torch", "timm", "pillow", "numpy")
    return {
        "manifest_sha256": content_hash(manifest),
        "device": device,
        "tf32": device != "cpu" and tf32,
        "versions": {"indad": __version__, **{name: version(name) for name in packages}},
    }


class FeatureCache:
    """The place of one category's features of one extractor in a folder of features.

    Args:
        folder: the cache; it is made when something is kept.
        manifest: the images.
        extractor: settings as ``Config.extractor`` returns them.
        weights: timm's, where they were downloaded before and the extractor names none.
        device: ``cpu`` or ``cuda``.
        tf32: as in ``provenance``.

    Raises:
        WeightsError: the weights' file is not there.
    """

    def __init__(
        self,
        folder: Path,
        manifest: pd.DataFrame,
        extractor: Mapping[str, Any],
        weights: Path | None = None,
        *,
        device: str,
        tf32: bool = False,
    ) -> None:
        sha256 = weights_sha256_of(extractor["weights"])
        if sha256 is None and extractor["weights"] is None and weights is not None:
            sha256 = sha256_of_file(weights)
        made = made_with(extractor, sha256) | provenance(manifest, device, tf32)
        text = json.dumps({"schema": SCHEMA_VERSION} | made, sort_keys=True)
        address = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder.expanduser() / address[:2] / f"{address}.h5"
        # A store names downloaded weights by their tensors, not by the file's bytes.
        own = None if extractor["weights"] is None else sha256
        self._expected = made | {"weights_sha256": own}

    def take(self, output: Path) -> bool:
        """Copy the features to ``output``, if they are there and whole.

        Damaged ones are removed, and the log says so.

        Raises:
            DiskError: the copy does not fit on the disk.
        """
        if not self.path.exists():
            return False
        try:
            _copy(self.path, output, self._expected)
        except FileNotFoundError:  # removed by somebody else since
            return False
        except StoreError as error:
            logger.warning("cache: %s is not used, and removed: %s", self.path, error)
            with suppress(OSError):
                self.path.unlink()
            return False
        with suppress(OSError):  # when it was used last, for whoever clears the folder
            os.utime(self.path)
        logger.info("%s: %s", TAKEN, self.path)
        return True

    def keep(self, features: Path) -> None:
        """Copy finished features into the cache.

        A cache that is full or cannot be written to is said in the log: the features are made.
        """
        try:
            _copy(features, self.path, self._expected)
        except (OSError, DiskError, StoreError) as error:
            logger.warning("cache: %s is not kept there: %s", features, error)
        else:
            logger.info("cache: kept as %s", self.path)


def _copy(source: Path, target: Path, expected: Mapping[str, Any]) -> None:
    """Copy a store; the copy appears once it has been found whole, and the one that is expected."""
    disk.require_room(target, source.stat().st_size)
    with atomic.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        with FeatureStore(temporary, expected):
            pass
