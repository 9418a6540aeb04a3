"""Where results come from: a record for each metrics file, and one of all for a run.

A chain of digests leads from a table back to the images. The feature store names the weights, the
manifest and its settings; the file of anomaly maps names the store and the model; the record of a
metrics file names them all. ``provenance.json`` gathers the records of a run, and
`indad.pipeline.verify` compares them with the files on disk.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from indad import __version__
from indad.core import checksum
from indad.core.device import device_name, machine
from indad.core.errors import StoreError
from indad.core.paths import project_root

#: Raised when the content of records changes.
VERSION = 1
KEYS = ("dataset", "category", "experiment", "seed")
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


def write_record(
    path: Path,
    keys: Mapping[str, Any],
    made_with: Mapping[str, Any],
    files: Mapping[str, Path],
) -> None:
    """Write the record of a metrics file.

    Args:
        path: the record (JSON).
        keys: dataset, category, experiment and seed.
        made_with: attributes of the scores, which name the model and the features.
        files: input and output files by kind.
    """
    digests = {kind: checksum.recorded_digest(file) for kind, file in files.items()}
    digests |= {kind: made_with[kind] for kind in ("features", "model", "calibration")}
    checksum.write_json(
        path,
        {
            "version": VERSION,
            "keys": {name: keys[name] for name in KEYS},
            "digests": digests,
            "made_with": dict(made_with),
            "evaluated_with": software(),
        },
    )


def read(path: Path) -> dict[str, Any]:
    """Read a file of `write` or `write_record`.

    Raises:
        StoreError: the file is missing, damaged or of another version.
    """
    found = checksum.read_json(path)
    if found.get("version") != VERSION:
        raise StoreError(f"{path}: of another version; delete it and run again")
    return found


def read_record(path: Path, metrics: Path) -> dict[str, Any]:
    """Read the record of a metrics file.

    Raises:
        StoreError: the record is missing or damaged, or is not of these metrics.
    """
    record = read(path)
    if record["digests"]["metrics"] != checksum.recorded_digest(metrics):
        raise StoreError(
            f"{metrics}: not the metrics that were computed: damaged or edited; delete it and run "
            "again"
        )
    return record


def line(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the line below the tables: software, weights, data and device, without a date."""
    made = [record["made_with"] for record in records]
    features = [each["features_made_with"] for each in made]
    versions = made[0]["versions"]
    weights = {f"{each['backbone']} {each['weights_sha256'][:12]}" for each in features}
    data: dict[str, set[str]] = {}
    for record, each in zip(records, features, strict=True):
        data.setdefault(record["keys"]["dataset"], set()).add(each["manifest_sha256"])
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


def write(
    path: Path,
    records: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, str]],
    tables: Sequence[Path],
) -> None:
    """Gather the records of a run.

    Args:
        path: ``provenance.json``, in the results folder.
        records: of every dataset, category, experiment and seed.
        runs: for each record its files by kind, and ``folder`` of the images, all relative to the
            results folder where they are in it.
        tables: files made of all metrics.

    Raises:
        StoreError: two results come from different versions of a file.
    """
    root = path.parent
    digests: dict[str, str] = {}
    listed, data, weights = [], {}, {}
    for record, run in zip(records, runs, strict=True):
        files = {kind: file for kind, file in run.items() if kind != "folder"}
        for kind, file in files.items():
            digest = record["digests"][kind]
            if digests.setdefault(file, digest) != digest:
                raise StoreError(
                    f"{root / file}: was replaced after some results were computed from it, so the "
                    "tables would mix two versions; delete the folder 'scores' and run again"
                )
        listed.append({**record, "files": files})
        features = record["made_with"]["features_made_with"]
        data[run["manifest"]] = run["folder"]
        weights[features["weights_sha256"]] = {
            key: features[key] for key in ("backbone", "weights", "weights_source")
        }
    for each in tables:
        digests[each.relative_to(root).as_posix()] = checksum.recorded_digest(each)
    checksum.write_json(
        path,
        {
            "version": VERSION,
            "revision": revision(project_root()),
            "machine": machine(),
            "platform": platform.platform(),
            "software": software(),
            "digests": digests,
            "data": data,
            "weights": weights,
            "runs": listed,
        },
    )
