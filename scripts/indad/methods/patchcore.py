"""PatchCore: towards total recall in anomaly detection (Roth et al., arXiv:2106.08265)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from indad.core.errors import ConfigError, StoreError
from indad.core.progress import Progress, ignore
from indad.features.source import FeatureSource, chunks_of
from indad.methods.base import (
    DISTANCES,
    MEMORY,
    Detector,
    one_of,
    positive,
    top_share,
    true_or_false,
    whole_number,
)

if TYPE_CHECKING:
    import torch

    from indad.methods.coreset_parts import Selection
    from indad.methods.neighbors import Bank

#: Most images that are embedded at once while fitting, and the bytes of memory for each of them.
FIT_BATCH, FIT_IMAGE = 16, 64 << 20


class PatchCore(Detector):
    """Distance to the nearest patch of a memory bank, reduced to a coreset.

    The embedding of a position is computed from its 3x3 neighbourhood in each layer, the deeper
    layers bilinearly resized to the grid ``(h, w)`` of the first one (section 3.1). The memory bank
    M holds the first ``coreset_ratio`` of all training patches in greedy k-centre order
    (section 3.2, algorithm 1)::

        m_next = argmax over patches p of min over m in M of |p - m|

    so that a smaller coreset is a prefix of a larger one. The score of a patch ``e_p`` is its
    distance to the nearest bank vector ``m*``, and the image score that of the farthest patch
    ``e*`` (equation 6)::

        s_p = min over m in M of |e_p - m|,     s = max over p of s_p

    The map holds the squares of ``s_p`` by default.

    With ``neighbours`` = b > 1 the image score is weighted by the local density around ``m*``
    (equation 7), where ``N_b(m*)`` are the b bank vectors nearest to ``m*``, itself included::

        s' = (1 - exp(|e* - m*|) / sum over m in N_b(m*) of exp(|e* - m|)) * s

    The map ``(h, w)`` is upsampled to the input size and smoothed (Gaussian, sigma 4 pixels).

    The time of the greedy choice is quadratic in the number of patches, and their projections are
    held in memory. With ``coreset="merge"`` the training images are divided into parts of
    ``part_patches`` patches. A greedy choice reduces each part, so that all together have
    ``part_patches`` again, and another one on these gives the coreset (in the manner of Malkomes et
    al., NeurIPS 2015). With a single part this is the exact coreset.

    The covering radius of a coreset is the largest Euclidean distance of a training patch to the
    nearest patch of the coreset, in the space in which the coreset is chosen: of embeddings
    (normalised ones with ``distance="cosine"``) projected to ``projection`` dimensions. With
    several parts the stored values are upper bounds: the radius of the second choice plus the
    largest radius of a part, since the distance of every patch to the patches kept of its part is
    at most that of the part.

    Departures: the coreset is chosen on a random projection to ``projection`` dimensions (as in
    the paper and the authors' code), so that it is a k-centre set of the projected patches; the
    first pick is drawn at random, where the authors' code takes the patch farthest on average from
    ten random ones; the map holds squared distances by default, as the authors' code does, where
    the paper's equation has distances; there is no weighting by default, as in the authors' code;
    sigma is the same number of pixels for every input size.

    AnomalyDINO without masking and rotation (Damm et al., arXiv:2405.14529, section 3) is
    ``distance="cosine"``, ``image_score="top1%"``, ``pooling=1``, ``coreset_ratio=1`` on the last
    block of DINOv2 after its norm. Half the squared Euclidean distance of normalised embeddings is
    their cosine distance::

        s_p = min over m in M of (1 - e_p m / (|e_p| |m|))

    and the image score is the mean over the highest 1 % of the patches, at least one.

    Args:
        layers: layers to use, shallow to deep; all extracted ones by default.
        embedding: ``official``, 1024 dimensions, pooled as in the authors' code; or ``concat``,
            the 3x3 averages of the layers, concatenated.
        coreset_ratio: share of the training patches in the bank, in (0, 1].
        projection: dimensions of the random projection that the coreset is chosen on.
        coreset: ``exact``; or ``merge``, of parts, for more patches than fit in memory.
        part_patches: patches that the coreset is chosen from at once with ``merge``; the coreset
            cannot be larger.
        neighbours: bank vectors in the weighting, including the nearest; 1 means no weighting.
        squared: whether the map holds squared Euclidean distances; the image score is always a
            distance.
        pooling: side of the neighbourhood of a position, odd; 1 for no pooling.
        distance: ``euclidean`` or ``cosine``; the coreset is chosen by the same distance.
        image_score: ``max``, the farthest patch; or ``topP%``, the mean over the P per cent of
            the patches, rounded down, that are farthest.
        shots: number of training images to use, drawn by ``seed``; all of them by default.
        seed: draws the projection, the first pick and the images.

    Attributes:
        bank_: embeddings of the coreset in the order of picking, ``(keep, D)``.
        indices_: their indices among all training patches, int64 ``(keep,)``.
        radii_: float32 ``(keep,)``. Entry n - 1 is the covering radius of the first n vectors of
            ``bank_``, or its upper bound with several parts.
        patches_: number of training patches.

    Examples:
        >>> import numpy as np
        >>> from indad.features.source import ArrayFeatures
        >>> rng = np.random.default_rng(0)
        >>> good = rng.random((9, 3, 4, 4))
        >>> train = ArrayFeatures({"layer1": good[:8]}, input_size=(16, 16))
        >>> test = ArrayFeatures({"layer1": [good[8], good[8] + 1]}, input_size=(16, 16))
        >>> detector = PatchCore(embedding="concat", coreset_ratio=0.5).fit(train)
        >>> detector.bank_.shape  # half of 8 * 4 * 4 patches
        torch.Size([64, 3])
        >>> round(detector.coreset_radius_, 2)
        0.07
        >>> scores = detector.score(test)
        >>> scores.image.round(2)
        array([0.15, 1.76], dtype=float32)
        >>> scores.maps.shape
        (2, 16, 16)
    """

    method = "patchcore"
    version = 2
    score_parameters = ("coreset_ratio", "neighbours", "squared", "image_score")

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        embedding: str = "official",
        coreset_ratio: float = 0.1,
        projection: int = 128,
        coreset: str = "exact",
        part_patches: int = 400_000,
        neighbours: int = 1,
        squared: bool = True,
        pooling: int = 3,
        distance: str = "euclidean",
        image_score: str = "max",
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, shots=shots, seed=seed)
        self.embedding = one_of("embedding", embedding, ("official", "concat"))
        self.coreset_ratio = positive("coreset_ratio", coreset_ratio, 1)
        self.projection = whole_number("projection", projection, 1)
        self.coreset = one_of("coreset", coreset, ("exact", "merge"))
        self.part_patches = whole_number("part_patches", part_patches, 1)
        self.neighbours = whole_number("neighbours", neighbours, 1)
        self.squared = true_or_false("squared", squared)
        self.pooling = whole_number("pooling", pooling, 1)
        if pooling % 2 == 0:
            raise ConfigError(f"pooling: must be odd, got {pooling}")
        self.distance = one_of("distance", distance, DISTANCES)
        self.image_score = image_score
        self._share = top_share(image_score)
        if self.neighbours > 1 and (distance, image_score) != ("euclidean", "max"):
            raise ConfigError(
                f"neighbours: {neighbours} weights the score of the farthest patch by Euclidean "
                "distances; it needs 'distance: euclidean' and 'image_score: max'"
            )

    @classmethod
    def shared_fit(cls, parameter_sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the largest coreset: the smaller ones are prefixes of it."""
        return {"coreset_ratio": max(each["coreset_ratio"] for each in parameter_sets)}

    @classmethod
    def scored_share(cls, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> float:
        """Return the share of the stored coreset that scoring uses."""
        return parameters["coreset_ratio"] / fitted["coreset_ratio"]

    def embed(self, layers: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return patch embeddings ``(B, h, w, D)`` on the first layer's grid."""
        from torch.nn.functional import normalize

        from indad.methods.patch_embedding import concat_embedding, official_embedding

        embed = official_embedding if self.embedding == "official" else concat_embedding
        patches = embed(list(layers.values()), self.pooling)
        return normalize(patches, dim=-1) if self.distance == "cosine" else patches

    def fit(
        self, train: FeatureSource, *, coresets: Sequence[str | Path] = (), **options: Any
    ) -> Self:
        """Fit the model to the features of good images.

        Args:
            train: features of the training images.
            coresets: files of `choose_parts`, of all jobs. They do not change the model.
            options: as in ``Detector.fit``.

        Raises:
            StoreError: a file is damaged, or does not belong to the features and parameters.
        """
        self._coresets = coresets
        return super().fit(train, **options)

    def choose_parts(
        self,
        train: FeatureSource,
        path: Path,
        job: int,
        jobs: int,
        *,
        device: str = "cpu",
        memory: int = MEMORY,
        progress: Progress = ignore,
    ) -> None:
        """Choose the coresets of some parts and write them to a file, for `fit`.

        The file is empty if the coreset is chosen from all patches at once.

        Args:
            train: features of the training images.
            path: the file.
            job: number of this job, from 0. It chooses from the parts ``job``, ``job + jobs``, ...
            jobs: number of jobs.
            device: where to compute, ``cpu`` or ``cuda``.
            memory: as in ``Detector.fit``.
            progress: called with the parts done and the number of parts of this job.

        Raises:
            ConfigError: a parameter does not fit the features.
        """
        few = self._prepare(train, device, memory, None)

        def work() -> None:
            from indad.methods import coreset_parts

            selection = self._selection(few)
            mine = range(job, len(selection.parts), jobs)
            chosen = {}
            for number in mine:
                chosen[number] = selection.choose_part(number)
                progress(len(chosen), len(mine))
            coreset_parts.write(path, self._origin(few), chosen)

        self._compute(work)

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        from indad.methods import coreset_parts

        self._bank: Bank | None = None
        selection, images = self._selection(train), len(train)
        coresets: list[coreset_parts.PartCoreset] = []
        if self._coresets:
            origin, count = self._origin(train), len(selection.parts)
            coresets = coreset_parts.read(self._coresets, origin, count, self.device_)
        chosen = selection.choose(lambda done, steps: progress(done, steps + images), coresets)
        self.indices_, self.radii_ = chosen.indices.cpu(), chosen.radii
        # All embeddings together may not fit in memory: they are computed again, and those of the
        # coreset are kept.
        done, steps = images + self._count(), 2 * images + self._count()
        self.bank_ = self._collect(train, lambda image: progress(done + image, steps))

    def _selection(self, train: FeatureSource) -> Selection:
        """Return how the coreset is chosen."""
        from indad.methods.coreset_parts import Selection

        before = self._patches_before(train)
        self.patches_ = int(before[-1])
        return Selection(
            before,
            self._count(),
            part_patches=self.part_patches if self.coreset == "merge" else None,
            seed=self.seed,
            memory=self.memory_,
            project=lambda images, done: self._project(train, images, done),
        )

    def _origin(self, train: FeatureSource) -> dict[str, Any]:
        """Return what decides the coresets of the parts."""
        return self.fit_parameters(self.parameters) | {
            "layers": self.layers_,
            "features": train.identity,
            "patches": self.patches_,
            "version": self.version,
        }

    def _patches_before(self, train: FeatureSource, images: slice = slice(None)) -> np.ndarray:
        """Return the patches of these images before each of them, and of all: ``(n + 1,)``."""
        shapes = (train.shape(self.layers_[0], image) for image in range(len(train))[images])
        return np.cumsum([0, *(height * width for _, height, width in shapes)])

    def _dimensions(self, train: FeatureSource) -> int:
        """Return the dimensions D of a patch embedding."""
        from indad.methods.patch_embedding import OFFICIAL_DIMENSIONS

        if self.embedding == "official":
            return OFFICIAL_DIMENSIONS
        return sum(train.shape(layer)[0] for layer in self.layers_)

    def _project(
        self, train: FeatureSource, images: slice, progress: Callable[[int], None]
    ) -> torch.Tensor:
        """Return the points that the coreset is chosen on: ``(patches, projection)``."""
        import torch

        from indad.methods.coreset import random_projection

        dimensions, mapping = self._dimensions(train), None
        if self.projection < dimensions:
            mapping = random_projection(dimensions, self.projection, self.seed).to(self.device_)
        before = self._patches_before(train, images)
        size = (int(before[-1]), min(self.projection, dimensions))
        points = torch.empty(size, device=self.device_)
        for here in chunks_of(train, self._at_once, images):
            patches = self.embed(self._read_layers(train, here)).flatten(0, 2)
            first, last = (before[image - images.start] for image in (here.start, here.stop))
            points[first:last] = patches if mapping is None else patches @ mapping
            progress(here.stop)
        return points

    def _collect(self, train: FeatureSource, progress: Callable[[int], None]) -> torch.Tensor:
        """Return the embeddings of the patches ``indices_``: ``(keep, D)``."""
        import torch

        bank = torch.empty(len(self.indices_), self._dimensions(train), device=self.device_)
        before = self._patches_before(train).tolist()
        for images in chunks_of(train, self._at_once):
            first, last = before[images.start], before[images.stop]
            chosen = ((self.indices_ >= first) & (self.indices_ < last)).nonzero()[:, 0]
            if len(chosen):
                patches = self.embed(self._read_layers(train, images)).flatten(0, 2)
                inside = (self.indices_[chosen] - first).to(self.device_)
                bank[chosen.to(self.device_)] = patches[inside]
            progress(images.stop)
        return bank

    @property
    def _at_once(self) -> int:
        """Images to embed at once; a GPU whose memory is full gets fewer."""
        return max(1, min(FIT_BATCH, self.memory_ // FIT_IMAGE))

    def _count(self) -> int:
        """Return the size of the coreset, at least 1; rounded down as in the authors' code."""
        return max(1, int(self.patches_ * self.coreset_ratio))

    @property
    def bank_in_use(self) -> torch.Tensor:
        """The bank vectors that scoring uses, ``(G, D)``: a prefix of ``bank_``."""
        return self.bank_[: self._count()]

    @property
    def coreset_radius_(self) -> float:
        """The covering radius of the bank vectors that scoring uses, or its upper bound."""
        return float(self.radii_[self._count() - 1])

    @property
    def facts(self) -> dict[str, float]:
        """The covering radius of the bank vectors that scoring uses."""
        return {"coreset_radius": self.coreset_radius_}

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        from indad.methods.neighbors import Bank

        patches = self.embed(layers)
        batch, height, width, dimensions = patches.shape
        if self._bank is None:
            self._bank = Bank(self.bank_in_use, self.memory_)
        distance, index = self._bank.nearest(patches.reshape(-1, dimensions))
        score, farthest, patch_map = self.summarise(distance.view(batch, height * width))
        if self.neighbours > 1:
            match = index.view(batch, -1).gather(1, farthest[:, None])[:, 0]
            score = self._weighted(score, patches.flatten(1, 2)[range(batch), farthest], match)
        return score, [patch_map.view(batch, height, width)]

    def summarise(self, distance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what follows from the distances of patches to their nearest bank vectors.

        Args:
            distance: Euclidean, ``(B, patches)``.

        Returns:
            Image scores without the weighting ``(B,)``, the index of the farthest patch ``(B,)``,
            and the values of the map ``(B, patches)``.
        """
        if self.distance == "cosine":
            distance = distance.square() / 2
        score, farthest = distance.max(dim=1)
        if self._share is not None:
            count = max(1, int(self._share * distance.shape[1]))
            score = distance.topk(count, dim=1).values.mean(dim=1)
        squared = self.squared and self.distance == "euclidean"
        return score, farthest, distance.square() if squared else distance

    def _weighted(
        self, score: torch.Tensor, patch: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """Weight image scores by equation 7, one minus a softmax: large distances do not overflow.

        Args:
            score: ``(B,)``.
            patch: the farthest patch of each image, ``(B, D)``.
            match: index of its nearest bank vector, ``(B,)``.
        """
        import torch

        bank = self.bank_in_use
        neighbours = min(self.neighbours, len(bank))
        if neighbours == 1:  # a bank of one vector has no density
            return score
        # The match is its own nearest neighbour; with duplicates, another index may be listed.
        near = self._bank.k_nearest(bank[match], neighbours)[1]
        near[:, 0] = match
        distances = (patch[:, None] - bank[near]).square().sum(dim=2).sqrt()
        return score * (1 - torch.softmax(distances, dim=1)[:, 0])

    def _state(self) -> dict[str, torch.Tensor]:
        import torch

        return {
            "bank": self.bank_,
            "indices": self.indices_,
            "radii": self.radii_,
            "patches": torch.tensor(self.patches_),
        }

    def _restore(self, state: Mapping[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        self._bank = None
        self.bank_ = state["bank"]
        self.indices_, self.radii_ = state["indices"].cpu(), state["radii"].cpu()
        self.patches_ = int(state["patches"])
        if self._count() > len(self.bank_):
            raise StoreError(
                f"coreset_ratio: {self.coreset_ratio} asked for, but the model holds only "
                f"{len(self.bank_)} of {self.patches_} patches; fit it again"
            )
