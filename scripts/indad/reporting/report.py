"""The report: one HTML page with all results, for readers who do not know Snakemake.

The file contains everything: no picture, font or script is loaded from elsewhere. `page.content`
computes what it shows from the run's products; the template arranges it. The page can be read
without JavaScript, which only sorts, filters and switches what is already there.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from indad.core import atomic
from indad.reporting import numbers, tables
from indad.reporting.colours import PALETTE
from indad.reporting.page import embed
from indad.reporting.page.sources import Category, Sources

__all__ = ["VERSION", "Category", "Sources", "write"]

#: Increased when the same products would give another page.
VERSION = 6
#: Maximum number of characters of the page; pictures are reduced to stay below.
BUDGET = 25_000_000
#: Widths of pictures in pixels to try, from the largest useful one to the smallest legible one.
WIDTHS = (1600, 1200, 960, 720, 540)
#: Replacements for colours that are hard to see on a dark page.
_ON_DARK = {"#4D4D4D": "#B8BCC2"}

PAGE = Path(__file__).parent / "page"


def write(sources: Sources, output: Path, *, budget: int = BUDGET, threads: int = 1) -> None:
    """Write the page, atomically.

    Args:
        sources: the products it is made from.
        output: the HTML file.
        budget: maximum number of characters of the page. If it is exceeded with the smallest
            pictures, these are used: no picture is left out.
        threads: number of pictures compressed at a time.

    Raises:
        StoreError: a product is damaged.
    """
    # Planning a workflow imports this module for its version: scipy.stats would slow it down.
    from indad.reporting.page.content import gather

    content = gather(sources)
    pictures = [path for each in sources.categories for path in each.pictures.values()]
    pictures += [sources.tradeoff]
    for dataset in content["datasets"]:
        pictures += dataset["diagrams"].values()
        pictures += filter(None, [dataset["curves"]["figure"]])
    for width in WIDTHS:
        page = _render(content, embed.embed(pictures, width, threads), width)
        if len(page) <= budget:
            break
    atomic.write_text(output, page)


def _render(content: Mapping[str, Any], pictures: Mapping[Path, embed.Picture], width: int) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    colours = [PALETTE[i % len(PALETTE)] for i in range(len(content["experiments"]))]
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Names come from folders and files of the user: everything is escaped unless marked.
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": numbers.duration,
        "megabytes": numbers.megabytes,
        "signed": _signed,
        "p_value": numbers.p_value,
    }
    environment.tests["missing"] = pd.isna
    return environment.get_template("page.html.jinja").render(
        content,
        pictures=pictures,
        width=width,
        reduced=width < WIDTHS[0],
        budget_mb=BUDGET // 1_000_000,
        colours=[(colour, _ON_DARK.get(colour, colour)) for colour in colours],
        titles=tables.TITLES,
        short_titles=tables.SHORT_TITLES,
        explanations=tables.EXPLANATIONS,
        ranks_depend=tables.RANKS_DEPEND,
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_digest=digest,
    )


def _signed(value: float) -> str:
    """Return a difference in percentage points with a typographic minus."""
    return numbers.signed(value).replace("-", "\N{MINUS SIGN}")
