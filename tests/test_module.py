"""The package installed, and the workflow as a module of another one, fetched from git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from indad.evaluation import evaluate
from indad.pipeline.config_files import load_config, merged
from small_run import SMALL

pytestmark = pytest.mark.slow


def call(*command: object, folder: Path) -> str:
    """Run a command that must succeed, without the checkout on Python's path."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=variables, cwd=folder
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory) -> Path:
    """A fresh environment with the package installed; the dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    own = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(own) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    call(*pip, "install", "--quiet", "--no-deps", ROOT, folder=folder)
    return python.parent


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    """The address of the workflow in a git repository that has the checkout's files as they are."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("workflow", "scripts", "config", "resources"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "environment.yaml", folder)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    call(*git, "init", "--quiet", "--initial-branch=main", folder=folder)
    call(*git, "add", ".", folder=folder)
    call(*git, "commit", "--quiet", "--message", "all", folder=folder)
    return f"git+file://{folder}/workflow/Snakefile@main"


def test_the_installed_package_has_the_command_and_the_workflow(bin_folder, tmp_path):
    code = "import indad, snakemake_logger_plugin_indad; print(indad.__file__)"
    package = Path(call(bin_folder / "python", "-c", code, folder=tmp_path).strip()).parent
    assert package.is_relative_to(bin_folder.parent)
    scripts = {path.name for path in (ROOT / "scripts").glob("*.py")} - {"run.py"}
    assert {path.name for path in (package / "project/scripts").glob("*.py")} == scripts
    assert (package / "project/workflow/Snakefile").exists()
    assert call(bin_folder / "indad", "--version", folder=tmp_path).startswith("indad ")


def test_another_workflow_uses_this_one(bin_folder, repository, shared_run, tmp_path):
    """And the features that the shared run has put into its cache: no backbone runs."""
    run = {"datasets": ["drawn"], "experiments": ["SPADE"]}
    changes = {"results": "made/anomalies", "run": run, "cache": str(shared_run / "cache")}
    # The module sees what it is given, so the catalogue goes with it.
    anomalies = merged(load_config(None), SMALL | changes)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"anomalies": anomalies, "other": 1}))
    snakemake = [bin_folder / "python", "-m", "snakemake", "--cores", "2"]
    snakemake += ["--snakefile", ROOT / "tests/module/Snakefile", "--directory", tmp_path]
    first = call(*snakemake, "--config", f"indad={repository}", folder=tmp_path)
    assert "localrules directive specifies rules that are not present" not in first
    assert (tmp_path / "best.txt").read_text() == "SPADE\n"
    metrics = evaluate.read([tmp_path / "made/anomalies/metrics.csv"])
    assert set(metrics["dataset"]) == {"drawn"}
    (log,) = (tmp_path / "made/anomalies/logs/extract").rglob("*.log")
    assert "cache: features copied from" in log.read_text()
    assert "extract: loading" not in log.read_text()
    store = tmp_path / "made/anomalies/features/drawn/wood/lite0.h5"
    shared = shared_run / "results/features/drawn/wood/lite0.h5"
    assert store.read_bytes() == shared.read_bytes()
    again = call(*snakemake, "--config", f"indad={repository}", folder=tmp_path)
    assert "Nothing to be done" in again
    # The same results are current for the command of the package, from another folder, with
    # another cache.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = anomalies | {"cache": str(tmp_path / "cache")}
    (elsewhere / "anomalies.yaml").write_text(yaml.safe_dump(moved))
    before = store.stat().st_mtime_ns
    command = ["all", "--configfile", "anomalies.yaml", "--results", "../made/anomalies"]
    target = ("--", "../made/anomalies/metrics.csv")
    again = call(bin_folder / "indad", *command, *target, folder=elsewhere)
    assert store.stat().st_mtime_ns == before
    assert "Nothing to do" in again
    assert "Models, to score new images with: indad list ../made/anomalies" in again
