"""PatchCore's patch embeddings: layers of a backbone, pooled and brought to one grid."""

import torch
from torch.nn.functional import adaptive_avg_pool1d, avg_pool2d, interpolate, unfold

#: Dimensions of the authors' embedding, per layer and after merging the layers.
OFFICIAL_DIMENSIONS = 1024


def concat_embedding(layers: list[torch.Tensor], pooling: int) -> torch.Tensor:
    """Average each layer, resize to the first grid, concatenate: ``(B, h, w, sum C)``."""
    pooled = [avg_pool2d(layer, pooling, stride=1, padding=pooling // 2) for layer in layers]
    return torch.cat(_to_first_grid(pooled), dim=1).permute(0, 2, 3, 1).contiguous()


def official_embedding(layers: list[torch.Tensor], pooling: int) -> torch.Tensor:
    """Pool as the authors' code does: ``(B, h, w, 1024)``.

    For each layer the neighbourhoods, flattened to C x 9 numbers for 3 x 3 positions (zero padded),
    are average-pooled to 1024. The concatenated vectors of the layers are average-pooled to 1024
    again. The authors resize the neighbourhoods before pooling; both steps are linear, so resizing
    the pooled vectors gives the same and moves 4 to 9 times less memory.
    """
    pooled = []
    for layer in layers:
        batch, _, height, width = layer.shape
        neighbourhoods = unfold(layer, pooling, padding=pooling // 2).transpose(1, 2)
        vectors = adaptive_avg_pool1d(neighbourhoods, OFFICIAL_DIMENSIONS)
        pooled.append(vectors.transpose(1, 2).reshape(batch, -1, height, width))
    resized = torch.cat(_to_first_grid(pooled), dim=1)
    batch, _, height, width = resized.shape
    positions = resized.flatten(2).transpose(1, 2)
    merged = adaptive_avg_pool1d(positions, OFFICIAL_DIMENSIONS)
    return merged.reshape(batch, height, width, OFFICIAL_DIMENSIONS)


def _to_first_grid(layers: list[torch.Tensor]) -> list[torch.Tensor]:
    """Resize each layer ``(B, C, ., .)`` bilinearly to the first one's grid."""
    size = layers[0].shape[-2:]
    return [interpolate(layer, size=size, mode="bilinear", align_corners=False) for layer in layers]
