"""The common style of all figures: size, fonts, colours, and how they are saved.

Figures are designed for a width of 800 pixels, as a README or a report shows them, and have a white
background, so that they look the same on a light and on a dark page. They are drawn without pyplot,
so matplotlib's backend and settings stay as they are.
"""

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator

from indad.core import atomic
from indad.reporting.colours import GREY, INK, PALE, PALETTE

#: Width in inches of a figure shown at 800 pixels, 96 per inch: a point is then a point.
WIDTH = 800 / 96
#: Pixels per inch of the file: 1.5 times as many as are shown, for high-resolution screens.
DPI = 144
#: Smallest font size, in points.
SMALL = 8.0

_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": SMALL,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def drawing(
    output: Path, *, width: float = WIDTH, height: float, **options: Any
) -> Iterator[Figure]:
    """Give an empty figure in the common style; it is saved at the end of the block.

    Args:
        output: the PNG file.
        width, height: in inches.
        options: of ``matplotlib.figure.Figure``.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), **options)
        FigureCanvasAgg(figure)
        yield figure
        save(figure, output)


@contextmanager
def panels(
    output: Path,
    title: str,
    rows: int,
    columns: int,
    *,
    width: float = WIDTH,
    height: float,
    space: tuple[float, float] = (0.02, 0.02),
    **options: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Give a figure with a title and its axes ``(rows, columns)``; it is saved as by ``drawing``.

    Args:
        output: the PNG file.
        title: heading.
        rows, columns: numbers of axes.
        width, height: in inches.
        space: horizontal and vertical space between axes, as a share of their size.
        options: of ``Figure.subplots``.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=space[0], hspace=space[1])
    with drawing(output, width=width, height=height, layout=layout) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        figure.suptitle(heading(title, width), x=0.012, ha="left", fontsize=11, fontweight="bold")
        yield figure, axes


def text(figure: Figure, x: float, y: float, content: str, **options: Any) -> None:
    """Write a text whose upper left corner is at a place in inches, measured from the top."""
    width, height = figure.get_size_inches()
    figure.text(x / width, 1 - y / height, content, **{"va": "top"} | options)


def axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add axes without ticks and frame at a place in inches, measured from the upper left."""
    across, down = figure.get_size_inches()
    place = (x / across, 1 - (y + height) / down, width / across, height / down)
    axis = figure.add_axes(place)
    bare(axis)
    return axis


def bare(axis: Axes) -> None:
    """Remove the ticks and the frame of an axis."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def line(number: int) -> dict[str, Any]:
    """Return colour and dashes of the experiment with this number; 28 are different."""
    again, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": _DASHES[again % len(_DASHES)]}


def marker(number: int) -> dict[str, Any]:
    """Return colour and marker of the experiment with this number; 49 are different."""
    again, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "marker": _MARKERS[again % len(_MARKERS)]}


def wrap(name: str, width: float, size: float = SMALL, lines: int = 2) -> str:
    """Break a name at ``-``, ``_``, ``/`` or a space so that it fits ``width`` inches.

    A line that is too long is shortened in the middle, where names differ least.
    """
    most = max(4, int(width / (size * 0.0092)))
    out = [""]
    for part in re.findall(r"[^-_ /]+[-_ /]*|[-_ /]+", name):
        if len((out[-1] + part).rstrip()) > most and out[-1]:
            out.append("")
        out[-1] += part
    if len(out) > lines:
        out[lines - 1 :] = ["".join(out[lines - 1 :])]
    return "\n".join(shorten(text.rstrip(), most) for text in out)


def shorten(text: str, most: int) -> str:
    """Shorten a text in the middle to at most ``most`` characters."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def fill(content: str, width: float, size: float = SMALL) -> str:
    """Wrap a text to a width in inches; nothing is cut. Larger texts than ``SMALL`` are bold."""
    most = int(width / (size * (0.0096 if size > SMALL else 0.0079)))
    return textwrap.fill(content, most, break_on_hyphens=False)


def heading(content: str, width: float) -> str:
    """Wrap the heading of a figure to ``width`` inches."""
    return fill(content, width - 0.2, 11)


def category_title(dataset: str, category: str, remark: str = "") -> str:
    """Return the title of a category's figures."""
    return f"{dataset} / {category}" + (f" ({remark})" if remark else "")


def readable(name: str) -> str:
    """Return the name of a kind of defect as words."""
    return name.replace("_", " ")


def logarithmic(axis: Axes, low: float, high: float) -> None:
    """Make the x axis logarithmic, with few ticks in plain numbers."""
    decades = np.log10(high / low)
    subs = (1, 2, 5) if decades < 1.2 else (1, 3) if decades < 2.2 else (1,)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.minorticks_off()


def save(figure: Figure, output: Path) -> None:
    """Write a PNG file; the same figure gives the same bytes."""
    with atomic.replacing(output) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
