"""The command line: what it asks of the workflow, and its messages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from conftest import ROOT
from indad.cli import main, override
from indad.core.errors import IndadError
from indad.pipeline.config_files import merged

RUN = [sys.executable, str(ROOT / "scripts/run.py")]


def settings(*arguments: str) -> dict:
    return override.override(main.parse(arguments))[0]


def test_a_method_runs_its_experiments_of_the_run_section():
    assert settings("patchcore")["run"]["experiments"] == [
        "PatchCore-25",
        "PatchCore-10",
        "PatchCore-1",
    ]
    assert settings("spade", "--extractor", "lite0")["run"]["experiments"] == ["SPADE-Lite0"]
    assert len(settings("all", "--extractor", "lite0")["run"]["experiments"]) == 3
    known = "extractor 'vgg'; extractors in use: densenet201, dinov2_s14, .*, wrn50"
    with pytest.raises(IndadError, match=known):
        settings("spade", "--extractor", "vgg")


def test_run_may_be_left_out_and_options_may_come_first():
    asked = settings("run", "padim", "--results", "r", "--seeds", "0", "1", "--device", "cpu")
    assert settings("--device", "cpu", "--results", "r", "padim", "--seeds", "0", "1") == asked
    assert (asked["results"], asked["device"], asked["run"]["seeds"]) == ("r", "cpu", [0, 1])


def test_what_follows_two_dashes_is_passed_on_to_snakemake(tmp_path):
    from indad.cli.workflow import snakemake_command

    arguments = main.parse(["padim", "-n", "--cores", "3", "--", "--keep-going", "--quiet"])
    command = snakemake_command(arguments, tmp_path / "x.yaml")
    assert command[-3:] == ["--dry-run", "--keep-going", "--quiet"]
    assert command[command.index("--cores") + 1] == "3"
    arguments = main.parse(["padim", "--data-root", "D", "--", "--keep-going"])
    assert (arguments.data_root, arguments.snakemake) == (Path("D"), ["--keep-going"])
    assert not arguments.dry_run
    assert main.parse(["run", "padim", "--", "-n"]).dry_run


def test_the_home_folder_of_a_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    arguments = main.parse(["padim", "--results=~/r", "--data-root=~no-such-user"])
    assert (arguments.results, arguments.data_root) == (Path("/home/me/r"), Path("~no-such-user"))


def test_caches_that_cannot_be_written_are_temporary(tmp_path, monkeypatch):
    from indad.cli.workflow import environment, unwritable_cache

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert unwritable_cache() == ""
    assert "XDG_CACHE_HOME" not in environment(tmp_path)
    monkeypatch.setenv("HOME", "/dev/null")
    assert "Not a directory: '/dev/null/.cache'" in unwritable_cache()
    assert environment(tmp_path)["XDG_CACHE_HOME"] == str(tmp_path)


def test_a_working_directory_that_cannot_be_written(monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert main.main(["padim"]) == 2
    assert "this working directory cannot be written" in capsys.readouterr().out.replace("\n", " ")


def test_any_folder_becomes_a_data_set(category):
    asked = settings("padim", "--data-root", str(category.parent))
    assert asked["run"]["datasets"] == ["data"]
    assert asked["datasets"]["data"]["path"] == str(category.parent)
    named = settings("padim", "--data-root", str(category.parent), "--dataset", "mine")
    assert named["run"]["datasets"] == ["mine"]


def test_a_folder_whose_name_cannot_be_used_needs_another(category):
    root = category.parent.rename(category.parents[1] / "x<b>y")
    with pytest.raises(IndadError, match="'x<b>y' has a <, .*: --dataset NAME"):
        settings("padim", "--data-root", str(root))
    assert settings("padim", "--data-root", str(root), "--dataset", "mine")["run"]["datasets"]


def test_a_single_category_may_be_given(category):
    asked = settings("padim", "--data-root", str(category))
    assert asked["datasets"]["data"] == {"path": str(category.parent), "categories": ["widget"]}


def test_a_folder_may_replace_a_data_set_of_the_configuration(category):
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
        (["--results", "r", "list"], "list comes first: run.py list ..."),
    ],
)
def test_arguments_that_do_not_fit_are_errors(arguments, message, capsys):
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().out.replace("\n", " ")


def test_an_unknown_method_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["padimm"])
    assert ended.value.code == 2
    assert "'padimm' (choose from" in capsys.readouterr().err


def test_an_error_of_the_configuration_is_shown_alone(tmp_path):
    """It is raised in the workflow, and reaches the terminal as an event of the logger plugin."""
    (tmp_path / "mine.yaml").write_text("experiments: {PaDiM: {layers: [nope]}}")
    command = [*RUN, "padim", "--configfile", "mine.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("error configuration: experiments.PaDiM.layers: 'nope'")
    assert "Traceback" not in done.stdout + done.stderr
    assert "Snakemake" not in done.stdout


def test_merging_is_deep_and_lists_replace():
    assert merged({"a": {"x": 1, "l": [1, 2]}}, {"a": {"y": 2, "l": [3]}}) == {
        "a": {"x": 1, "y": 2, "l": [3]}
    }


def test_help_teaches(capsys):
    for arguments, words in (
        (["--help"], ("train/good", "ground_truth", "--extractor lite0", *main.COMMANDS)),
        (["padim", "--help"], ("METHOD", "--data-root", "-- --keep-going")),
        (["check", "--help"], ("--data-root", "--extractor")),
        (["list", "--help"], ("RESULTS", "--json")),
        (["verify", "--help"], ("RESULTS", "--no-data")),
    ):
        with pytest.raises(SystemExit) as ended:
            main.main(arguments)
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words)


# -- a run, from outside -------------------------------------------------------------------------


SMALL = {
    "threads": 1,
    "device": "cpu",
    "run": {"datasets": ["drawn"], "experiments": ["PaDiM-Lite0"]},
    "datasets": {
        "drawn": {
            "categories": ["wood"],
            "options": {"train": 6, "good": 2, "per_defect": 1, "size": 64},
        }
    },
    "extractors": {"lite0": {"resize": 64, "crop": 64}},
}


def start(folder, *arguments: str, **changes) -> subprocess.Popen[str]:
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL | changes))
    return subprocess.Popen(
        [*RUN, "all", "--configfile", "small.yaml", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_dry_run_prints_what_snakemake_would_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    out, err = (process := start(tmp_path, "-n", results="${PLACE}/out")).communicate()
    assert (process.returncode, err) == (0, "")
    assert re.search(r"^extract +1$", out, re.MULTILINE)
    assert "This was a dry-run" in out
    assert {path.name for path in (tmp_path / "place/out").iterdir()} == {"settings"}


def test_a_wrong_option_of_snakemake_is_shown(tmp_path):
    out, _ = (process := start(tmp_path, "--", "--no-such-option")).communicate()
    assert process.returncode != 0
    assert "no-such-option" in out


def wait_for(path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    own = psutil.Process(process.pid)
    return [own, *own.children(recursive=True)]


@pytest.mark.slow
def test_stopping_a_run_ends_it_and_its_jobs(tmp_path):
    process = start(tmp_path)
    wait_for(tmp_path / "results/logs/decode/drawn/wood/64-64.log")
    started = family(process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped; finished results are kept, run again to continue" in out
    assert "Traceback" not in err
    assert not any(each.is_running() for each in started)


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_run(tmp_path):
    """``run.py ... | head``."""
    process = start(tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    started = family(process)
    process.stdout.close()
    assert process.wait(timeout=120) != 0
    assert "Traceback" not in process.stderr.read()
    assert not any(each.is_running() for each in started)
