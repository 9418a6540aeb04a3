"""Draw how SPADE, PaDiM and PatchCore work: docs/schematics/*.svg and *.png.

All three have the same layout: training images at the top, the test image at the bottom, the same
backbone for both, the steps of the method in the middle, and the anomaly map on the right.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle, Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from indad.reporting import colours, style

#: Figure size; all coordinates below are tenths of an inch, from the lower left corner.
WIDTH, HEIGHT = 10 * style.WIDTH, 29.6
TOP, BOTTOM = 20.0, 7.0
LAYERS = ("#56B4E9", "#0072B2", "#0b3c5d")
ACCENT = "#D55E00"
SOFT = "#eef1f4"
SIZES = (6, 4, 3)


def text(axis: Axes, x: float, y: float, words: str, **options) -> None:
    """Write centred text."""
    look = {"ha": "center", "va": "center", "linespacing": 1.25, "fontsize": style.SMALL} | options
    axis.text(x, y, words, **look)


def arrow(axis: Axes, start: tuple, end: tuple, *, colour: str = colours.GREY, bend: float = 0.0):
    """Draw an arrow between two points."""
    axis.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.2,
            connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, zorder=5,
        )
    )  # fmt: skip


def photo(axis: Axes, x: float, y: float, side: float, *, defect: bool = False) -> None:
    """Draw a product seen from above, whose lower left corner is (x, y)."""
    axis.add_patch(
        Rectangle((x, y), side, side, facecolor="#f4f1ea", edgecolor=colours.GREY, linewidth=0.8)
    )
    middle = (x + side / 2, y + side / 2)
    for share, colour in ((0.42, "#6d7781"), (0.33, "#aab3bb"), (0.2, "#4b545c")):
        axis.add_patch(Circle(middle, share * side, facecolor=colour, edgecolor="none"))
    if defect:
        crack = np.array([(0.60, 0.62), (0.70, 0.74), (0.72, 0.66), (0.84, 0.78), (0.76, 0.60)])
        axis.add_patch(
            Polygon(crack * side + (x, y), facecolor="#f7e04b", edgecolor="#9a4a00", linewidth=0.8)
        )


def photos(axis: Axes, x: float, y: float, side: float) -> None:
    """Draw a stack of good images."""
    for shift in (1.2, 0.6, 0):
        photo(axis, x + shift, y + shift, side)


def backbone(axis: Axes, x: float, y: float) -> None:
    """Draw the layers of the network, centred on the height y."""
    for i, (colour, half) in enumerate(zip(LAYERS, (3.6, 2.9, 2.2), strict=True)):
        left = x + 3.0 * i
        axis.add_patch(
            FancyBboxPatch(
                (left, y - half), 2.2, 2 * half, facecolor=colour, edgecolor="none",
                boxstyle="round,pad=0,rounding_size=0.4",
            )
        )  # fmt: skip
        text(axis, left + 1.1, y, str(i + 1), color="white", fontweight="bold")


def grid(
    axis: Axes,
    x: float,
    y: float,
    side: float,
    cells: int,
    colour: str,
    *,
    marked: Sequence[tuple[int, int]] = (),
    mark: str = ACCENT,
) -> None:
    """Draw a feature map of ``cells`` x ``cells`` positions."""
    step = side / cells
    spots = [(column, row) for row in range(cells) for column in range(cells)]
    axis.add_collection(
        PatchCollection(
            [Rectangle((x + step * i, y + step * j), step, step) for i, j in spots],
            facecolors=[mark if spot in marked else colour for spot in spots],
            edgecolors="white",
            linewidths=0.6,
        )
    )


def pyramid(axis: Axes, x: float, y: float, layers: Sequence[int], copies: int = 1) -> None:
    """Draw the maps of some layers, centred on the height y; stacked for several images."""
    side = 2.6
    bottom = y - (side + 0.45) * len(layers) / 2 + 0.2
    for place, layer in enumerate(reversed(layers)):
        for copy in range(copies - 1, -1, -1):
            shift = 0.45 * copy
            grid(
                axis, x + shift, bottom + place * (side + 0.45) + shift * 0.6, side, SIZES[layer],
                LAYERS[layer],
            )  # fmt: skip


def heat(axis: Axes, x: float, y: float, side: float) -> None:
    """Draw an anomaly map."""
    down, across = np.mgrid[0:1:60j, 0:1:60j]
    values = np.exp(-((across - 0.73) ** 2 + (down - 0.69) ** 2) / 0.016)
    values += 0.16 * np.exp(-((np.hypot(across - 0.5, down - 0.5) - 0.36) ** 2) / 0.006)
    axis.imshow(
        values, extent=(x, x + side, y, y + side), origin="lower", cmap="inferno", zorder=2,
        interpolation="bilinear",
    )  # fmt: skip


def panel(axis: Axes, x: float, width: float, title: str, y: float, height: float) -> None:
    """Draw the box of one step of a method."""
    axis.add_patch(
        FancyBboxPatch(
            (x, y), width, height, facecolor=SOFT, edgecolor="none",
            boxstyle="round,pad=0,rounding_size=0.8", zorder=0,
        )
    )  # fmt: skip
    text(axis, x + width / 2, y + height - 1.2, title, fontweight="bold")


def common(axis: Axes, name: str, idea: str, layers: Sequence[int], keep: str, seen: str) -> None:
    """Draw what all three have in common: images, features, and the anomaly map."""
    text(axis, 1, HEIGHT - 1.7, name, ha="left", fontsize=11, fontweight="bold")
    text(axis, 13, HEIGHT - 1.75, idea, ha="left", color=colours.GREY, fontsize=9)
    for y, defect, words, below in (
        (TOP, False, "good images", keep),
        (BOTTOM, True, "test image", seen),
    ):
        if defect:
            photo(axis, 1.5, y - 3.4, 6.8, defect=True)
        else:
            photos(axis, 1.0, y - 3.8, 6.4)
        text(axis, 4.9, y - 6.0, words, va="baseline")
        arrow(axis, (9.2, y), (11.4, y))
        backbone(axis, 11.9, y)
        text(axis, 16.0, y - 6.0, "backbone", va="baseline")
        arrow(axis, (20.6, y), (22.8, y))
        pyramid(axis, 23.4, y, layers, copies=1 if defect else 3)
        text(axis, 25.2, y - 6.0, below, va="baseline")
    heat(axis, 73.6, BOTTOM - 3.4, 6.8)
    text(axis, 77.0, BOTTOM - 6.0, "anomaly map", va="baseline")


def spade(axis: Axes) -> None:
    """Cohen and Hoshen, arXiv:2005.02357."""
    common(
        axis,
        "SPADE",
        "Is it anywhere in the nearest good images?",
        (0, 1, 2),
        "kept as they are",
        "layers 1 to 3",
    )
    rng = np.random.default_rng(3)

    panel(axis, 31.5, 17, "1  nearest images", 2.6, 23)
    points = np.column_stack([rng.uniform(33, 47, 16), rng.uniform(11, 22, 16)])
    test = np.array([39.5, 16.0])
    points = points[np.hypot(*(points - test).T) > 1.6]
    order = np.argsort(np.hypot(*(points - test).T))
    for i, point in enumerate(points):
        near = i in order[:3]
        if near:
            axis.plot(*zip(test, point, strict=True), color=ACCENT, linewidth=1, zorder=1)
        axis.add_patch(
            Circle(
                point, 0.55, facecolor=LAYERS[2] if near else "#a9b4be", edgecolor="none", zorder=3
            )
        )
    axis.scatter(*test, marker="*", s=130, color=ACCENT, zorder=4, linewidths=0)
    text(
        axis,
        40,
        6.3,
        "last stage, average-pooled;\nimage score: mean squared\ndistance to the K nearest",
    )
    arrow(axis, (29.2, TOP), (31.2, TOP))
    arrow(axis, (28.2, BOTTOM), (31.2, BOTTOM))

    panel(axis, 51.2, 20, "2  nearest positions", 2.6, 23)
    arrow(axis, (48.8, 14.4), (51.0, 14.4))
    for copy in (2, 1, 0):
        grid(
            axis,
            53 + 0.9 * copy,
            16.2 + 0.7 * copy,
            5.2,
            6,
            LAYERS[0],
            marked=[(1, 4)] if not copy else [],
        )
    text(axis, 65.8, 19.6, "gallery: all\npositions of\nthe K images", fontsize=style.SMALL)
    grid(axis, 53, 8.4, 5.2, 6, "#cfd6dc", marked=[(4, 4)])
    arrow(axis, (57.0, 12.6), (54.8, 19.8), colour=ACCENT, bend=-0.15)
    text(axis, 65.6, 11.6, "each feature's\ndistance to the\nnearest, at any\nposition")
    text(axis, 61.2, 4.8, "per layer; mean of layers 1 to 3")
    arrow(axis, (71.5, BOTTOM), (73.2, BOTTOM))


def padim(axis: Axes) -> None:
    """Defard et al., arXiv:2011.08785."""
    common(
        axis,
        "PaDiM",
        "Is it likely at this position?",
        (0, 1, 2),
        "layers 1 to 3",
        "layers 1 to 3",
    )
    rng = np.random.default_rng(1)

    panel(axis, 31.5, 15.5, "1  embedding", 2.6, 23)
    arrow(axis, (29.2, TOP), (31.2, TOP))
    arrow(axis, (28.2, BOTTOM), (31.2, BOTTOM))
    chosen = np.zeros(18, bool)
    chosen[rng.choice(18, 7, replace=False)] = True
    for y in (TOP - 0.6, BOTTOM + 2.6):
        for i in range(18):
            colour = LAYERS[0] if i < 4 else LAYERS[1] if i < 10 else LAYERS[2]
            axis.add_patch(
                Rectangle(
                    (33.2 + 0.68 * i, y - 1.3), 0.5, 2.6, facecolor=colour, edgecolor="none",
                    alpha=1.0 if chosen[i] else 0.18,
                )
            )  # fmt: skip
    text(axis, 39.25, 14.5, "per position: layers\nconcatenated, a random\nsubset of channels")
    text(axis, 39.25, 6.9, "the same channels")

    panel(axis, 50.2, 21, "2  a Gaussian per position", 2.6, 23)
    arrow(axis, (47.3, TOP - 0.6), (50.0, TOP - 0.6))
    arrow(axis, (47.3, BOTTOM + 2.6), (50.0, BOTTOM + 2.6))
    side, left, low = 1.85, 52.0, 15.2
    for row in range(4):
        for column in range(4):
            x, y = left + side * (column + 0.5), low + side * (row + 0.5)
            marked = (column, row) == (2, 2)
            axis.add_patch(
                Rectangle(
                    (x - side / 2, y - side / 2), side, side, facecolor="white",
                    edgecolor="#a9b4be", linewidth=0.6,
                )
            )  # fmt: skip
            width, height, angle = rng.uniform(0.9, 1.5), rng.uniform(0.4, 0.8), rng.uniform(0, 180)
            for scale, alpha in ((1, 0.35), (0.55, 0.9)):
                axis.add_patch(
                    Ellipse(
                        (x, y), scale * width, scale * height, angle=angle, alpha=alpha,
                        facecolor=ACCENT if marked else LAYERS[1], edgecolor="none",
                    )
                )  # fmt: skip
    text(axis, 65.6, 19.0, "mean and\ncovariance\nover the good\nimages")
    grid(axis, 52.0, 5.6, 7.4, 4, "#cfd6dc", marked=[(2, 2)])
    arrow(axis, (56.6, 11.4), (56.6, 19.3), colour=ACCENT)
    text(axis, 65.6, 9.2, "Mahalanobis\ndistance at the\nsame position")
    arrow(axis, (71.5, BOTTOM), (73.2, BOTTOM))
    text(axis, 77.0, 12.4, "image score:\nits maximum")


def patchcore(axis: Axes) -> None:
    """Roth et al., arXiv:2106.08265."""
    common(
        axis,
        "PatchCore",
        "Is it like any patch of any good image?",
        (1, 2),
        "layers 2 and 3",
        "layers 2 and 3",
    )
    rng = np.random.default_rng(5)

    panel(axis, 31.5, 15.5, "1  local patches", 2.6, 23)
    arrow(axis, (29.2, TOP), (31.2, TOP))
    arrow(axis, (28.2, BOTTOM), (31.2, BOTTOM))
    around = [(i, j) for i in (1, 2, 3) for j in (2, 3, 4)]
    for y in (TOP - 3.6, BOTTOM - 1.6):
        grid(axis, 33.4, y, 6.0, 6, "#9cc3dd", marked=around, mark=LAYERS[1])
        step = 1.0
        axis.add_patch(
            Rectangle(
                (33.4 + 2 * step, y + 3 * step), step, step, facecolor=ACCENT, edgecolor="white"
            )
        )
        arrow(axis, (39.7, y + 3.5), (42.2, y + 3.5))
        axis.add_patch(Rectangle((42.8, y + 1.4), 1.0, 4.2, facecolor=LAYERS[1], edgecolor="none"))
        axis.add_patch(Rectangle((42.8, y + 1.4), 1.0, 2.1, facecolor=LAYERS[2], edgecolor="none"))
    text(axis, 39.25, 14.0, "mean of 3 x 3 positions,\nlayers joined")

    panel(axis, 50.2, 21, "2  a bank of patches", 2.6, 23)
    arrow(axis, (47.3, TOP - 0.1), (50.0, TOP - 0.1))
    arrow(axis, (47.3, BOTTOM + 1.9), (50.0, BOTTOM + 1.9))
    cloud = np.concatenate(
        [rng.normal(c, s, (n, 2)) for c, s, n in (((55.0, 19.6), 1.2, 46), ((58.6, 17.6), 0.9, 30))]
    )
    cloud = cloud[(cloud[:, 0] > 51.4) & (cloud[:, 0] < 61.2) & (cloud[:, 1] < 22.6)]
    chosen = [0]
    for _ in range(9):
        gap = np.min(np.hypot(*(cloud[:, None] - cloud[chosen][None]).transpose(2, 0, 1)), axis=1)
        chosen.append(int(gap.argmax()))
    axis.scatter(*cloud.T, s=7, color="#a9b4be", linewidths=0, zorder=2)
    axis.scatter(*cloud[chosen].T, s=26, color=LAYERS[2], linewidths=0, zorder=3)
    test = np.array([56.5, 11.0])
    axis.scatter(*test, marker="*", s=130, color=ACCENT, zorder=4, linewidths=0)
    nearest = cloud[chosen][np.hypot(*(cloud[chosen] - test).T).argmin()]
    axis.plot(*zip(test, nearest, strict=True), color=ACCENT, linewidth=1.4, zorder=1)
    text(axis, 66.2, 18.8, "greedy coreset:\nalways the patch\nfarthest from\nthose chosen")
    text(axis, 66.0, 10.4, "distance to the\nnearest in the\nbank")
    text(axis, 60.7, 4.8, "any image, any position")
    arrow(axis, (71.5, BOTTOM), (73.2, BOTTOM))
    text(axis, 77.0, 12.4, "image score:\nworst patch")


METHODS: dict[str, Callable[[Axes], None]] = {
    "spade": spade,
    "padim": padim,
    "patchcore": patchcore,
}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--output", type=Path, default=Path("docs/schematics"), metavar="FOLDER")
    given = parse.parse_args()
    for name, draw in METHODS.items():
        outputs = [given.output / f"{name}.{suffix}" for suffix in ("svg", "png")]
        with style.drawing(*outputs, width=WIDTH / 10, height=HEIGHT / 10) as figure:
            axis = figure.add_axes((0, 0, 1, 1))
            axis.axis("off")
            draw(axis)
            axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")


if __name__ == "__main__":
    main()
