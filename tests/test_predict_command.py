"""The command ``predict``: no image and no row is lost, and the exit code says what happened."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import score
from conftest import save_image
from indad.cli import predict as command
from indad.cli.reporter import Printer, Reporter
from indad.core.errors import ConfigError, DataError
from indad.inference import photos, tables
from indad.inference.loading import choose_experiment
from indad.inference.result import state_of
from predicting import model_file, run

# -- the command ----------------------------------------------------------------------------------


def test_predict_writes_tables_and_pictures(made, tmp_path):
    images = made / "data/widget/test"
    table, document, pictures = tmp_path / "t.csv", tmp_path / "t.json", tmp_path / "seen"
    code, text = run(
        model_file(made, "padim"), images, "--csv", table, "--json", document, "--output", pictures
    )
    assert code == 1
    assert re.search(r"threshold  \S+: at most 0.05 false alarms, from 19 good test images", text)
    assert "25 images: 6 anomalous, 19 good" in text
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == list(tables.COLUMNS)
    assert {row["anomalous"] for row in rows if "dent" in row["image"]} == {"true"}
    assert {row["anomalous"] for row in rows if "good" in row["image"]} == {"false"}
    written = json.loads(document.read_text())
    assert [one["image"] for one in written["images"]] == [row["image"] for row in rows]
    assert written["images"][0]["score"] == pytest.approx(float(rows[0]["score"]), rel=1e-8)
    assert sorted(str(p.relative_to(pictures)) for p in pictures.rglob("*.png")) == sorted(
        str(p.relative_to(images)) for p in images.rglob("*.png")
    )


def test_all_is_printed_before_a_process_that_loaded_torch_ends(tmp_path):
    program = (
        "import sys, types; sys.modules['torch'] = types.ModuleType('torch'); "
        "from indad.cli.main import run_and_exit; run_and_exit()"
    )
    given = ["predict", tmp_path / "missing.safetensors", __file__]
    done = subprocess.run([sys.executable, "-c", program, *given], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "")
    assert "no such model" in done.stdout


@pytest.mark.parametrize(
    ("anomalous", "failed", "exit_zero", "code"),
    [(0, 0, False, 0), (1, 0, False, 1), (1, 0, True, 0), (0, 1, True, 2), (1, 1, False, 2)],
)
def test_exit_codes(anomalous, failed, exit_zero, code):
    counts = Counter(good=3, anomalous=anomalous, error=failed)
    assert command.exit_code(counts, exit_zero) == code


def test_the_threshold_asked_for_is_used(made):
    path, known = choose_experiment(model_file(made, "padim"))
    choose = command.choose_threshold
    assert choose(path, known, None, "1e9").score == 1e9
    assert choose(path, known, None, "none") is None
    assert choose(path, known, None, "f1max") == known.at_f1_max()
    assert choose(path, known, 0.2, None) == known.at_false_alarms(0.2)
    assert choose(path, None, None, "3").source == "as given"


def test_an_image_that_cannot_be_read_is_an_error_of_its_own(made, tmp_path):
    model, test = model_file(made, "padim"), made / "data/widget/test"
    broken = tmp_path / "broken.png"
    broken.write_bytes((test / "good/000.png").read_bytes()[:200])
    lines = tmp_path / "t.jsonl"
    code, text = run(model, broken, test / "good/001.png", "--exit-zero", "--json", lines)
    assert code == 2
    assert "broken.png: cannot be decoded" in text
    assert "2 images: 0 anomalous, 1 good, 1 with errors" in text
    failed, scored = map(json.loads, lines.read_text().splitlines())
    assert failed["score"] is None
    assert "cannot be decoded" in failed["error"]
    assert scored["anomalous"] is False


def test_given_good_images_set_the_threshold(made):
    test = made / "data/widget/test"
    code, text = run(
        model_file(made, "padim"), test / "dent/000.png", "--good", test / "good", "--quiet"
    )
    assert code == 1
    assert f"from 19 good images of {test / 'good'}" in text


def test_good_images_that_score_like_training_images_get_a_warning(made, tmp_path):
    """A copy in another format has another hash."""
    image = made / "data/widget/test/good/000.png"
    model = model_file(made, "spade")
    copies = tmp_path / "good"
    copies.mkdir()
    for path in sorted((made / "data/widget/train/good").iterdir())[:4]:
        Image.open(path).save(copies / path.with_suffix(".bmp").name)
    code, text = run(model, image, "--good", copies)
    assert code == 1
    assert re.search(r"warning +the good images given score at most \S+, good test images at", text)
    assert "warning" not in run(model, image, "--good", image.parent)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give images and folders to score"),
        (["no/such"], "no/such: no such image file or folder"),
        (
            ["GOOD", "--false-alarms", "0.01"],
            "0.01 needs the scores of 99 good images, there are 19",
        ),
        (["GOOD", "--threshold", "x"], "must be a number, f1max or none, got 'x'"),
        (["GOOD", "--threshold", "nan"], "must be a number, f1max or none, got 'nan'"),
        (["GOOD", "--output", "GOOD"], "is in this folder; name a folder of its own"),
        (["--watch", "GOOD", "--json", "a.json"], "name it *.jsonl"),
    ],
)
def test_wrong_arguments_get_a_message_that_says_what_to_do(made, arguments, message):
    good = str(made / "data/widget/test/good")
    asked = [good if each == "GOOD" else each for each in arguments]
    with pytest.raises((ConfigError, DataError)) as error:
        run(model_file(made, "padim"), *asked)
    assert message in str(error.value)


# -- images that arrive ---------------------------------------------------------------------------


def test_folders_are_searched_and_unreadable_formats_are_listed(tmp_path, rng):
    for name in ("b.png", "sub/a.PNG", "c.heic", "sub/.hidden.png", "out/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = photos.list_photos([tmp_path, tmp_path / "b.png"], [tmp_path / "out"])
    assert [str(p.relative_to(tmp_path)) for p in found] == ["b.png", "c.heic", "sub/a.PNG"]
    others = photos.describe_others([tmp_path], [tmp_path / "out"])
    assert others == [
        f"not scored, no images: 1, {tmp_path / 'notes.txt'}",
        "not scored, hidden or of a storage or operating system: 1, "
        f"{tmp_path / 'sub/.hidden.png'}",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in this folder"):
        photos.list_photos([tmp_path / "empty"])


def test_predict_reads_the_files_that_training_reads(tmp_path, rng):
    """Links are followed, endings do not matter, files of network storage are left out."""
    pixels = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
    real = tmp_path / "elsewhere"
    for name in ("a.png", "noending.png", "@eaDir/a.png/thumb.png", "001.png", "001_mask.png"):
        save_image(real / name, pixels)
    (real / "noending.png").rename(real / "noending")
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "link").symlink_to(real)
    (real / "back").symlink_to(folder)
    found = photos.list_photos([folder])
    assert [str(each.relative_to(folder / "link")) for each in found] == [
        "001.png", "001_mask.png", "a.png", "noending",
    ]  # fmt: skip
    others = photos.describe_others([folder])
    assert [each.split(":")[0] for each in others] == [
        "not scored, hidden or of a storage or operating system",
        "scored, but seem to be masks, other channels or previews of other photos",
    ]


def test_a_file_is_reported_once_it_is_written_and_again_when_replaced(tmp_path):
    arrivals = photos.Arrivals(tmp_path)
    path = tmp_path / "a.png"
    path.write_bytes(b"begin")
    assert arrivals.poll() == []  # just seen: may still grow
    path.write_bytes(b"begin and end")
    assert arrivals.poll() == []
    assert arrivals.poll() == [path]
    assert arrivals.poll() == []
    path.write_bytes(b"another picture")
    assert arrivals.poll() == []
    assert arrivals.poll() == [path]
    (tmp_path / "empty.png").touch()
    arrivals.poll()
    assert arrivals.poll() == []
    done = {str(path): state_of(path)}
    again = photos.Arrivals(tmp_path, done=done)
    again.poll()
    assert again.poll() == []
    # Overwritten between two runs by a file of the same size.
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    again = photos.Arrivals(tmp_path, done=done)
    again.poll()
    assert again.poll() == [path]


def test_watching_scores_each_image_once_and_goes_on_after_a_restart(made, padim, tmp_path):
    test, folder = made / "data/widget/test", tmp_path / "camera"
    folder.mkdir()
    shutil.copy(test / "good/000.png", folder / "first.png")
    table, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"

    def watch(rows: int, then) -> str:
        """Watch until the table has as many rows, then interrupt as Ctrl-C does."""
        written = tables.ResultTables(str(table), str(lines), live=True)
        console = Console(file=io.StringIO(), width=200)
        written.begin()
        reporter = Reporter(Printer(console, only=False), written)
        arrivals = photos.Arrivals(folder, done=written.done)
        polled, looks = arrivals.poll, []

        def poll():
            looks.append(1)
            if len(looks) == 1:
                then()
            if len(table.read_text().splitlines()) > rows:
                raise KeyboardInterrupt
            assert len(looks) < 200
            return polled()

        arrivals.poll = poll
        command.watch(padim, arrivals, reporter, interval=0.01)
        return console.file.getvalue()

    def arrive():
        shutil.copy(test / "dent/000.png", folder / "second.png")
        (folder / "broken.png").write_bytes(b"no picture")

    text = watch(3, arrive)
    assert re.search(r"good +\S+ +\S+first.png", text)
    assert re.search(r"anomalous +\S+ +\S+second.png", text)
    assert re.search(r"error +\S+broken.png: cannot be decoded", text)
    # Between two runs the camera overwrote a file, and a power failure left an incomplete row.
    shutil.copy(test / "dent/001.png", folder / "first.png")
    with table.open("a") as file:
        file.write('"/cam')
    watch(5, lambda: shutil.copy(test / "good/001.png", folder / "third.png"))
    rows = list(csv.DictReader(table.open()))
    names = [Path(row["image"]).name for row in rows]
    assert sorted(names[:3]) == ["broken.png", "first.png", "second.png"]
    assert sorted(names[3:]) == ["first.png", "third.png"]
    first = [row for row in rows if row["image"].endswith("first.png")]
    assert [row["anomalous"] for row in first] == ["false", "true"]
    assert (int(first[1]["bytes"]), first[1]["modified"]) == state_of(folder / "first.png")
    assert [json.loads(line)["image"] for line in lines.open()] == [row["image"] for row in rows]


def test_watching_does_not_write_into_a_foreign_table(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"t\.csv: exists and is not a table of this command"):
        tables.ResultTables(str(table), None, live=True)
    assert table.read_text() == "a,b\n1,2\n"


@pytest.mark.slow
def test_an_interrupted_watch_ends_cleanly(made, tmp_path):
    """The real command, with the signal that a service manager sends."""

    folder = tmp_path / "camera"
    folder.mkdir()
    shutil.copy(made / "data/widget/test/dent/000.png", folder)
    table = tmp_path / "t.csv"
    script = Path(score.__file__).with_name("run.py")
    arguments = ["predict", model_file(made, "padim"), "--watch", folder, "--csv", table]
    process = subprocess.Popen(
        [sys.executable, script, *arguments, "--interval", "0.05"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    give_up = threading.Timer(600, process.kill)
    give_up.start()
    while process.poll() is None and not (table.exists() and "000.png" in table.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    give_up.cancel()
    assert (process.returncode, err) == (1, "")
    assert "1 images: 1 anomalous, 0 good" in out
