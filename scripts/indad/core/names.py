"""Names: those that become parts of the paths of products, and how those of files are shown."""

import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

#: Longest name in bytes. File systems allow 255 for a file, whose name may have more than this one.
LONGEST = 150
#: Characters that Snakemake replaces in paths.
_SNAKEMAKE = "{}<>"
#: Unicode's categories of control characters, single surrogates and line breaks.
_NOT_SHOWN = ("Cc", "Cs", "Zl", "Zp")


def name_problem(name: str) -> str:
    """Return why a name cannot be part of a path, and what to do; "" if it can."""
    if not name or name in (".", ".."):
        return f"{name!r} is no name for a folder; choose another one"
    if "/" in name:
        return f"{name!r} has a /; choose a name without"
    if name.startswith("."):
        return f"{name!r} begins with a dot, as hidden folders do; choose a name without"
    if problem := path_problem(name):
        return problem
    if printable(name) != name:
        return f"{name!r} has a line break, another control character or is not UTF-8; rename it"
    if (size := len(os.fsencode(name))) > LONGEST:
        return f"{name!r} has {size} bytes; choose a name of at most {LONGEST}"
    return ""


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters and what UTF-8 does not have: ``\x0a``, ``\udce9``.

    Names of files are bytes on Linux. Python holds those that are not UTF-8 as single surrogates.

    Args:
        text: a name, or a text with names.
        keep: characters that are not escaped.
    """
    return "".join(
        each if each in keep or unicodedata.category(each) not in _NOT_SHOWN else _escaped(each)
        for each in text
    )


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def path_problem(path: str) -> str:
    """Return why a name or a whole path cannot be used by a rule, and what to do; "" if it can."""
    found = [each for each in _SNAKEMAKE if each in path]
    if not found:
        return ""
    return f"{path!r} has a {found[0]}, which means a variable to Snakemake; choose a name without"


def same_file_problem(names: Iterable[str], folder: Path) -> str:
    """Return which two names are one on the file system of a folder, and what to do; "" if none.

    Some file systems ignore upper and lower case, or how a letter with an accent is encoded.
    """
    seen: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        other = seen.setdefault(folded, name)
        if other != name and _one_on_disk(name, other, folder):
            return (
                f"{other!r} and {name!r} are one name to the file system of {folder}; rename one "
                "of them, or choose another results folder"
            )
    return ""


def _one_on_disk(name: str, other: str, folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".names-", dir=folder) as place:
        (Path(place) / name).mkdir()
        return (Path(place) / other).exists()
