"""Numbers as text, the same in tables, figures and on the report page."""

import pandas as pd

NOT_MEASURED = "-"


def percent(value: float) -> str:
    """Return a value in percent with one decimal."""
    return NOT_MEASURED if pd.isna(value) else f"{value:.1f}"


def signed(value: float) -> str:
    """Return a difference in percentage points with its sign."""
    if pd.isna(value):
        return NOT_MEASURED
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def p_value(value: float) -> str:
    """Return a p-value with its letter."""
    if pd.isna(value):
        return "p unknown"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def duration(seconds: float) -> str:
    """Return a time per image."""
    if seconds < 0.0995:
        return f"{1000 * seconds:.2g} ms"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2g} s"


def rounded(value: float) -> str:
    """Return a number with two significant digits, or all those before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def megabytes(value: float) -> str:
    """Return a file or memory size."""
    return f"{rounded(value)} MB"
