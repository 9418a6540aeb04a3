"""Compare a finished run with its ``provenance.json``, and list what no longer matches."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from indad.core import checksum, provenance
from indad.core.errors import IndadError, StoreError
from indad.core.progress import Progress, ignore
from indad.data import manifest
from indad.evaluation import evaluate, scores
from indad.evaluation.metrics import image_metrics
from indad.features.weights import RANDOM, weights_sha256_of

#: Largest difference of a recomputed AUROC: metrics have ten digits.
CLOSE = 1e-9
#: Kinds of files in the order in which they are made, and their headings.
HEADINGS = {
    "manifest": "manifests",
    "pixels": "decoded images",
    "features": "feature stores",
    "model": "models",
    "scores": "score tables",
    "maps": "anomaly maps",
    "calibration": "calibrations",
    "metrics": "metrics",
    "resamples": "resampled metrics",
    "table": "tables and all metrics",
    "chain": "metrics computed again from scores",
    "data": "images and masks of the data",
    "weights": "backbone weights",
}


@dataclass
class Report:
    """The result of a comparison.

    Attributes:
        checked: number of comparisons of each kind.
        problems: kind and message of each mismatch.
        left_out: what was not compared, and why.
    """

    checked: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def compare(self, kind: str, check: Callable[..., str | None], *arguments: Any) -> None:
        """Run a check and count it; keep the message it returns or the error it raises."""
        self.checked[kind] += 1
        try:
            problem = check(*arguments)
        except IndadError as error:
            problem = str(error)
        if problem:
            self.problems.append((kind, problem))


def verify(results: Path, *, data: bool = True, progress: Progress = ignore) -> Report:
    """Check a finished run: every file, the chain between them, the data and the weights.

    Every file is read completely. Nothing is written, and torch is not needed.

    Args:
        results: the results folder.
        data: also hash the images and masks of the manifests.
        progress: called with the number of finished files and of all.

    Raises:
        StoreError: there is no ``provenance.json``, or it is damaged.
    """
    record, report = results / "provenance.json", Report()
    found = provenance.read(record)
    try:
        for done, (file, digest) in enumerate(found["digests"].items(), 1):
            what, path = "the file the tables come from", results / file
            report.compare(provenance.kind(file), compare_file, path, digest, what)
            progress(done, len(found["digests"]))
        report.compare("chain", _same_metrics, results, found["runs"])
        for run in found["runs"]:
            report.compare("chain", _follows, results, run)
        if data:
            for file, folder in found["data"].items():
                _compare_images(results / file, results / folder, report)
        else:
            report.left_out.append("images and masks of the data: switched off")
        for sha256, each in found["weights"].items():
            if each["weights"] in ("timm", RANDOM):
                what = f"weights of {each['backbone']}: {each['weights_source']}"
                report.left_out.append(f"{what}, no file to compare")
            else:
                report.compare("weights", _same_weights, each["weights"], sha256)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{record}: not a record of this library ({error!r}); delete it and run again"
        ) from None
    return report


def compare_file(path: Path, digest: str, what: str) -> str | None:
    """Return what is wrong with a file that should have this digest, or None.

    Raises:
        StoreError: it cannot be read, or does not match its own checksum.
    """
    if not path.is_file():
        return f"{path}: is missing"
    found = checksum.compute_digest(path)
    return None if found == digest else f"{path}: is not {what} ({found})"


def _same_metrics(results: Path, runs: Sequence[Mapping[str, Any]]) -> str | None:
    """Compare metrics.csv with the metrics of the runs it gathers."""
    gathered = evaluate.read([results / "metrics.csv"])
    single = evaluate.read(results / run["files"]["metrics"] for run in runs)
    same = gathered.equals(single)
    return None if same else f"{results / 'metrics.csv'}: differs from the metrics of the runs"


def _follows(results: Path, run: Mapping[str, Any]) -> str | None:
    """Compare a run's metrics with its scores, and its scores with its manifest."""
    files = {kind: results / file for kind, file in run["files"].items()}
    table = scores.read_table(files["scores"])
    images = manifest.read(files["manifest"])
    scores.check_images(run["made_with"], images, files["maps"])
    rows = images[images["split"] == "test"]
    for column in ("image", "label", "defect"):
        if list(table[column]) != list(rows[column]):
            return f"{files['scores']}: column {column} differs from that of {files['manifest']}"
    metrics = evaluate.read([files["metrics"]]).set_index("metric")["value"]
    recorded, value = float(metrics["image_auroc"]), math.nan
    if table["label"].nunique() > 1:
        computed = image_metrics(table["label"].to_numpy(), table["score"].to_numpy())
        value = computed["image_auroc"]
    if not np.isclose(recorded, value, rtol=0, atol=CLOSE, equal_nan=True):
        return (
            f"{files['metrics']}: image AUROC {recorded:.6f}, but the scores of {files['scores']} "
            f"give {value:.6f}"
        )
    return None


def _compare_images(path: Path, folder: Path, report: Report) -> None:
    """Compare every image and mask of a manifest with its SHA-256."""
    try:
        rows = manifest.read(path)
    except StoreError:
        return  # reported already, by the check of the manifest itself
    if not folder.is_dir():
        report.checked["data"] += len(rows)
        report.problems.append(("data", f"{folder}: the data folder is missing"))
        return
    for row in rows.itertuples():
        for name, sha256 in ((row.image, row.sha256), *manifest.mask_files(row)):
            digest, what = f"sha256:{sha256}", "the file of the manifest"
            report.compare("data", compare_file, folder / name, digest, what)


def _same_weights(named: str, sha256: str) -> str | None:
    found = weights_sha256_of(named)
    return None if found == sha256 else f"weights {named}: are different now (sha256 {found})"
