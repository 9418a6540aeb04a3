"""The coreset of many training images: chosen at once, or merged from coresets of parts.

The coresets of parts can be chosen by separate jobs, whose files the fit reads.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from indad.core.errors import ConfigError, StoreError
from indad.core.progress import Progress
from indad.methods import model_file
from indad.methods.coreset import Coreset, greedy_k_center

logger = logging.getLogger("indad")

#: What the header of a file of coresets has instead of a method.
KIND = "coresets of parts"
#: Called with the number of images done.
ImagesDone = Callable[[int], None]


class Part(NamedTuple):
    """Training images whose patches a coreset is chosen from at once.

    Attributes:
        images: the images.
        first: index of their first patch among all patches.
        start: the first pick, among the patches of the part.
        count: number of patches to pick.
    """

    images: slice
    first: int
    start: int
    count: int


class PartCoreset(NamedTuple):
    """The coreset of one part.

    Attributes:
        indices: among the patches of all training images, in the order of picking, int64 ``(n,)``.
        points: these patches in the space in which the coreset is chosen, float32 ``(n, D)``.
        radius: the covering radius, float32 ``()``.
    """

    indices: Tensor
    points: Tensor
    radius: Tensor


class Selection:
    """The choice of a coreset from the patches of training images.

    Args:
        before: number of patches before each image, and of all patches, ``(N + 1,)``.
        keep: size of the coreset.
        part_patches: most patches to choose from at once, except those of a single image; None to
            choose from all.
        seed: draws the first pick of each choice.
        memory: bytes that a search may allocate.
        project: returns the points ``(patches, D)`` that the patches of some images are compared
            by.

    Attributes:
        parts: the parts of the images; empty if the coreset is chosen from all patches at once.
        start: the first pick of the last choice, among its points.

    Raises:
        ConfigError: there are several parts, and ``part_patches`` is less than ``keep``.
    """

    def __init__(
        self,
        before: np.ndarray,
        keep: int,
        *,
        part_patches: int | None,
        seed: int,
        memory: int,
        project: Callable[[slice, ImagesDone], Tensor],
    ) -> None:
        self.images, self.patches = len(before) - 1, int(before[-1])
        self.keep, self.memory, self.project = keep, memory, project
        most = part_patches or self.patches
        cuts = [0]
        for image, end in enumerate(before[1:].tolist()):
            if image > cuts[-1] and end - before[cuts[-1]] > most:
                cuts.append(image)
        edges = [*cuts, self.images] if len(cuts) > 1 else []
        draw = np.random.default_rng(seed)
        self.parts: list[Part] = []
        for start, stop in pairwise(edges):
            size = int(before[stop] - before[start])
            share = -(-most * size // self.patches)
            first, drawn = int(before[start]), int(draw.integers(size))
            self.parts.append(Part(slice(start, stop), first, drawn, share))
        if self.parts and keep > most:
            raise ConfigError(
                f"part_patches: {most} are fewer than the {keep} patches of the coreset; use at "
                f"least {keep}, or a smaller coreset_ratio"
            )
        last = sum(part.count for part in self.parts) or self.patches
        self.start = int(draw.integers(last))

    def choose(self, progress: Progress, coresets: Sequence[PartCoreset] = ()) -> Coreset:
        """Choose the coreset; its indices are among all patches.

        Args:
            progress: called with the images and picks done, and the number of both.
            coresets: those of the parts, if they are chosen already.
        """
        steps = self.images + self.keep

        def images_done(done: int) -> None:
            progress(done, steps)

        chosen = [*coresets]
        for number in range(len(chosen), len(self.parts)):
            chosen.append(self.choose_part(number))
            images_done(self.parts[number].images.stop)
        if chosen:
            points = torch.cat([each.points for each in chosen])
        else:
            points = self.project(slice(0, self.images), images_done)
        last = greedy_k_center(
            points,
            self.keep,
            start=self.start,
            memory=self.memory,
            progress=lambda done, _: progress(self.images + done, steps),
        )
        radius, kept = float(last.radii[-1]), f"coreset: {self.keep} of {self.patches} patches"
        if not chosen:
            logger.info("%s, covering radius in the projected space %.4g", kept, radius)
            return last
        of_parts = max(float(each.radius) for each in chosen)
        logger.info(
            "%s, covering radius in the projected space at most %.4g: %.4g in the second choice, "
            "and at most %.4g in each of %d parts",
            *(kept, radius + of_parts, radius, of_parts, len(chosen)),
        )
        indices = torch.cat([each.indices for each in chosen])[last.indices]
        return Coreset(indices, last.radii + of_parts)

    def choose_part(self, number: int) -> PartCoreset:
        """Choose the coreset of a part."""
        part = self.parts[number]
        points = self.project(part.images, lambda done: None)
        found = greedy_k_center(points, part.count, start=part.start, memory=self.memory)
        logger.info(
            "part %d of %d: coreset of %d of %d patches, covering radius in the projected space "
            "%.4g",
            *(number + 1, len(self.parts), part.count, len(points), float(found.radii[-1])),
        )
        return PartCoreset(found.indices + part.first, points[found.indices], found.radii[-1])


def write(path: Path, origin: Mapping[str, Any], coresets: Mapping[int, PartCoreset]) -> None:
    """Write coresets, by the numbers of their parts, atomically and with a checksum.

    Args:
        path: the safetensors file.
        origin: what decides the coresets: the identity of the features and the parameters.
        coresets: those of some parts, or of none.
    """
    arrays = {
        f"{number}/{name}": value
        for number, coreset in coresets.items()
        for name, value in coreset._asdict().items()
    }
    header = {"method": KIND, "method_version": 1, "parameters": dict(origin)}
    model_file.write(path, header, arrays)


def read(
    paths: Sequence[str | Path], origin: Mapping[str, Any], count: int, device: str
) -> list[PartCoreset]:
    """Return the coresets of all parts in their order.

    Args:
        paths: files of `write`.
        origin: what must have decided the coresets.
        count: number of parts.
        device: where to put the arrays, ``cpu`` or ``cuda``.

    Raises:
        StoreError: a file is missing, damaged, or of other features or parameters; or a part is in
            none of the files.
    """
    from safetensors.torch import load_file

    expected = json.loads(json.dumps(dict(origin)))  # tuples become lists, as in the file
    arrays: dict[str, Tensor] = {}
    for path in paths:
        header = model_file.read_header(path)
        found = header["parameters"] if header["method"] == KIND else {}
        differences = [
            f"  - {name}: the file has {found.get(name)!r}, expected {value!r}"
            for name, value in expected.items()
            if found.get(name) != value
        ]
        if differences:
            raise StoreError(
                f"{path}: its coresets of parts were chosen from other features or with other "
                "parameters; delete it and run again\n" + "\n".join(differences)
            )
        arrays |= load_file(str(path), device=device)
    missing = [number for number in range(count) if f"{number}/radius" not in arrays]
    if missing:
        raise StoreError(
            f"{', '.join(map(str, paths))}: have no coreset of part {missing[0] + 1} of {count}; "
            "delete them and run again"
        )
    return [
        PartCoreset(*(arrays[f"{number}/{name}"] for name in PartCoreset._fields))
        for number in range(count)
    ]
