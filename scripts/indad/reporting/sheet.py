"""Drawing of a sheet: for each test image its photo and the anomaly map of each experiment.

The images decide the layout. Photos that are not much wider than tall have a row, with one column
per experiment. Strips are drawn below each other. If a large image has a small defect, the
surroundings of each map's peak are shown enlarged as well.

Only the outline of the mask and a marker at the peak are drawn over a map: scores, verdicts and
frames are beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from indad.evaluation import cases
from indad.evaluation.cases import Case
from indad.evaluation.metrics import regions
from indad.reporting import colours, style

#: Images that are wider than this, relative to their height, are drawn as strips.
STRIP = 2.5
_CMAP = "inferno"
_VERDICTS = {
    cases.MISSED: (colours.MISSED, "black"),
    cases.FALSE_ALARM: (colours.FALSE_ALARM, "white"),
}
# Inches.
_MARGIN, _GAP, _LINE = 0.12, 0.14, 0.15
# Width of the labels of strips, and of the narrowest page.
_LABEL, _NARROWEST = 1.35, 5.0
# An image is large if it is drawn at less than this share of its size in pixels; a defect is small
# if its mask covers less than this share of the image.
_LARGE, _SMALL = 1 / 3, 0.01


class Shown(NamedTuple):
    """What a sheet shows of one image and experiment.

    Attributes:
        map: anomaly map ``(H, W)``.
        mask: ground truth ``(H, W)``; None if there is none inside the crop.
        score: image score.
        verdict: ``missed``, ``false alarm`` or an empty string.
    """

    map: np.ndarray
    mask: np.ndarray | None
    score: float
    verdict: str

    @property
    def aspect(self) -> float:
        """Width of the image in heights."""
        return self.map.shape[1] / self.map.shape[0]

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the highest value of the map."""
        row, column = np.unravel_index(self.map.argmax(), self.map.shape)
        return int(row), int(column)


@dataclass(frozen=True)
class Column:
    """What a sheet shows of an experiment.

    Attributes:
        name: of the experiment.
        threshold: images with a higher score are flagged; NaN if there is none.
        missed, false_alarms: numbers of errors at the threshold among all test images.
        low, high: its colour scale.
        images: the images to show, by name.
    """

    name: str
    threshold: float
    missed: int
    false_alarms: int
    low: float
    high: float
    images: Mapping[str, Shown]


class Box(NamedTuple):
    """A rectangle in inches, from the upper left corner of the page."""

    x: float
    y: float
    width: float
    height: float


class Size(NamedTuple):
    """Width and height in inches."""

    width: float
    height: float


Window = tuple[slice, slice]
#: The window that is the whole image.
WHOLE: Window = (slice(None), slice(None))


class _Page:
    """A page that grows downwards: everything has its place before the figure is made.

    Attributes:
        width: in inches.
        y: where the next paragraph or row begins, in inches from the top.
    """

    def __init__(self, width: float) -> None:
        self.width, self.y = width, _MARGIN
        self._drawn: list[Callable[[Figure], Any]] = []

    def text(self, x: float, y: float, content: str, **look: Any) -> None:
        self._drawn.append(lambda figure: style.text(figure, x, y, content, **look))

    def paragraph(
        self, content: str, after: float = 0.06, *, size: float = style.SMALL, **look: Any
    ) -> None:
        """Write a text over the whole width; it is wrapped and never cut."""
        content = style.fill(content, self.width - 2 * _MARGIN, size)
        self.text(_MARGIN, self.y, content, fontsize=size, linespacing=1.25, **look)
        self.y += (content.count("\n") + 1) * size / style.SMALL * _LINE + after

    def image(self, box: Box, draw: Callable[[Axes], Any]) -> None:
        self._drawn.append(lambda figure: draw(style.axes(figure, *box)))

    def frame(self, box: Box, colour: str) -> None:
        """Draw a frame around a box, outside of it."""
        line, off = 2.5, 0.04

        def draw(figure: Figure) -> None:
            width, height = figure.get_size_inches()
            corner = ((box.x - off) / width, 1 - (box.y + box.height + off) / height)
            size = ((box.width + 2 * off) / width, (box.height + 2 * off) / height)
            look = {"fill": False, "edgecolor": colour, "linewidth": line}
            figure.add_artist(Rectangle(corner, *size, transform=figure.transFigure, **look))

        self._drawn.append(draw)

    def save(self, output: Path) -> None:
        with style.drawing(output, width=self.width, height=self.y + _MARGIN) as figure:
            for draw in self._drawn:
                draw(figure)


def draw(
    shown: Sequence[Case],
    columns: Sequence[Column],
    photos: Mapping[str, np.ndarray],
    output: Path,
    *,
    title: str,
    remark: str,
    notes: str,
) -> None:
    """Draw a sheet.

    Args:
        shown: the images, from top to bottom.
        columns: the experiments.
        photos: uint8 ``(H, W, 3)``, by image. All are of one size, and not taller than
            ``STRIP`` times their width.
        output: the PNG file.
        title: heading.
        remark: text below the heading.
        notes: text below the images.
    """
    first = columns[0].images
    aspect = next(iter(first.values())).aspect
    strips = aspect > STRIP
    if strips:
        page = _Page(style.WIDTH)
        width = page.width - 2 * _MARGIN - _LABEL - _GAP
    else:
        count = 1 + len(columns)
        across = (style.WIDTH - 2 * _MARGIN) / count - _GAP
        width = max(0.9, min(1.4, max(1.0, across / aspect**0.5)) * aspect**0.5)
        page = _Page(max(2 * _MARGIN + count * (width + _GAP) - _GAP, _NARROWEST))
    window = _window_size([first[case.image] for case in shown], width)
    page.paragraph(title, size=11, fontweight="bold")
    page.paragraph(remark, 0.1, color=colours.GREY)
    _legend(page, columns)
    if strips:
        _strips(page, shown, columns, photos, window)
    else:
        _grid(page, shown, columns, photos, Size(width, width / aspect), window)
    page.paragraph(notes, 0, color=colours.GREY)
    page.save(output)


def _window_size(shown: Sequence[Shown], width: float) -> int | None:
    """Return the side in pixels of what is enlarged of images ``width`` inches wide, if it is."""
    tall, wide = shown[0].map.shape
    masks = [each.mask for each in shown if each.mask is not None]
    small = not masks or min(mask.mean() for mask in masks) < _SMALL
    if width * style.DPI > _LARGE * wide or not small:
        return None
    return min(tall, wide, max(96, max(tall, wide) // 32))


def _around(peak: Sequence[int], shape: tuple[int, int], side: int) -> Window:
    """Return the square window around a peak, moved inside the image."""
    starts = [
        min(max(at - side // 2, 0), most - side) for at, most in zip(peak, shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _legend(page: _Page, columns: Sequence[Column]) -> None:
    """List the experiments with their colour scales, thresholds and numbers of errors."""
    beside = int((page.width - 2 * _MARGIN) / 2.65)
    across = (page.width - 2 * _MARGIN) / beside
    for start in range(0, len(columns), beside):
        lines = 0
        for number, each in enumerate(columns[start : start + beside]):
            x = _MARGIN + number * across
            name = style.wrap(each.name, across - 0.15, lines=6)
            lines = max(lines, name.count("\n") + 1)
            below = page.y + (name.count("\n") + 1) * _LINE + 0.02
            page.text(x, page.y, name, fontweight="bold", linespacing=1.25)
            low, high = f"{each.low:.3g}", f"{each.high:.3g}"
            scale = Box(x + 0.07 * len(low) + 0.05, below + 0.02, 0.7, 0.09)
            page.text(x, below, low)
            page.image(scale, _draw_scale)
            page.text(scale.x + scale.width + 0.05, below, high)
            page.text(x, below + _LINE, _summary(each), color=colours.GREY)
        page.y += (lines + 2) * _LINE + 0.12
    page.y += 0.1


def _summary(shown: Column) -> str:
    if np.isnan(shown.threshold):
        return "no threshold: no good images"
    return f"alarm above {shown.threshold:.3g}: {shown.missed} missed, {shown.false_alarms} false"


def _heading(page: _Page, case: Case) -> None:
    """Write the kind of an image, why it is shown, and its file, above it."""
    kind = style.readable(case.defect)
    what = f"{case.why}: {kind}" if case.why else kind
    page.paragraph(what, 0, fontweight="bold")
    page.paragraph(case.image, 0.09, color=colours.GREY)


def _grid(
    page: _Page,
    shown: Sequence[Case],
    columns: Sequence[Column],
    photos: Mapping[str, np.ndarray],
    cell: Size,
    window: int | None,
) -> None:
    """Draw a row for each image, with its photo and the map of each experiment."""
    places = [_MARGIN + i * (cell.width + _GAP) for i in range(1 + len(columns))]
    heads = ["test image", *(style.wrap(each.name, cell.width, lines=6) for each in columns)]
    page.y += (max(head.count("\n") for head in heads) + 1) * _LINE
    for x, head in zip(places, heads, strict=True):
        look = {"ha": "center", "va": "baseline", "fontweight": "bold", "linespacing": 1.2}
        page.text(x + cell.width / 2, page.y, head, **look)
    page.y += 0.08
    side = min(cell.width, 1.4)
    for case in shown:
        _heading(page, case)
        verdict = any(each.images[case.image].verdict for each in columns)
        photo, mask = photos[case.image], columns[0].images[case.image].mask
        page.image(Box(places[0], page.y, *cell), partial(draw_photo, photo=photo, mask=mask))
        for x, each in zip(places[1:], columns, strict=True):
            _map(page, Box(x, page.y, *cell), each, case.image)
            middle = x + cell.width / 2
            _score(page, middle, page.y + cell.height + 0.08, each.images[case.image], "center")
        page.y += cell.height + 0.08 + _LINE * (1 + 1.3 * verdict) + 0.08
        if window:
            factor = side / window * photo.shape[1] / cell.width
            text = f"{factor:.2g} times larger:\naround each peak,\nimage and map"
            if mask is not None:
                text += ";\nbelow: around\nthe defect"
                box = Box(places[0], page.y + side + 0.06, side, side)
                _defect(page, box, photo, mask, window)
            page.text(places[0], page.y, text, color=colours.GREY, linespacing=1.25)
            for x, each in zip(places[1:], columns, strict=True):
                parts = [Box(x, page.y + i * (side + 0.06), side, side) for i in (0, 1)]
                _enlarged(page, parts, each, case.image, photo, window)
            page.y += 2 * (side + 0.06) + 0.06
        page.y += 0.06


def _strips(
    page: _Page,
    shown: Sequence[Case],
    columns: Sequence[Column],
    photos: Mapping[str, np.ndarray],
    window: int | None,
) -> None:
    """Draw the photo and the maps of an image below each other, with the enlarged parts beside."""
    side = 0.85
    left = _MARGIN + _LABEL + _GAP
    right = page.width - _MARGIN - (2 * (side + 0.08) + 0.04 if window else 0)
    for case in shown:
        _heading(page, case)
        photo, mask = photos[case.image], columns[0].images[case.image].mask
        strip = Size(right - left, (right - left) * photo.shape[0] / photo.shape[1])
        page.image(Box(left, page.y, *strip), partial(draw_photo, photo=photo, mask=mask))
        page.text(_MARGIN, page.y, "test image", fontweight="bold")
        if window:
            x, factor = right + 0.12, side / window * photo.shape[1] / strip.width
            text = f"{factor:.2g} times larger,\naround each peak"
            if mask is not None:
                _defect(page, Box(x, page.y, side, side), photo, mask, window)
                x, text = (
                    x + side + 0.08,
                    f"{factor:.2g} times\nlarger: the\ndefect; below,\neach peak",
                )
            page.text(x, page.y, text, color=colours.GREY, linespacing=1.25)
        enlarged = side if window and mask is not None else 0
        page.y += max(strip.height, 2 * _LINE, enlarged) + _GAP
        for each in columns:
            name = style.wrap(each.name, _LABEL, lines=6)
            below = page.y + (name.count("\n") + 1) * _LINE
            page.text(_MARGIN, page.y, name, fontweight="bold", linespacing=1.2)
            image = each.images[case.image]
            _score(page, _MARGIN, below, image, "left")
            text = below + _LINE * (1 + 1.3 * bool(image.verdict)) - page.y
            _map(page, Box(left, page.y, *strip), each, case.image)
            if window:
                parts = [Box(right + 0.12 + i * (side + 0.08), page.y, side, side) for i in (0, 1)]
                _enlarged(page, parts, each, case.image, photo, window)
            page.y += max(strip.height, text, side if window else 0) + 0.18
        page.y += 0.1


def _defect(page: _Page, box: Box, photo: np.ndarray, mask: np.ndarray, side: int) -> None:
    window = _around(smallest_region(mask), mask.shape, side)
    page.image(box, partial(draw_photo, photo=photo, mask=mask, window=window))


def smallest_region(mask: np.ndarray) -> np.ndarray:
    """Return row and column of the middle one of the pixels of a mask's smallest region."""
    numbers = regions(mask[None])[0]
    sizes = np.bincount(numbers.ravel())[1:]
    pixels = np.argwhere(numbers == 1 + sizes.argmin())
    return pixels[len(pixels) // 2]


def _score(page: _Page, x: float, y: float, shown: Shown, align: str) -> None:
    """Write an image's score, and below it the verdict if it is wrong."""
    page.text(x, y, f"{shown.score:.3g}", ha=align)
    if shown.verdict:
        paper, ink = _VERDICTS[shown.verdict]
        box = {"facecolor": paper, "edgecolor": "none", "pad": 1.5}
        off = 0.02 if align == "left" else 0
        look = {"ha": align, "color": ink, "fontweight": "bold", "bbox": box}
        page.text(x + off, y + _LINE + 0.02, shown.verdict, **look)


def _map(page: _Page, box: Box, column: Column, image: str) -> None:
    page.image(box, partial(draw_map, column=column, image=image))
    if verdict := column.images[image].verdict:
        page.frame(box, _VERDICTS[verdict][0])


def _enlarged(
    page: _Page, boxes: Sequence[Box], column: Column, image: str, photo: np.ndarray, side: int
) -> None:
    """Draw the surroundings of a map's peak: the photo, and the map."""
    shown = column.images[image]
    window = _around(shown.peak, shown.map.shape, side)
    page.image(boxes[0], partial(draw_photo, photo=photo, mask=shown.mask, window=window))
    page.image(boxes[1], partial(draw_map, column=column, image=image, window=window))


def draw_photo(
    axis: Axes, photo: np.ndarray, mask: np.ndarray | None, window: Window = WHOLE
) -> None:
    """Draw a photo, or a part of it, with the outline of its mask."""
    axis.imshow(photo[window], interpolation="antialiased", aspect="auto")
    _outline(axis, mask, window, 1.3)


def draw_map(axis: Axes, column: Column, image: str, window: Window = WHOLE) -> None:
    """Draw an anomaly map, or a part of it, with the outline of the mask and a mark at its peak."""
    shown = column.images[image]
    axis.imshow(
        shown.map[window], cmap=_CMAP, vmin=column.low, vmax=column.high, aspect="auto",
        interpolation="antialiased",
    )  # fmt: skip
    _outline(axis, shown.mask, window, 0.8)
    y, x = (at - (part.start or 0) for at, part in zip(shown.peak, window, strict=True))
    for width, colour in ((2.2, "black"), (1, "white")):
        axis.plot(
            x, y, marker="o", markersize=7, markerfacecolor="none", markeredgecolor=colour,
            markeredgewidth=width, clip_on=False,
        )  # fmt: skip


def _outline(axis: Axes, mask: np.ndarray | None, window: Window, width: float) -> None:
    """Outline the ground truth, visible on a bright and on a dark image."""
    if mask is None:
        return
    part = mask[window]
    if part.any() and not part.all():
        contour = axis.contour(part, levels=[0.5], colors=colours.OUTLINE, linewidths=width)
        edge = patheffects.withStroke(linewidth=width + 1.4, foreground="black", alpha=0.6)
        contour.set_path_effects([edge])


def _draw_scale(axis: Axes) -> None:
    axis.imshow(np.linspace(0, 1, 128)[None], cmap=_CMAP, aspect="auto")
