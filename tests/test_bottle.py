"""Published figures on real images: MVTec AD bottle with a real ResNet-18."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from conftest import ROOT
from indad.evaluation import evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bottle(mvtec, r18_weights, tmp_path_factory):
    """All metrics of config/bottle_r18.yaml, as the README says to run it."""
    folder = tmp_path_factory.mktemp("bottle")
    override = folder / "places.yaml"
    override.write_text(
        yaml.safe_dump(
            {
                "results": str(folder / "results"),
                "datasets": {"mvtec": {"path": str(mvtec)}},
                "extractors": {"r18-trunk": {"weights": str(r18_weights)}},
            }
        )
    )
    command = [sys.executable, "-m", "snakemake", str(folder / "results/metrics.csv")]
    command += ["-s", str(ROOT / "workflow/Snakefile")]
    command += ["--directory", str(folder), "--cores", "2", "--resources", "gpu=1"]
    command += ["--configfile", *(str(ROOT / f"config/{n}.yaml") for n in ("config", "bottle_r18"))]
    done = subprocess.run([*command, str(override)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    metrics = evaluate.read([folder / "results/metrics.csv"])
    return metrics.set_index(["experiment", "metric"])["value"]


def test_padim(bottle):
    """Published: 99.4 to 99.6 and 98.1 to 98.3."""
    assert bottle["PaDiM-R18-100", "image_auroc"] >= 0.99
    assert 0.975 <= bottle["PaDiM-R18-100", "pixel_auroc"] <= 0.985


@pytest.mark.parametrize("ratio", [25, 10, 1])
def test_patchcore(bottle, ratio):
    assert bottle[f"PatchCore-R18-{ratio}", "image_auroc"] >= 0.995
    assert bottle[f"PatchCore-R18-{ratio}", "pixel_auroc"] >= 0.975


def test_spade(bottle):
    """On layer3's embedding, so only the pixel score is the paper's: 98.4 with a WRN-50."""
    assert bottle["SPADE-R18", "image_auroc"] >= 0.95
    assert bottle["SPADE-R18", "pixel_auroc"] >= 0.96
