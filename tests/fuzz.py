"""Damages files of every kind and reads them: run as a script, in a process that may crash.

    python tests/fuzz.py GROUP FOLDER

Each case depends on its number only. Its name is written to FOLDER/case before the file is read, so
that the parent process knows which case crashed; the results are printed as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import signal
import sys
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]

from conftest import make_features, read_image, read_mask, save_image  # noqa: E402
from indad.core import checksum, provenance  # noqa: E402
from indad.core.csv_files import write_csv  # noqa: E402
from indad.core.errors import IndadError  # noqa: E402
from indad.data import decode, manifest  # noqa: E402
from indad.data.images import Geometry, size  # noqa: E402
from indad.evaluation import calibration, evaluate, resamples, scores  # noqa: E402
from indad.features import store  # noqa: E402
from indad.methods.base import Scores  # noqa: E402

GEOMETRY = Geometry.from_config(24, 16)
#: Longest a damaged file may take to read.
SECONDS = 20


@dataclass
class Reader:
    """A kind of file and what reads it.

    Attributes:
        name: for the counts.
        file: a sound file.
        read: reads ``file``'s content from its place; returns what can be compared.
        cases: how many damaged files.
        noticed: for files without a checksum: whether a later stage refuses a file that was read
            with other content. None: every damage must be refused, even one that changes nothing.
        foreign: another file to splice pieces of.
    """

    name: str
    file: Path
    read: Callable[[], Any]
    cases: int
    noticed: Callable[[], bool] | None = None
    foreign: bytes = b""


# -- damage ---------------------------------------------------------------------------------------


def damaged(data: bytes, foreign: bytes, rng: np.random.Generator) -> bytes:
    """Return ``data`` damaged in one of five ways."""
    while True:
        result = bytearray(data)
        kind = rng.integers(5)
        at = int(rng.integers(len(data)))
        length = int(min(2 ** rng.integers(0, 11), len(data)))
        if kind == 0:
            for bit in rng.integers(0, 8 * len(data), rng.integers(1, 5)):
                result[bit // 8] ^= 1 << (bit % 8)
        elif kind == 1:
            run = rng.integers(0, 256, length, dtype=np.uint8) if rng.random() < 0.5 else None
            fill = bytes([int(rng.choice([0, 255, 48]))]) * length if run is None else run.tobytes()
            result[at : at + length] = fill[: len(result) - at]
        elif kind == 2:
            del result[at:]
        elif kind == 3:
            result[at:at] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        else:
            origin = foreign or data
            start = int(rng.integers(len(origin)))
            result[at : at + length] = origin[start : start + length]
        if result != data:
            return bytes(result)


def same(one: Any, other: Any) -> bool:
    """Tell whether two results are equal, arrays and tables included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    return bool(one == other)


def _alarm(*_: Any) -> None:
    raise TimeoutError(f"took more than {SECONDS} s")


def outcome(reader: Reader, expected: Any) -> str:
    """Read the damaged file and classify the result."""
    try:
        found = reader.read()
    except IndadError as error:
        return "refused" if str(error) else "failed: an error without a message"
    except BaseException as error:
        return f"failed: {type(error).__name__}: {error}"
    if reader.noticed is None:
        return "failed: damage unnoticed"
    if same(found, expected):
        return "equal"
    return "noticed" if reader.noticed() else "failed: not noticed"


def run(readers: list[Reader], folder: Path) -> dict[str, Any]:
    """Run all cases; return the counts of outcomes, the failures and the peak of the memory."""
    signal.signal(signal.SIGALRM, _alarm)
    warnings.simplefilter("ignore")
    counts: dict[str, Counter[str]] = {}
    failures = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reader in readers:
        sound = reader.file.read_bytes()
        expected = reader.read()
        counted = counts.setdefault(reader.name, Counter())
        for case in range(reader.cases):
            rng = np.random.default_rng([zlib.crc32(reader.name.encode()), case])
            data = damaged(sound, reader.foreign, rng)
            (folder / "case").write_text(f"{reader.name}, case {case}")
            reader.file.write_bytes(data)
            signal.alarm(SECONDS)
            result = outcome(reader, expected)
            signal.alarm(0)
            if result.startswith("failed"):
                (folder / f"{reader.name.replace(' ', '-')}-{case}").write_bytes(data)
                failures.append(f"{reader.name}, case {case}: {result}")
            counted[result.partition(":")[0]] += 1
        reader.file.write_bytes(sound)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"counts": counts, "failures": failures, "grown_mb": (after - before) / 1024}


# -- files ----------------------------------------------------------------------------------------


def category(folder: Path, rng: np.random.Generator) -> Path:
    """Make a small category of smooth images with a mask."""
    y, x = np.mgrid[0:28, 0:32]
    for i, name in enumerate(
        ["train/good/0.png", "train/good/1.png", "test/good/0.png", "test/cut/0.png"]
    ):
        waves = [120 + 60 * np.sin(x / 3 + i) + 40 * np.cos(y / (2 + c)) for c in range(3)]
        noisy = np.stack(waves, axis=2) + rng.normal(0, 4, (28, 32, 3))
        save_image(folder / name, noisy.clip(0, 255).astype(np.uint8))
    mask = np.zeros((28, 32), np.uint8)
    mask[8:20, 8:20] = 255
    save_image(folder / "ground_truth/cut/0_mask.png", mask)
    return folder


def _store(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    made_with = {"layers": ["a"], "input_size": [16, 16], "weights_sha256": "ab" * 32}
    with store.create(path, made_with, dtype="float32") as writer:
        for split, count in (("train", 4), ("test", 3)):
            names = {i: f"{i}.png" for i in range(count)}
            part = writer.add_part(split, names, {"a": (3, 4, 4)}, 5, (16, 16))
            maps = rng.random((count, 3, 4, 4), dtype=np.float32)
            writer.write(part, 0, {"a": maps}, rng.random((count, 5), dtype=np.float32))
        truth = store.GroundTruth(
            np.array(["0", "1", "2"], object), np.array([0, 1, 1]),
            np.array(["good", "cut", "cut"], object), np.array([True] * 3), (),
        )  # fmt: skip
        writer.add_ground_truth(truth)


def _read_store(path: Path) -> Any:
    with store.FeatureStore(path) as opened:
        truth = opened.ground_truth()
        parts = [opened.split(name) for name in store.SPLITS]
        return [
            opened.made_with,
            [(part.maps("a"), part.embedding()) for part in parts],
            [opened.numbers(name) for name in store.SPLITS],
            [truth.label, list(truth.defect), truth.has_mask],
        ]


def _scores(folder: Path, seed: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(seed)
    truth = store.GroundTruth(
        np.array(["a.png", "b.png"], object), np.array([0, 1]), np.array(["good", "cut"], object),
        np.array([True, True]), np.zeros((2, 9, 9), bool),
    )  # fmt: skip
    found = Scores(rng.random(2, dtype=np.float32), rng.random((2, 9, 9), dtype=np.float32))
    with scores.create(truth, folder / "scores.csv", folder / "maps.h5") as writer:
        writer.write(range(2), found)
        writer.finish(0.5, {"seed": seed})
    return folder / "scores.csv", folder / "maps.h5"


def _read_scores(table: Path, maps: Path) -> Any:
    found = scores.read(table, maps)
    return [found.table, list(found.maps)]


def checksums(folder: Path) -> list[Reader]:
    """Files with a checksum inside, and the table whose digest is in another file."""
    rng = np.random.default_rng(0)
    images = category(folder / "widget", rng)
    rows = manifest.build(images)
    decode.decode(rows, images, folder / "p.h5", geometry=GEOMETRY)
    _store(folder / "f.h5", 0)
    _store(folder / "other.h5", 1)
    (folder / "other").mkdir()
    _, other_maps = _scores(folder / "other", 1)
    table, maps = _scores(folder, 0)

    def read_pixels() -> Any:
        with decode.Pixels(folder / "p.h5", rows) as opened:
            return [
                (opened.images(s), opened.read(s, range(len(opened.images(s)))))
                for s in decode.SPLITS
            ]

    drawn = rng.random(20)
    found = resamples.Resamples(
        "d", "c", "e", 0, np.array(["a", "b"], object), np.array([0, 1]), drawn[:2],
        np.array([0, 3]), {"image_auroc": drawn}, {"pixel_ap": drawn[:2]}, 0, 1,
    )  # fmt: skip
    resamples.write(found, folder / "r.h5")
    known = calibration.Known([0.1, 0.2], [1.5, 2.5])
    calibration.Calibration("e", "d", "c", 0, "m", "ab", {"k": 1}, 0.5, known, known).write(
        folder / "calibration.json"
    )

    def read_resamples() -> Any:
        read = resamples.read(folder / "r.h5")
        return [read.image, read.label, read.score, dict(read.values)]

    other_store = (folder / "other.h5").read_bytes()
    return [
        Reader("feature store", folder / "f.h5", lambda: _read_store(folder / "f.h5"), 1200,
               foreign=other_store),
        Reader("decoded images", folder / "p.h5", read_pixels, 1200),
        Reader("anomaly maps", maps, lambda: _read_scores(table, maps), 1000,
               foreign=other_maps.read_bytes()),
        Reader("resamples", folder / "r.h5", read_resamples, 500),
        Reader("calibration", folder / "calibration.json",
               lambda: calibration.read(folder / "calibration.json"), 400),
        Reader("scores", table, lambda: _read_scores(table, maps), 1000),
    ]  # fmt: skip


def models(folder: Path) -> list[Reader]:
    """A model of each method."""
    from indad import methods

    train = make_features(np.random.default_rng(0), 6)
    readers = []
    for name, parameters in (
        ("spade", {}),
        ("padim", {"dimensions": 5}),
        ("patchcore", {"embedding": "concat", "coreset_ratio": 0.1}),
    ):
        path = folder / f"{name}.safetensors"
        for seed in (1, 0):
            foreign = path.read_bytes() if path.exists() else b""
            methods.create(name, parameters, seed=seed).fit(train).save(path)

        def read(path: Path = path) -> Any:
            found = methods.load(path, gallery=train)
            return [found.parameters, {k: np.asarray(v) for k, v in found._state().items()}]

        readers.append(Reader(f"model of {name}", path, read, 600, foreign=foreign))
    return readers


def weights(folder: Path) -> list[Reader]:
    """Checkpoints in three formats, read into a network."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    from indad.features.checkpoint import digest_of, fill, own_tensors, read_tensors
    from indad.features.weights import weights_sha256_of

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    own = own_tensors(model)
    files = {name: folder / name for name in ("w.pth", "legacy.pth", "w.safetensors")}
    torch.save(state, files["w.pth"])
    torch.save(state, files["legacy.pth"], _use_new_zipfile_serialization=False)
    save_file(state, files["w.safetensors"])
    _store(folder / "f.h5", 0)

    def reader(name: str, cases: int) -> Reader:
        path = files[name]
        sound = weights_sha256_of(str(path))

        def read() -> Any:
            fill(model, own, read_tensors(path, "net", own, None), str(path))
            return digest_of(own)

        def noticed() -> bool:
            """Whether features made with the sound weights are refused."""
            found = weights_sha256_of(str(path))
            try:
                store.FeatureStore(folder / "f.h5", {"weights_sha256": found})
            except IndadError:
                return found != sound
            return False

        return Reader(f"weights {name}", path, read, cases, noticed)

    return [reader("w.pth", 700), reader("legacy.pth", 500), reader("w.safetensors", 600)]


def images(folder: Path) -> list[Reader]:
    """An image of each format and a mask, read as the decode stage does."""
    root = category(folder / "widget", np.random.default_rng(0))
    source = np.asarray(Image.open(root / "train/good/0.png"))
    kinds = {
        "png": {}, "jpg": {"quality": 80}, "bmp": {}, "tif": {"compression": "tiff_lzw"},
        "tiff": {"compression": None}, "webp": {"lossless": True},
    }  # fmt: skip
    readers = []

    def reader(name: str, path: Path, mask: bool, cases: int) -> Reader:
        rows = manifest.build(root).itertuples()
        row = next(row for row in rows if path in (root / row.image, root / row.mask))

        def read() -> Any:
            found = (read_mask if mask else read_image)(path, GEOMETRY)
            return [size(path), found]

        return Reader(name, path, read, cases, lambda: decode._read(root, row, GEOMETRY)[2] != "")

    for suffix, options in kinds.items():
        path = root / f"train/good/{suffix}.{suffix}"
        Image.fromarray(source).save(path, **options)
        readers.append(reader(f"image {suffix}", path, False, 450))
    deep = root / "train/good/deep.png"
    Image.fromarray(source[..., 0].astype(np.uint16) * 200).save(deep)
    readers.append(reader("image 16 bit png", deep, False, 300))
    readers.append(reader("mask", root / "ground_truth/cut/0_mask.png", True, 450))
    return readers


def tables(folder: Path) -> list[Reader]:
    """Tables and records."""
    root = category(folder / "widget", np.random.default_rng(0))
    rows = manifest.build(root)
    manifest.write(rows, folder / "m.csv")
    keys = {"dataset": "d", "category": "c", "experiment": "e", "seed": 0}
    frame = evaluate.tidy({"image_auroc": 0.912345678, "image_ap": 1 / 3}, **keys)
    metrics, record = folder / "metrics/seed0.csv", folder / "seed0.json"
    write_csv(frame, metrics)
    outputs = {"metrics/seed0.csv": checksum.recorded_digest(metrics)}
    common = {"wildcards": keys, "made_with": {}, "software": {}, "inputs": {}}
    checksum.write_json(record, common | {"outputs": outputs})
    archive = folder / "archive.json"
    origin = {"from": "http://x/y.zip", "path": "/d/y.zip", "sha256": "ab" * 32, "verified": True}
    checksum.write_json(archive, origin | {"size": 12, "time": 34})

    def read_metrics() -> Any:
        found = provenance.gather(folder, [record], [record])
        return [evaluate.read([metrics]), found]

    return [
        Reader("manifest", folder / "m.csv", lambda: manifest.read(folder / "m.csv"), 700),
        Reader("metrics", metrics, read_metrics, 500),
        Reader("record of metrics", record, read_metrics, 500),
        Reader("record of an archive", archive, lambda: checksum.read_json(archive), 400),
    ]


def config(folder: Path) -> list[Reader]:
    """A configuration: what is still valid is another one, whose results say so."""
    from indad.pipeline.config import Config
    from indad.pipeline.config_files import check_schema, merged, read_yaml

    base = read_yaml(ROOT / "config/config.yaml")
    file = folder / "evidence.yaml"
    file.write_bytes((ROOT / "config/evidence.yaml").read_bytes())

    def read() -> Any:
        found = merged(base, read_yaml(file))
        check_schema(found)
        try:
            resolved = Config.parse(DEFAULTS | found)
            return [found, resolved.models]
        except KeyError as error:  # defaults that the workflow fills in
            return [found, str(error)]

    return [Reader("configuration", file, read, 500, lambda: True)]


DEFAULTS = {"results": "results", "device": "auto", "threads": 8}
GROUPS = {"checksums": checksums, "models": models, "weights": weights, "images": images,
          "tables": tables, "config": config}  # fmt: skip


if __name__ == "__main__":
    faulthandler.enable()
    group, place = sys.argv[1], Path(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    print(json.dumps(run(GROUPS[group](place), place)))
