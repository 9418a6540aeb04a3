"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

# Test files run in parallel, so waiting threads must not spin. Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from indad.data import examine
from indad.data.images import Geometry, read_masks
from indad.features.source import ArrayFeatures, FeatureSource

ROOT = Path(__file__).resolve().parent.parent

#: Files that take longest, started first so that parallel workers finish at about the same time.
LONGEST_FIRST = (
    "test_workflow.py",
    "test_slurm.py",
    "test_faults.py",
    "test_offline.py",
    "test_module.py",
    "test_dev.py",
    "test_bottle.py",
    "test_report_browser.py",
    "test_fuzz.py",
    "test_cache.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the test files by ``LONGEST_FIRST``; the rest keep their order."""
    place = {name: i for i, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def folder_from(variable: str, what: str) -> Path:
    """Return the path an environment variable names, or skip with the reason."""
    value = os.environ.get(variable)
    if not value or not Path(value).exists():
        pytest.skip(f"{what} not here: set {variable}")
    return Path(value)


def read_image(path: Path, geometry: Geometry) -> np.ndarray:
    """Decode and preprocess an image as a run does: uint8 ``(H, W, 3)``."""
    return examine.read(path.parent, SimpleNamespace(image=path.name, mask=""), geometry)[0]


def read_mask(path: Path, geometry: Geometry) -> np.ndarray:
    """Read a mask of one file as a run does: bool ``(H, W)``."""
    return read_masks([path], geometry)[0]


@pytest.fixture(scope="session")
def mvtec() -> Path:
    """The folder of real MVTec AD categories, bottle among them."""
    return folder_from("INDAD_TEST_MVTEC", "the real MVTec AD category bottle")


@pytest.fixture(scope="session")
def r18_weights() -> Path:
    """A real ResNet-18 checkpoint."""
    return folder_from("INDAD_TEST_R18_WEIGHTS", "the real ResNet-18 weights")


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory) -> Path:
    """The finished run of `small_run`, one for all parallel workers: read only."""
    import small_run

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "small_run"
    folder.mkdir(exist_ok=True)
    done = folder / "done"
    with FileLock(folder / "lock"):
        if not done.exists():
            small_run.run_all(folder)
            done.touch()
    return folder


@pytest.fixture(scope="module")
def finished(shared_run, tmp_path_factory) -> Path:
    """A copy of the finished run for one test file, with the times of its files."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(shared_run, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Data and a results folder of all methods, made in this process."""
    from predicting import EXPERIMENTS, EXTRACTOR, make_results

    return make_results(tmp_path_factory.mktemp("made"), EXTRACTOR, list(EXPERIMENTS))


@pytest.fixture(scope="module")
def padim(made):
    """The PaDiM model of `made`."""
    from indad import load_model
    from predicting import model_file

    return load_model(model_file(made, "padim"), device="cpu")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the Markdown tables in a text, row by row."""
    lines = (line.strip("|") for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def make_features(rng: np.random.Generator, count: int, **changes) -> ArrayFeatures:
    """Random features of two layers, the deeper one coarser, as a network gives them."""
    shapes = changes.pop("shapes", {"a": (5, 8, 8), "b": (7, 4, 4)})
    maps = {name: rng.random((count, *shape), dtype=np.float32) for name, shape in shapes.items()}
    z = rng.random((count, 6), dtype=np.float32)
    return ArrayFeatures(maps, input_size=(32, 32), embedding=z, **changes)


def copied(source: FeatureSource, images: Sequence[int]) -> ArrayFeatures:
    """Return the features of some images, in any order and also several times, in new arrays."""
    return ArrayFeatures(
        {layer: source.maps(layer)[images] for layer in source.layers},
        input_size=source.input_size,
        embedding=source.embedding()[images],
    )


def save_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def category(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A small correct category folder: 3 training, 2 good and 2 + 1 defective test images."""
    folder = tmp_path / "data" / "widget"

    def image(name: str) -> None:
        save_image(folder / name, rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))

    def mask(name: str) -> None:
        pixels = np.zeros((40, 48), np.uint8)
        pixels[10:20, 12:30] = 255
        save_image(folder / name, pixels)

    for i in range(3):
        image(f"train/good/{i:03d}.png")
    for i in range(2):
        image(f"test/good/{i:03d}.png")
        image(f"test/cut/{i:03d}.png")
        mask(f"ground_truth/cut/{i:03d}_mask.png")
    image("test/dirt/a.png")
    mask("ground_truth/dirt/a.png")
    return folder


class Named(dict):
    """Files, parameters or wildcards of a job, also reachable as attributes as in Snakemake."""

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def make_job(**parts) -> SimpleNamespace:
    """A job as Snakemake gives it to a script; ``settings`` are its ``params.settings``."""
    config = {"device": "cpu", "tf32": False, "batch_size": 3, "memory_mb": 1024}
    params = {"settings": parts.get("settings", {})} | parts.get("params", {})
    return SimpleNamespace(
        input=Named(parts.get("input", {})),
        output=Named(parts.get("output", {})),
        params=Named(params),
        wildcards=Named(parts.get("wildcards", {})),
        config=config | parts.get("config", {}),
        threads=parts.get("threads", 1),
    )
