"""One look for all figures: size, fonts, colours, and how they are saved.

Figures are made for 800 pixels, what a README or a report shows of them, on a background of their
own, so that they read the same on a white and on a dark page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from indad.core import atomic

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

#: Width in inches of a figure shown at 800 pixels, 96 to an inch: a point is then a point.
WIDTH = 800 / 96
#: Pixels per inch of the file: half as many again as are shown, for sharp screens.
DPI = 144
#: No text is smaller, in points.
SMALL = 8.0

#: Okabe and Ito's colours, told apart by all kinds of colour vision; yellow is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")

INK, GREY, PALE = "#1a1a1a", "#5f6368", "#dadce0"
#: What is wrong at the threshold; always with the word beside it.
MISSED, FALSE_ALARM = "#E69F00", "#C8102E"
OUTLINE = "#00e5ff"

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
    # Text as outlines looks the same everywhere; the salt makes ids the same every time.
    "svg.fonttype": "path",
    "svg.hashsalt": "indad",
}


@contextmanager
def look() -> Iterator[None]:
    """Draw in the project's style within the block, and close its figures."""
    with mpl.rc_context(_RC):
        try:
            yield
        finally:
            plt.close("all")


def line(number: int) -> dict[str, Any]:
    """Return colour and dashes of the experiment of that number; no two of 28 are the same."""
    again, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": _DASHES[again % len(_DASHES)]}


def marker(number: int) -> dict[str, Any]:
    """Return colour and marker of the experiment of that number; no two of 49 are the same."""
    again, colour = divmod(number, len(PALETTE))
    return {"color": PALETTE[colour], "marker": _MARKERS[again % len(_MARKERS)]}


def wrap(name: str, width: float, size: float = SMALL, lines: int = 2) -> str:
    """Break a name at ``-``, ``_``, ``/`` or a space so that it fits ``width`` inches.

    What is longer than ``lines`` lines is cut in the middle, where names differ least.
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
    """Cut a text in the middle so that it has at most ``most`` characters."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def heading(text: str, width: float) -> str:
    """Cut the heading of a figure so that it fits ``width`` inches."""
    return shorten(text, int(width / 0.108))


def readable(name: str) -> str:
    """Return the name of a defect as words."""
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
    """Write a PNG or SVG, the same bytes for the same figure."""
    metadata = {"Date": None} if output.suffix == ".svg" else {"Software": None}
    with atomic.replacing(output) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata=metadata)
