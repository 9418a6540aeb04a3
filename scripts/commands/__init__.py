"""The commands of ``run.py`` beside METHOD: each a module with ``main(arguments, console)``."""

from __future__ import annotations

#: Name on the command line to module.
COMMANDS = {"predict": "indad.cli.predict", "list": "commands.listing", "verify": "commands.verify"}


def plain(text: str) -> str:
    """Return ``text`` so that rich prints it as it is."""
    return text.replace("[", "\\[")
