"""The command ``predict`` loses no row and no picture, whatever fails while it runs."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from indad.cli import main
from indad.cli import predict as command
from indad.cli.reporter import Interruption, Printer, Reporter
from indad.core.errors import ConfigError, DataError, StoreError
from indad.data.images import Geometry
from indad.inference.image_files import ImageFiles, picture_name
from indad.inference.result import Failure, Result
from indad.inference.tables import ResultTables
from predicting import photo, run


def found(image: str, score: float = 1.0, **fields) -> Result:
    """A result as a model gives it."""
    given = {
        "image": image, "score": score, "map": np.zeros((4, 4), np.float32), "threshold": 2.0,
        "anomalous": score > 2, "seconds": 0.1, "size": (4, 4), "pixel_threshold": 1.0,
        "state": None, "geometry": Geometry((4, 4), None),
    }  # fmt: skip
    return Result(**given | fields)


def reporter_of(csv_file=None, json_file=None, **options) -> Reporter:
    written = ResultTables(csv_file and str(csv_file), json_file and str(json_file), live=False)
    written.begin()
    say = Printer(Console(file=io.StringIO(), width=200), only=csv_file is None)
    return Reporter(say, written, **options)


def printed(reporter: Reporter) -> str:
    return reporter.say.console.file.getvalue()


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_rows_are_written_as_images_are_scored(tmp_path, name):
    reporter = reporter_of(tmp_path / "t.csv", tmp_path / name)
    seen = []

    def results():
        for i in range(3):
            yield found(f"{i}.png")
            seen.append([(tmp_path / each).read_text().count(".png") for each in ("t.csv", name)])

    reporter.take(results())
    assert seen == [[1, 1], [2, 2], [3, 3]]
    reporter.tables.finish({"model": "m"})
    if name == "t.json":
        document = json.loads((tmp_path / name).read_text())
        assert [row["image"] for row in document["images"]] == ["0.png", "1.png", "2.png"]
        assert document["model"] == "m"


def test_a_document_without_images_is_complete(tmp_path):
    written = ResultTables(None, str(tmp_path / "t.json"), live=False)
    written.begin()
    written.finish({"model": "m"})
    assert json.loads((tmp_path / "t.json").read_text()) == {"images": [], "model": "m"}


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal, also where the tests were started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_ends_after_the_image_in_progress(tmp_path):
    interruption = Interruption()
    reporter = reporter_of(tmp_path / "t.csv", interruption=interruption)

    def results():
        yield found("a.png")
        os.kill(os.getpid(), signal.SIGTERM)
        yield found("b.png")
        yield found("c.png")

    with interruption.handled():
        reporter.take(results())
        with pytest.raises(KeyboardInterrupt):  # not deferred outside
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
    assert (tmp_path / "t.csv").read_text().splitlines()[-1].startswith("b.png")
    assert reporter.done == 2


def test_a_full_disk_stops_no_image(tmp_path):
    """The rows are kept until they can be written."""
    reporter = reporter_of(tmp_path / "t.csv")
    sink = reporter.tables._csv
    with Path("/dev/full").open("wb", buffering=0) as full:
        reporter.take([found("a.png")])
        real, sink._file = sink._file, full
        reporter.take([found("b.png"), found("c.png")])
    assert printed(reporter).count("t.csv: cannot be written (No space left on device)") == 1
    assert reporter.tables.problems()
    sink._file = real
    reporter.take([found("d.png")])
    assert not reporter.tables.problems()
    rows = (tmp_path / "t.csv").read_text().splitlines()[1:]
    assert [row[:5] for row in rows] == ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_picture_that_fails_is_an_error_of_its_own(tmp_path, error):
    def draw(result):
        if result.image == "b.png":
            raise error

    reporter = reporter_of(tmp_path / "t.csv", draw=draw)
    reporter.take([found("a.png"), found("b.png", 3.0), found("c.png")])
    assert reporter.counts == {"good": 2, "anomalous": 1, "error": 1}
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert f"b.png: no picture was written: {str(error) or 'MemoryError'}" in rows[1]["error"]
    assert (rows[1]["score"], rows[1]["anomalous"]) == ("3", "true")


@pytest.mark.parametrize("console_only", [True, False])
def test_a_reader_that_has_gone_stops_only_what_is_printed(tmp_path, console_only):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    reporter = reporter_of(None if console_only else tmp_path / "t.csv")
    reporter.say.console.file = Gone()
    if console_only:
        with pytest.raises(BrokenPipeError):
            reporter.take([found("a.png"), found("b.png")])
    else:
        reporter.take([found("a.png"), found("b.png")])
        assert (tmp_path / "t.csv").read_text().count(".png") == 2
        assert reporter.say.failed


def test_names_are_escaped_alike_everywhere(tmp_path):
    name = "caf\udce9 \n ü.png"
    reporter = reporter_of(tmp_path / "t.csv", tmp_path / "t.jsonl")
    reporter.take([found(name), Failure(name, DataError(f"{name}: damaged"))])
    escaped = "caf\\udce9 \\x0a ü.png"
    assert printed(reporter).count(escaped) == 2
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").open(encoding="utf-8")]
    assert {row["image"] for row in (*rows, *lines)} == {escaped}
    assert rows[1]["error"] == lines[1]["error"] == f"{escaped}: damaged"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "DIR"], r"--csv .*: cannot be written \(Is a directory\)"),
        (["--json", "FILE/t.json"], r"--json .*: cannot be written \((File exists|Not a dir)"),
        (["--output", "FILE"], r"--output .*: cannot be written to \(File exists\)"),
        (["--maps", "FILE/a"], r"--maps .*: cannot be written to \(Not a directory\)"),
        (["--masks", "OUT", "--threshold", "none"], "--masks: needs a threshold"),
        (["--masks", "OUT", "--output", "OUT"], "--output and --masks: both are"),
        (["--csv", "-", "--json", "-"], "--csv and --json: both are -"),
        (["--csv", "IMAGE"], "this file is read; name another one"),
    ],
)
def test_outputs_are_checked_before_the_model_is_read(tmp_path, arguments, message):
    (tmp_path / "file").write_text("kept")
    image = tmp_path / "image.png"
    image.write_bytes(b"kept")
    places = {"DIR": tmp_path, "FILE": tmp_path / "file", "OUT": tmp_path / "out", "IMAGE": image}
    given = [re.sub("[A-Z]+", lambda name: str(places[name[0]]), each) for each in arguments]
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "model.safetensors", image, *given)
    assert [p.read_text() for p in (tmp_path / "file", image)] == ["kept", "kept"]


def test_tables_of_an_earlier_run_survive_a_model_that_cannot_be_loaded(tmp_path):
    table, new, image = tmp_path / "t.csv", tmp_path / "new.csv", tmp_path / "image.png"
    table.write_text("earlier\n")
    image.write_bytes(b"")
    for file in (table, new):
        with pytest.raises(StoreError):
            run(tmp_path / "none.safetensors", image, "--csv", file)
    assert table.read_text() == "earlier\n"
    assert not new.exists()


def test_no_crash_has_the_exit_code_of_an_anomaly(monkeypatch, capsys):
    def crash(*_):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(command, "_predict", crash)
    assert main.main(["predict", "model", "image"]) == 2
    assert "RuntimeError: unforeseen" in capsys.readouterr().err


def test_a_console_that_is_not_utf8_shows_escaped_names(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", console)
    assert main.main(["predict", "model", "fehlt_\udce9_ü.png"]) == 2
    console.flush()
    assert rb"fehlt_\udce9_\xfc.png: no such image file" in console.buffer.getvalue()


class Drawer:
    """Draws as a model does, without one."""

    def overlay(self, path: str, result: Result) -> Image.Image:
        return Image.open(path).convert("RGB")


def test_each_image_has_pictures_of_its_own(rng, tmp_path):
    source, names = tmp_path / "new", ["part.jpg", "part.jpg.png", "part.png", "sub/part.png"]
    files = ImageFiles(source, *(tmp_path / each for each in ("heat", "maps", "masks")))
    for name in names:
        (source / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(photo(rng, False)).save(source / name)
        values = rng.random((64, 64), np.float32)
        result = found(
            str(source / name), map=values, size=(80, 90), geometry=Geometry(72, (64, 64)),
            pixel_threshold=0.9,
        )  # fmt: skip
        files.write(Drawer(), result)
        inside = Path(name)
        with Image.open(
            tmp_path / "maps" / inside.with_name(picture_name(inside.name, ".tiff"))
        ) as image:
            np.testing.assert_array_equal(np.asarray(image), result.map_full)
        with Image.open(
            tmp_path / "masks" / inside.with_name(picture_name(inside.name, ".png"))
        ) as image:
            np.testing.assert_array_equal(np.asarray(image) > 0, result.mask)
    pictures = {str(p.relative_to(tmp_path / "heat")) for p in (tmp_path / "heat").rglob("*.png")}
    assert pictures == {"part.jpg.png", "part.jpg.png.png", "part.png", "sub/part.png"}


def test_no_two_images_have_the_same_picture():
    names = {
        stem + ending
        for stem in ("a", "a.b", "a.image", "a.png", "a.jpg", "a.tiff", "a.PNG")
        for ending in ("", ".png", ".PNG", ".jpg", ".tiff", ".image", ".image.png", ".x")
    }
    for suffix in (".png", ".tiff"):
        assert len({picture_name(name, suffix) for name in names}) == len(names)
    assert picture_name("a.png", ".png") == "a.png"
    assert picture_name("a.jpg", ".png") == "a.jpg.png"
