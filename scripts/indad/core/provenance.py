"""Where results come from: ``provenance.json``, made of the records of a run's jobs.

A chain of digests leads from a table back to the images. The feature store names the weights, the
manifest and its settings, and the records of the jobs that score and evaluate name the files they
read and wrote. `indad.pipeline.verify` compares ``provenance.json`` with the files on disk.
"""

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

from indad import __version__
from indad.core import checksum
from indad.core.device import device_name, machine
from indad.core.errors import StoreError
from indad.core.paths import project_root

#: Raised when the content of ``provenance.json`` changes.
VERSION = 2
PACKAGES = ("torch", "timm", "numpy", "scipy", "scikit-learn", "pandas", "pillow", "h5py")


def here(device: str) -> dict[str, Any]:
    """Return the device, hardware and versions of a stage."""
    hardware = machine() if device == "cpu" else device_name(device)
    return {"device": device, "hardware": hardware, "versions": software()}


def software() -> dict[str, str]:
    """Return the versions of software that may change a result."""
    packages = {package: version(package) for package in PACKAGES}
    return {"indad": __version__, "python": platform.python_version(), **packages}


def revision(folder: Path) -> str | None:
    """Return the git commit of the code in ``folder``, followed by "+" if files differ from it."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=40"]
    command += ["--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def gather(
    results: Path, scored: Sequence[Path], evaluated: Sequence[Path]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Read what the results of a run come from.

    Args:
        results: the results folder.
        scored: records of the jobs that scored each category, experiment and seed.
        evaluated: records of the jobs that evaluated these scores.

    Returns:
        For each result its ``keys``, ``made_with``, ``evaluated_with`` and ``files`` by kind; and
        the digests of all these files.

    Raises:
        StoreError: a record is missing or damaged, the metrics are not those that were computed, or
            two results come from different versions of a file.
    """
    digests: dict[str, str] = {}
    runs = []
    for paths in zip(scored, evaluated, strict=True):
        score, evaluate = map(checksum.read_json, paths)
        read = {**score["inputs"], **evaluate["inputs"]}
        written = {**score["outputs"], **evaluate["outputs"]}
        for file, digest in [*read.items(), *written.items()]:
            if digests.setdefault(file, digest) != digest:
                raise StoreError(
                    f"{results / file}: was replaced after some results were computed from it, so "
                    "the tables would mix two versions; delete the folder 'scores' and run again"
                )
        files = {kind(file): file for file in [*read, *written]}
        metrics = results / files["metrics"]
        if digests[files["metrics"]] != checksum.recorded_digest(metrics):
            raise StoreError(
                f"{metrics}: not the metrics that were computed: damaged or edited; delete it and "
                "run again"
            )
        keys = evaluate["wildcards"]
        runs.append(
            {
                "keys": {**keys, "seed": int(keys["seed"])},
                "made_with": score["made_with"],
                "evaluated_with": evaluate["software"],
                "files": files,
            }
        )
    return runs, digests


#: Kinds of products, by their names in the results folder.
_KINDS = {
    "manifests/*": "manifest",
    "pixels/*": "pixels",
    "features/*": "features",
    "models/*": "model",
    "scores/*/scores.csv": "scores",
    "scores/*/maps.h5": "maps",
    "scores/*/calibration.json": "calibration",
    "metrics/*.csv": "metrics",
    "metrics/*.h5": "resamples",
}


def kind(file: str) -> str:
    """Return what a file of the results folder is."""
    return next((found for name, found in _KINDS.items() if fnmatchcase(file, name)), "table")


def line(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the line below the tables: software, weights, data and device, without a date."""
    made = [run["made_with"] for run in runs]
    features = [each["features_made_with"] for each in made]
    versions = made[0]["versions"]
    weights = {
        f"{each['backbone']} {each['weights_sha256'][:12]}"
        for made_with in made
        for each in _all_features(made_with)
    }
    data: dict[str, set[str]] = {}
    for run, each in zip(runs, features, strict=True):
        data.setdefault(run["keys"]["dataset"], set()).add(each["manifest_sha256"])
    hashes = {
        name: hashlib.sha256("".join(sorted(each)).encode()).hexdigest()[:12]
        for name, each in data.items()
    }
    computed = {f"{each['device']} ({each['hardware']})" for each in made}
    parts = [
        f"indad {versions['indad']}, torch {versions['torch']}, timm {versions['timm']}",
        f"weights {', '.join(sorted(weights))}",
        f"data {', '.join(f'{name} {value}' for name, value in hashes.items())}",
        f"computed on {', '.join(sorted(computed))}",
    ]
    return f"Provenance: {'; '.join(parts)}. Details are in `provenance.json`.\n"


def _all_features(made_with: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the settings of the features that scores come from; of an ensemble, all members'."""
    parts = [made_with, *made_with.get("members", {}).values()]
    return [each["features_made_with"] for each in parts]


def write(
    path: Path,
    runs: Sequence[Mapping[str, Any]],
    digests: Mapping[str, str],
    folders: Mapping[str, str],
    tables: Sequence[Path],
) -> None:
    """Write what a run comes from.

    Args:
        path: ``provenance.json``, in the results folder.
        runs, digests: as `gather` returns them.
        folders: folder of each data set, relative to the results folder where it is in it.
        tables: files made of all metrics.
    """
    data, weights = {}, {}
    for run in runs:
        dataset, category = run["keys"]["dataset"], run["keys"]["category"]
        data[run["files"]["manifest"]] = str(Path(folders[dataset], category))
        for features in _all_features(run["made_with"]):
            weights[features["weights_sha256"]] = {
                key: features[key] for key in ("backbone", "weights", "weights_source")
            }
    made = {
        each.relative_to(path.parent).as_posix(): checksum.recorded_digest(each) for each in tables
    }
    checksum.write_json(
        path,
        {
            "version": VERSION,
            "revision": revision(project_root()),
            "machine": machine(),
            "platform": platform.platform(),
            "software": software(),
            "digests": {**digests, **made},
            "data": data,
            "weights": weights,
            "runs": runs,
        },
    )


def read(path: Path) -> dict[str, Any]:
    """Read a file of `write`.

    Raises:
        StoreError: the file is missing, damaged or of another version.
    """
    found = checksum.read_json(path)
    if found.get("version") != VERSION:
        raise StoreError(f"{path}: of another version; delete it and run again")
    return found
