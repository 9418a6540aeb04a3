"""A cache of features for other results folders and other users.

A file's name is a digest of everything its features depend on: the images' content, the extractor's
settings, the weights' bytes, the versions of the libraries and the device. Files are copied, and
each copy is checked: a cache that is deleted, damaged or read-only costs time, but does not change
results. Torch is not needed here.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core import atomic, disk
from indad.core.errors import DiskError, StoreError
from indad.data.manifest import content_hash
from indad.features.settings import made_with, origin
from indad.features.store import SCHEMA_VERSION, FeatureStore
from indad.features.weights import weights_sha256_of

logger = logging.getLogger("indad")


class FeatureCache:
    """The cached features of one category and one extractor.

    Args:
        folder: the cache; it is created when something is stored.
        manifest: the images.
        extractor: settings as ``Config.extractor`` returns them.
        weights: timm's downloaded weights, used if the extractor names none.
        device: ``cpu`` or ``cuda``.
        tf32: as in `settings.origin`.

    Attributes:
        path: of the file in the cache.

    Raises:
        WeightsError: the weights file is missing.
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
        sha256 = weights_sha256_of(extractor["weights"] or (weights and str(weights)))
        made = made_with(extractor, sha256) | origin(content_hash(manifest), device, tf32)
        text = json.dumps({"schema": SCHEMA_VERSION} | made, sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder.expanduser() / name[:2] / f"{name}.h5"
        # A store has the digest of downloaded tensors, not that of the downloaded file.
        own = None if extractor["weights"] is None else sha256
        self._expected = made | {"weights_sha256": own}

    def take(self, output: Path) -> bool:
        """Copy the features to ``output``; a damaged file is removed, with a warning in the log.

        Returns:
            Whether the features were in the cache.

        Raises:
            DiskError: the copy does not fit on the disk.
        """
        if not self.path.exists():
            return False
        try:
            _copy(self.path, output, self._expected)
        except FileNotFoundError:  # removed meanwhile
            return False
        except StoreError as error:
            logger.warning("cache: %s is not used and was removed: %s", self.path, error)
            with suppress(OSError):
                self.path.unlink()
            return False
        with suppress(OSError):  # the time of last use, for cleaning up
            os.utime(self.path)
        logger.info("cache: features copied from %s", self.path)
        return True

    def keep(self, features: Path) -> None:
        """Copy finished features into the cache.

        If the cache is full or read-only, a warning is logged: the features exist already.
        """
        try:
            _copy(features, self.path, self._expected)
        except (OSError, DiskError, StoreError) as error:
            logger.warning("cache: %s could not be stored: %s", features, error)
        else:
            logger.info("cache: stored as %s", self.path)


def _copy(source: Path, target: Path, expected: Mapping[str, Any]) -> None:
    """Copy a store; the copy appears after its checksum and settings were compared."""
    disk.require_room(target, source.stat().st_size)
    with atomic.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        with FeatureStore(temporary, expected):
            pass
