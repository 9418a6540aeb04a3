"""Describe a finished run as a Data Package: ``datapackage.json`` beside its products.

The format is that of https://datapackage.org. frictionless is optional: ``pip install
indad[package]``.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from indad.core import atomic, provenance
from indad.core.errors import ConfigError, StoreError
from indad.core.progress import Progress, ignore
from indad.pipeline.verify import compare_file

if TYPE_CHECKING:
    from frictionless import Resource

NAME = "datapackage.json"
#: Kinds of products that are left out: they are large, and made from the images or scores alone.
LEFT_OUT = ("pixels", "features", "maps", "resamples")


def write(results: Path, progress: Progress = ignore) -> int:
    """Write ``datapackage.json`` of a finished run, and check it against the files.

    It names the tables with the types of their columns, the models, scores, manifests and
    ``provenance.json``, each with its SHA-256 and size.

    Args:
        results: the results folder.
        progress: called with the number of described files and of all.

    Returns:
        The number of files it describes.

    Raises:
        ConfigError: frictionless is not installed.
        StoreError: there is no record of a finished run, or a file is missing, differs from the
            record or cannot be described.
    """
    if find_spec("frictionless") is None:
        raise ConfigError(
            "package: needs frictionless, which is not installed: pip install 'indad[package]', "
            "or in a clone: pip install -e '.[package]'"
        )
    from frictionless import Package

    record = results / "provenance.json"
    found = provenance.read(record)
    digests = {
        file: digest
        for file, digest in sorted(found["digests"].items())
        if provenance.kind(file) not in LEFT_OUT
    }
    package = Package(
        name="indad-results",
        title="Results of indad",
        description="Tables, models and scores of anomaly detection methods. provenance.json "
        "records the data, weights, parameters and software that each was computed from.",
        sources=[{"title": "manifest of the images", "path": file} for file in found["data"]],
        basepath=str(results),
    )
    for done, (file, digest) in enumerate(digests.items(), 1):
        if problem := compare_file(results / file, digest, "the file of provenance.json"):
            raise StoreError(f"{problem}; run the workflow again")
        package.add_resource(_resource(results, file))
        progress(done, len(digests))
    package.add_resource(_resource(results, record.name))
    report = package.validate()
    broken = {task.place: task.errors for task in report.tasks} | {"package": report.errors}
    for place, errors in broken.items():
        if errors:
            raise StoreError(
                f"{results}: cannot be described as a data package: {place}: {errors[0].message}"
            )
    atomic.write_text(results / NAME, package.to_json() + "\n")
    return len(package.resources)


def _resource(results: Path, file: str) -> Resource:
    """Describe one file; the types of a table's columns follow from all of its rows."""
    from frictionless import Detector
    from frictionless.resources import FileResource, TableResource

    kind = TableResource if file.endswith(".csv") else FileResource
    every = Detector(sample_size=(results / file).stat().st_size + 1, field_confidence=1)
    name = re.sub("[^a-z0-9._]+", "-", file.lower())
    resource = kind(name=name, path=file, basepath=str(results), detector=every)
    resource.infer(stats=True)
    return resource
