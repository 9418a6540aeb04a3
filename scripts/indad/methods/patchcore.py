"""PatchCore: towards total recall in industrial anomaly detection (arXiv:2106.08265)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from indad.core.errors import StoreError
from indad.core.progress import Progress
from indad.features.source import FeatureSource, chunks
from indad.methods.base import Detector

if TYPE_CHECKING:
    import torch

#: Dimensions of the authors' embedding, per layer and in the end.
OFFICIAL_DIMENSIONS = 1024
#: Images embedded at once while fitting.
FIT_BATCH = 16


class PatchCore(Detector):
    """Distance to the nearest patch of a memory bank thinned to a coreset.

    A patch is the 3x3 neighbourhood of a position, per layer, the deeper layers bilinearly
    resized to the first one's grid (section 3.1). The bank holds the first ``coreset_ratio`` of
    the patches in greedy k-centre order, chosen on a random projection (section 3.2, algorithm 1);
    a smaller coreset is a prefix of a larger one's. Patch score: distance to the nearest bank
    vector. Image score: the largest patch score (equation 6), re-weighted over ``neighbours``
    bank vectors (equation 7).

    Args:
        layers: layers to use, shallow to deep; all extracted ones when left out.
        embedding: ``official``, 1024 dimensions as the authors' code pools them, or ``concat``,
            each layer averaged over 3x3 and concatenated.
        coreset_ratio: share of all training patches kept, in (0, 1].
        projection: dimensions of the random projection the coreset is chosen on.
        neighbours: bank vectors of the re-weighting, the match among them; 1 means none, as in
            the authors' code.
        seed: chooses the projection and the first patch.
    """

    method = "patchcore"
    score_parameters = ("coreset_ratio", "neighbours")

    embedding: str
    coreset_ratio: float
    projection: int
    neighbours: int

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        embedding: str = "official",
        coreset_ratio: float = 0.1,
        projection: int = 128,
        neighbours: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layers=layers,
            embedding=embedding,
            coreset_ratio=coreset_ratio,
            projection=projection,
            neighbours=neighbours,
            seed=seed,
        )
        self.check("embedding", "'official' or 'concat'", embedding in ("official", "concat"))
        self.check(
            "coreset_ratio",
            "a number above 0, at most 1",
            isinstance(coreset_ratio, (int, float)) and 0 < coreset_ratio <= 1,
        )
        for name in ("projection", "neighbours"):
            value = self._parameters[name]
            self.check(name, "a whole number of at least 1", isinstance(value, int) and value >= 1)

    @classmethod
    def shared_fit(cls, parameter_sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One greedy order of the largest coreset holds all smaller ones."""
        return {"coreset_ratio": max(each["coreset_ratio"] for each in parameter_sets)}

    @classmethod
    def scored_share(cls, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> float:
        """A smaller coreset is a prefix of the stored one."""
        return parameters["coreset_ratio"] / fitted["coreset_ratio"]

    def _embed(self, layers: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return patch embeddings ``(B, h, w, D)`` on the first layer's grid."""
        if self.embedding == "official":
            return _official_embedding(list(layers.values()))
        return _concat_embedding(list(layers.values()))

    def _embed_images(self, train: FeatureSource, part: slice) -> torch.Tensor:
        import torch

        layers = {
            name: torch.from_numpy(train.maps(name, part)).to(self.device) for name in self.layers_
        }
        return self._embed(layers).flatten(0, 2)

    def _fit(self, train: FeatureSource, progress: Progress) -> None:
        import torch

        from indad.methods.coreset import greedy_k_center, random_projection

        self._searchable: Any = None
        _, height, width = train.shape(self.layers_[0])
        grid = height * width
        self.patches_ = len(train) * grid
        keep = self._count(self.patches_)
        steps = 2 * len(train) + keep

        projected = None
        for part in chunks(len(train), FIT_BATCH):
            patches = self._embed_images(train, part)
            if projected is None:
                dimensions = min(self.projection, patches.shape[1])
                projected = torch.empty(self.patches_, dimensions, device=self.device)
                mapping = random_projection(patches.shape[1], dimensions, self.seed)
                mapping = mapping.to(self.device)
                self.bank_ = torch.empty(keep, patches.shape[1], device=self.device)
            at = slice(part.start * grid, part.stop * grid)
            # Nothing to gain from a projection that does not shrink.
            narrow = dimensions < patches.shape[1]
            projected[at] = patches @ mapping if narrow else patches
            progress(part.stop, steps)

        start = int(np.random.default_rng(self.seed).integers(self.patches_))
        order = greedy_k_center(
            projected,
            keep,
            start=start,
            memory=self.memory,
            progress=lambda done, total: progress(len(train) + done, steps),
        )
        del projected
        self.indices_ = order.indices.cpu()

        # The whole bank never was in memory: embed once more and keep what was chosen.
        for part in chunks(len(train), FIT_BATCH):
            first, last = part.start * grid, part.stop * grid
            chosen = ((self.indices_ >= first) & (self.indices_ < last)).nonzero()[:, 0]
            if len(chosen):
                patches = self._embed_images(train, part)
                wanted = (self.indices_[chosen] - first).to(self.device)
                self.bank_[chosen.to(self.device)] = patches[wanted]
            progress(len(train) + keep + part.stop, steps)

    def _count(self, patches: int) -> int:
        """Return the coreset's size, rounded down as in the authors' code, at least 1."""
        return max(1, int(patches * self.coreset_ratio))

    def _score(
        self, layers: dict[str, torch.Tensor], z: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        patches = self._embed(layers)
        batch, height, width, dimensions = patches.shape
        distance, index = self._bank().nearest(patches.reshape(-1, dimensions))
        distance = distance.view(batch, height * width)
        score, worst = distance.max(dim=1)
        if self.neighbours > 1:
            match = index.view(batch, -1).gather(1, worst[:, None])[:, 0]
            worst_patch = patches.flatten(1, 2)[range(batch), worst]
            score = self._reweighted(score, worst_patch, match)
        return score, [distance.view(batch, height, width)]

    def _bank(self) -> Any:
        """Return the searchable bank of the coreset asked for, a prefix of the stored one."""
        from indad.methods.neighbors import Bank

        count = self._count(self.patches_)
        if self._searchable is None:
            self._searchable = Bank(self.bank_[:count], self.memory)
        return self._searchable

    def _reweighted(
        self, score: torch.Tensor, patch: torch.Tensor, match: torch.Tensor
    ) -> torch.Tensor:
        """Weigh image scores by how lonely the bank's match is (equation 7).

        ``1 - exp(d*) / sum over the match's neighbours of exp(d)`` is computed as one minus a
        softmax, so that large distances do not overflow.
        """
        import torch

        from indad.methods.neighbors import k_nearest

        bank = self.bank_[: self._count(self.patches_)]
        neighbours = min(self.neighbours, len(bank))
        if neighbours == 1:  # a bank of one vector: nothing to weigh by
            return score
        # The match is among its own neighbours; a duplicate of it may take its place in the list.
        near = k_nearest(bank[match], bank, neighbours, memory=self.memory)[1]
        near[:, 0] = match
        distances = (patch[:, None] - bank[near]).square().sum(dim=2).sqrt()
        return score * (1 - torch.softmax(distances, dim=1)[:, 0])

    def _state(self) -> dict[str, torch.Tensor]:
        import torch

        return {
            "bank": self.bank_,
            "indices": self.indices_,
            "patches": torch.tensor(self.patches_),
        }

    def _restore(self, state: dict[str, torch.Tensor], gallery: FeatureSource | None) -> None:
        self._searchable = None
        self.bank_ = state["bank"]
        self.indices_ = state["indices"].cpu()
        self.patches_ = int(state["patches"])
        if self._count(self.patches_) > len(self.bank_):
            raise StoreError(
                f"coreset_ratio: {self.coreset_ratio} asked for, but the model holds only "
                f"{len(self.bank_)} of {self.patches_} patches; fit it again"
            )


def _concat_embedding(layers: list[torch.Tensor]) -> torch.Tensor:
    """Average 3x3 per layer, resize to the first grid, concatenate: ``(B, h, w, sum of C)``."""
    import torch
    from torch.nn.functional import avg_pool2d

    pooled = [avg_pool2d(layer, 3, stride=1, padding=1) for layer in layers]
    return torch.cat(_to_first_grid(pooled), dim=1).permute(0, 2, 3, 1).contiguous()


def _official_embedding(layers: list[torch.Tensor]) -> torch.Tensor:
    """Pool as the authors' code does: ``(B, h, w, 1024)``.

    Per layer: the 3x3 neighbourhood flattened per channel (C x 9 numbers a position, zero padded)
    is average-pooled to 1024. The layers' vectors, one after the other, are average-pooled to
    1024 again. The authors resize the unfolded neighbourhoods; resizing the pooled ones is the
    same, since both steps are linear, and moves 4 to 9 times less.
    """
    import torch
    from torch.nn.functional import adaptive_avg_pool1d, unfold

    pooled = []
    for layer in layers:
        batch, _, height, width = layer.shape
        neighbourhoods = unfold(layer, 3, padding=1).transpose(1, 2)
        vectors = adaptive_avg_pool1d(neighbourhoods, OFFICIAL_DIMENSIONS)
        pooled.append(vectors.transpose(1, 2).reshape(batch, -1, height, width))
    resized = torch.cat(_to_first_grid(pooled), dim=1)
    batch, _, height, width = resized.shape
    positions = resized.flatten(2).transpose(1, 2)
    merged = adaptive_avg_pool1d(positions, OFFICIAL_DIMENSIONS)
    return merged.reshape(batch, height, width, OFFICIAL_DIMENSIONS)


def _to_first_grid(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    from torch.nn.functional import interpolate

    size = layers[0].shape[-2:]
    return [
        layer
        if layer.shape[-2:] == size
        else interpolate(layer, size=size, mode="bilinear", align_corners=False)
        for layer in layers
    ]
