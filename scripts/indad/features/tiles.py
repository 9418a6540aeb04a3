"""Large images in overlapping tiles: the backbone sees one tile at a time.

The feature maps of the tiles are joined to one grid, as if the backbone had seen the whole image.
Where tiles overlap, each half of the overlap comes from the tile whose border is farther away, so
that the effect of the border, which the zero padding of convolutions has, is cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, NamedTuple, Self

from torch import Tensor

from indad.core.errors import ConfigError
from indad.data.images import Size
from indad.features.backbone import CLASS, Backbone


class Span(NamedTuple):
    """One tile along one side of an image, in pixels.

    Attributes:
        start, stop: what the backbone sees.
        first, last: what is kept of its maps.
    """

    start: int
    stop: int
    first: int
    last: int


def spans(length: int, size: int, overlap: int, stride: int) -> list[Span]:
    """Cut one side of an image into tiles whose borders are multiples of a stride.

    Args:
        length: of the side in pixels.
        size: of a tile.
        overlap: of neighbouring tiles, at least; that of the last two may be larger.
        stride: pixels of a position of the coarsest layer.

    Raises:
        ConfigError: a length is not a multiple of ``stride``, or ``overlap`` is too large.
    """
    size = min(size, length)
    for name, value in (("image", length), ("tile", size), ("overlap", overlap)):
        if value % stride:
            raise ConfigError(
                f"tiles: the {name} has {value} pixels, which is not a multiple of {stride}, the "
                "stride of the deepest layer; choose other 'tiles', 'resize: [height, width]' or "
                "'crop'"
            )
    if overlap >= size and length > size:
        raise ConfigError(f"tiles: overlap {overlap} is not smaller than the size {size}")
    starts = [*range(0, length - size, size - overlap), length - size]
    middles = [(start + size + after) // 2 for start, after in pairwise(starts)]
    cuts = [0, *(middle // stride * stride for middle in middles), length]
    return [
        Span(start, start + size, first, last)
        for start, (first, last) in zip(starts, pairwise(cuts), strict=True)
    ]


@dataclass(frozen=True)
class TiledBackbone(Backbone):
    """A backbone that sees images in tiles; the class token is the average over the tiles.

    Attributes:
        tile: ``(height, width)`` of a tile in pixels.
        overlap: of neighbouring tiles in pixels.
    """

    tile: Size = (0, 0)
    overlap: int = 0

    @classmethod
    def of(cls, backbone: Backbone, tiles: Mapping[str, Any]) -> Self:
        """Make a backbone that sees tiles from one that sees whole images.

        Args:
            backbone: of whole images.
            tiles: ``size``, a side or ``[height, width]``, and ``overlap``, in pixels.
        """
        size = tiles["size"]
        tile = (size, size) if isinstance(size, int) else (size[0], size[1])
        return cls(**vars(backbone), tile=tile, overlap=tiles["overlap"])

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the feature map of each layer, as `Backbone`, joined from those of the tiles.

        Raises:
            ConfigError: the tiles cannot be joined.
        """
        height, width = images.shape[2:]
        sides = min(self.tile[0], height), min(self.tile[1], width)
        first = super().__call__(images[..., : sides[0], : sides[1]])
        shapes = {layer: tuple(values.shape[1:]) for layer, values in first.items()}
        strides = self._strides(shapes, sides)
        rows, columns = self._spans(strides, height, width)
        joined = {
            layer: values.new_zeros(
                values.shape[0], *self._joined(shapes, strides, height, width)[layer]
            )
            for layer, values in first.items()
        }
        for row, column in product(rows, columns):
            maps = first
            if row.start or column.start:
                tile = images[..., row.start : row.stop, column.start : column.stop]
                maps = super().__call__(tile)
            for layer, values in maps.items():
                if layer == CLASS:
                    joined[layer] += values / (len(rows) * len(columns))
                else:
                    _keep(joined[layer], values, row, column, strides[layer])
        return joined

    def _strides(self, shapes: Mapping[str, tuple[int, ...]], sides: Size) -> dict[str, Size]:
        """Return the pixels of a position of each layer, from the maps of one tile."""
        strides = {}
        for layer, (_, rows, columns) in shapes.items():
            if layer == CLASS:
                continue
            if sides[0] % rows or sides[1] % columns:
                raise ConfigError(
                    f"tiles: {layer} has {rows} x {columns} positions in a tile of {sides[0]} x "
                    f"{sides[1]} pixels, so that its grid cannot be joined; choose a 'size' that "
                    "is a multiple of them"
                )
            strides[layer] = (sides[0] // rows, sides[1] // columns)
        return strides

    def _spans(self, strides: Mapping[str, Size], *size: int) -> tuple[list[Span], list[Span]]:
        """Return the tiles along the height and the width of images of a size."""
        down, across = map(max, zip(*strides.values(), strict=True)) if strides else (1, 1)
        return (
            spans(size[0], self.tile[0], self.overlap, down),
            spans(size[1], self.tile[1], self.overlap, across),
        )

    def _joined(
        self, shapes: Mapping[str, tuple[int, ...]], strides: Mapping[str, Size], *size: int
    ) -> dict[str, tuple[int, ...]]:
        """Return ``(C, h, w)`` of each layer of images of a size, from those of a tile."""
        height, width = size
        grids = {
            layer: (shapes[layer][0], height // down, width // across)
            for layer, (down, across) in strides.items()
        }
        return {**shapes, **grids}

    def feature_shapes(self, height: int, width: int) -> dict[str, tuple[int, int, int]]:
        """Return each layer's ``(C, h, w)`` for images of ``(height, width)`` pixels.

        Raises:
            ConfigError: the tiles cannot be joined, or the network cannot run on them.
        """
        shapes, strides = self._tile(height, width)
        self._spans(strides, height, width)
        return self._joined(shapes, strides, height, width)  # type: ignore[return-value]

    def tiles(self, height: int, width: int) -> Size:
        """Return the numbers of tiles along the height and the width of images of a size.

        Raises:
            ConfigError: as `feature_shapes`.
        """
        rows, columns = self._spans(self._tile(height, width)[1], height, width)
        return len(rows), len(columns)

    def _tile(self, height: int, width: int) -> tuple[dict, dict[str, Size]]:
        """Return the shapes of a tile's maps in images of a size, and the layers' strides."""
        sides = min(self.tile[0], height), min(self.tile[1], width)
        shapes = super().feature_shapes(*sides)
        return shapes, self._strides(shapes, sides)


def _keep(joined: Tensor, values: Tensor, row: Span, column: Span, stride: Size) -> None:
    """Copy what is kept of a tile's map into the joined map."""
    target, source = [], []
    for span, pixels in zip((row, column), stride, strict=True):
        target.append(slice(span.first // pixels, span.last // pixels))
        source.append(
            slice((span.first - span.start) // pixels, (span.last - span.start) // pixels)
        )
    joined[:, :, target[0], target[1]] = values[:, :, source[0], source[1]]
