"""Markdown tables."""

from collections.abc import Collection, Sequence

from tabulate import tabulate


def markdown_table(
    header: Sequence[str], grid: Sequence[Sequence[str]], left: Collection[int] = (0,)
) -> str:
    """Return a Markdown table; the columns ``left`` are left-aligned text, the others numbers."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *grid)]
    alignment = ["left" if i in left else "right" for i in range(len(header))]
    return tabulate(
        escaped[1:], escaped[0], tablefmt="pipe", disable_numparse=True, colalign=alignment
    )
