"""Tables of results in LaTeX."""

from __future__ import annotations

import pandas as pd

from indad.reporting.results_document import grid
from indad.reporting.tables import TITLES, Layout, select

_ESCAPED = str.maketrans({
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
})  # fmt: skip
# Characters that occur in no name mark the best value until names are escaped.
_BOLD = "\0{}\1"
_MARKS = {"\0": r"\textbf{", "\1": "}", "±": r"$\pm$", "(-": "($-$"}


def latex(measured: pd.DataFrame, metric: str, layout: Layout) -> str:
    """Return a ``tabular`` for the package booktabs for each data set.

    The difference to the paper is in parentheses.

    Args:
        measured: as ``tables.summarise``.
        metric: the metric.
        layout: what to show.
    """
    parts = [f"% {TITLES[metric]} in percent. Needs \\usepackage{{booktabs}}."]
    for dataset in dict.fromkeys(measured["dataset"]):
        cells = select(measured, dataset=dataset, metric=metric)
        if cells.empty:
            continue
        names = layout.experiments
        rows = [["category", *names], *grid(cells, names, bold=_BOLD, differences=True)]
        lines = [" & ".join(text.translate(_ESCAPED) for text in row) + r" \\" for row in rows]
        lines.insert(1, r"\midrule")
        averages = 2 + (cells["scope"] == "category").sum() // len(layout.experiments)
        if averages < len(lines):
            lines.insert(averages, r"\midrule")
        body = "\n".join(lines)
        for mark, command in _MARKS.items():
            body = body.replace(mark, command)
        parts.append(
            f"% {dataset}\n\\begin{{tabular}}{{l{'r' * len(layout.experiments)}}}\n\\toprule\n"
            f"{body}\n\\bottomrule\n\\end{{tabular}}"
        )
    return "\n\n".join(parts) + "\n"
