"""Images in overlapping tiles: the joined maps are those of the whole image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from indad.core.errors import ConfigError
from indad.features.backbone import Backbone, load_backbone
from indad.features.tiles import Span, TiledBackbone, spans


class PointWise(nn.Module):
    """A network of 1 x 1 convolutions: each position sees its own pixels only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 5, 4, stride=4)
        self.second = nn.Conv2d(5, 7, 2, stride=2)

    def forward_intermediates(self, images, **options):
        first = self.first(images)
        return [first, self.second(first.relu())]


def backbone(model: nn.Module) -> Backbone:
    grey = (0.5, 0.5, 0.5)
    return Backbone(model, {"a": 0, "b": 1}, "net", grey, grey, "", "", [])


@pytest.mark.parametrize(("size", "overlap"), [(32, 16), ([48, 24], 8), (40, 0), (200, 8)])
def test_tiles_of_a_network_without_context_change_nothing(size, overlap):
    whole = backbone(PointWise().eval())
    tiled = TiledBackbone.of(whole, {"size": size, "overlap": overlap})
    images = torch.rand(2, 3, 72, 88)
    with torch.no_grad():
        expected, found = whole(images), tiled(images)
    for layer, values in expected.items():
        torch.testing.assert_close(found[layer], values)
        assert tiled.feature_shapes(72, 88)[layer] == tuple(values.shape[1:])


def test_a_constant_texture_has_no_seams():
    """Padding at the borders of tiles is cut off with half of the overlap."""
    whole = load_backbone("test_resnet", layers=["layer1", "layer2"], weights="random")
    tiled = TiledBackbone.of(whole, {"size": 128, "overlap": 96})
    images = torch.full((1, 3, 224, 288), 0.7)
    found = tiled(images)
    for layer, values in whole(images).items():
        torch.testing.assert_close(found[layer], values, rtol=1e-4, atol=1e-5)
        inside = found[layer][0, :, 6:-6, 6:-6].flatten(1)
        assert (inside.amax(1) - inside.amin(1)).max() < 1e-4


def test_spans_cover_a_side_and_are_cut_in_the_middle():
    assert spans(64, 128, 32, 8) == [Span(0, 64, 0, 64)]
    assert spans(96, 64, 32, 8) == [Span(0, 64, 0, 48), Span(32, 96, 48, 96)]
    assert [each[:2] for each in spans(200, 64, 16, 8)] == [
        (0, 64), (48, 112), (96, 160), (136, 200),
    ]  # fmt: skip
    for length in range(64, 400, 8):
        found = spans(length, 64, 24, 8)
        assert [each.first for each in found] == [0, *(each.last for each in found[:-1])]
        assert found[-1].last == found[-1].stop == length
        assert all(each.start <= each.first < each.last <= each.stop for each in found)


@pytest.mark.parametrize(
    ("length", "size", "overlap", "message"),
    [
        (100, 64, 16, "the image has 100 pixels, which is not a multiple of 8"),
        (128, 60, 16, "the tile has 60 pixels"),
        (128, 64, 10, "the overlap has 10 pixels"),
        (128, 64, 64, "overlap 64 is not smaller than the size 64"),
    ],
)
def test_tiles_that_cannot_be_joined(length, size, overlap, message):
    with pytest.raises(ConfigError, match=message):
        spans(length, size, overlap, 8)


def test_the_class_token_is_the_average_over_the_tiles():
    def pooled(images, **options):
        return [(images[:, :, ::8, ::8], images.mean(dim=(2, 3))[:, None])]

    model = SimpleNamespace(
        forward_intermediates=pooled, parameters=lambda: iter([torch.zeros(1)]), norm=None
    )
    grey = (0.5, 0.5, 0.5)
    whole = Backbone(model, {"cls": 0, "blocks.0": 0}, "net", grey, grey, "", "", [])  # type: ignore[arg-type]
    tiled = TiledBackbone.of(whole, {"size": 32, "overlap": 0})
    images = torch.rand(2, 3, 64, 64)
    found = tiled(images)
    torch.testing.assert_close(found["cls"][..., 0, 0], images.mean(dim=(2, 3)))
