"""The workflow as a module of another one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from indad.evaluation import evaluate
from indad.pipeline.config_files import load_config, merged
from test_workflow import SMALL

pytestmark = pytest.mark.slow


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "tests/module/Snakefile")]
    command += ["--directory", str(folder), "--cores", "2", *arguments]
    command += ["--config", f"indad={ROOT / 'workflow/Snakefile'}"]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


def test_another_workflow_uses_this_one(tmp_path):
    run = {"datasets": ["drawn"], "experiments": ["PaDiM"]}
    # The module sees what it is given, so the catalogue goes with it.
    anomalies = merged(load_config(None), SMALL | {"results": "made/anomalies", "run": run})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"anomalies": anomalies, "other": 1}))
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (tmp_path / "best.txt").read_text() == "PaDiM\n"
    metrics = evaluate.read([tmp_path / "made/anomalies/metrics.csv"])
    assert set(metrics["dataset"]) == {"drawn"}
    assert "Nothing to be done" in (again := snakemake(tmp_path)).stdout + again.stderr
