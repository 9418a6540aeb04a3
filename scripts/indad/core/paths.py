"""Where the project's files outside the package are: workflow, configuration and resources."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def is_checkout() -> bool:
    """Return whether the package is used from a checkout of the repository."""
    return (PACKAGE.parents[1] / "workflow" / "Snakefile").is_file()


def project_root() -> Path:
    """Return the folder that holds ``workflow``, ``scripts``, ``config`` and ``resources``.

    In a checkout this is the repository. An installed package contains a copy of these folders.
    """
    return PACKAGE.parents[1] if is_checkout() else PACKAGE / "project"
