"""Puts the workflow's files into the wheel, below ``indad/project``: see `indad.core.paths`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = ("workflow", "config", "resources", "environment.yaml")


class CustomBuildHook(BuildHookInterface):
    """Adds the folders of the workflow and the scripts of its rules."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to add; an editable install uses the checkout's own."""
        if version == "editable":
            return
        root = Path(self.root)
        paths = [root / name for name in FILES]
        paths += [path for path in (root / "scripts").glob("*.py") if path.name != "run.py"]
        build_data["force_include"] |= {
            str(path): f"indad/project/{path.relative_to(root).as_posix()}" for path in paths
        }
