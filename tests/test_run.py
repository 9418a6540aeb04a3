"""The command line: what it asks of the workflow, and how it says what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import run
from conftest import ROOT
from indad.core.errors import IndadError


def settings(*arguments: str) -> dict:
    return run.overrides(run.parser().parse_args(arguments))


def test_a_method_runs_its_experiments_of_the_run_section():
    assert settings("patchcore")["run"]["experiments"] == [
        "PatchCore-25",
        "PatchCore-10",
        "PatchCore-1",
    ]
    assert settings("spade", "--extractor", "lite0")["run"]["experiments"] == ["SPADE-Lite0"]
    assert len(settings("all", "--extractor", "lite0")["run"]["experiments"]) == 3
    with pytest.raises(
        IndadError, match="extractor 'vgg'; extractors in use: lite0, resnet18, wrn50"
    ):
        settings("spade", "--extractor", "vgg")


def test_any_folder_becomes_a_data_set(category):
    asked = settings("padim", "--data-root", str(category.parent))
    assert asked["run"]["datasets"] == ["data"]
    assert asked["datasets"]["data"]["path"] == str(category.parent)
    named = settings("padim", "--data-root", str(category.parent), "--dataset", "mine")
    assert named["run"]["datasets"] == ["mine"]


def test_a_single_category_is_taken_as_such(category):
    asked = settings("padim", "--data-root", str(category))
    assert asked["datasets"]["data"] == {"path": str(category.parent), "categories": ["widget"]}


def test_a_folder_may_stand_for_a_data_set_of_the_configuration(category):
    asked = settings("padim", "--data-root", str(category.parent), "--dataset", "mvtec_ad")
    assert asked["datasets"]["mvtec_ad"] == {
        "path": str(category.parent),
        "categories": ["widget"],  # not the fifteen of the configuration
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["padim", "--dataset", "x"], "--dataset x: not in the configuration, which has mvtec_ad"),
        (["padim", "--category", "x"], "--category needs --dataset or --data-root"),
        (["padim", "--configfile", "/no.yaml"], "/no.yaml: no such configuration file"),
        (["padim", "--dataset", "elpv", "--data-root", "/d"], "configuration makes this data set"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    with pytest.raises(IndadError) as error:
        settings(*arguments)
    assert message in str(error.value)


def test_missing_data_is_one_clear_line(tmp_path):
    arguments = ["padim", "--data-root", "/no/such/folder", "--extractor", "lite0"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/run.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert re.match(r"error /\S+: data folder not found. Set 'path'", done.stdout)
    assert "Traceback" not in done.stdout + done.stderr


def test_merging_is_deep_and_lists_replace():
    assert run.merged({"a": {"x": 1, "l": [1, 2]}}, {"a": {"y": 2, "l": [3]}}) == {
        "a": {"x": 1, "y": 2, "l": [3]}
    }


def test_a_command_comes_first(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--results", "r", "list"])
    assert run.main() == 2
    assert "list comes first: run.py list ..." in capsys.readouterr().out


def test_help_teaches():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/run.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in (
        "METHOD",
        "--data-root",
        "train/good",
        "ground_truth",
        "--extractor lite0",
        "predict",
    ):
        assert word in done.stdout


def test_progress_is_read_from_the_workflow(tmp_path):
    from rich.console import Console

    log = tmp_path / "x.log"
    log.write_text("2026-01-01 00:00:00,0 extract bottle r18: 5/10 images, 3 s left\n")
    display = run.Display(Console())
    for line in (
        "job        count",
        "extract        1",
        "evaluate       2",
        "total          3",
        "rule extract:",
        f"    log: {log}",
        "    jobid: 4",
    ):
        display.read(line)
    assert display.activity() == "extract bottle r18: 5/10 images, 3 s left"
    assert (display.done, display.total, display.finished()) == (0, 12, 5)
    display.read("Finished jobid: 4 (Rule: extract)")
    assert (display.done, display.activity()) == (10, "")
