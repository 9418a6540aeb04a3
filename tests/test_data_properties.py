"""Properties of manifests, masks and configurations that hold for any input."""

from __future__ import annotations

import copy
import io
import os
import random
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import read_image, read_mask
from indad.core.errors import IndadError
from indad.core.names import printable
from indad.data import files, manifest
from indad.data.folder_layout import Reading
from indad.data.formats import SUFFIXES
from indad.data.images import Geometry, mask_pixels
from indad.pipeline.config import Config
from indad.pipeline.presentation import layout

EASY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


# -- manifests ------------------------------------------------------------------------------------

#: Characters of Unix file names, special ones of CSV, HDF5 and terminals more often.
letters = st.one_of(
    st.sampled_from([*"ab._- ,;'\"\n\r\t\\#%&{}[]*?=~", "ä", "a\u0308", "漢", "_mask", "good"]),
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
)
stems = st.lists(letters, min_size=1, max_size=5).map("".join).filter(lambda s: s[0] != ".")
endings = st.sampled_from([*SUFFIXES, ".PNG", ".Jpg"])
kinds = st.sampled_from(["good", "cut", "not_good", "good ones", "ground_truth", "test", "größe"])
folders = st.one_of(
    st.just("train/good"), kinds.map(lambda kind: f"test/{kind}"),
    kinds.map(lambda kind: f"test/{kind}/deep"),
    st.sampled_from(["train/bad", "test", "", "other", "train/good/more"]),
)  # fmt: skip
masked = st.sampled_from(["", "_mask", None, None])
trees = st.lists(st.tuples(folders, stems, endings, masked), min_size=1, max_size=14)


@lru_cache
def content(number: int, mask: bool) -> bytes:
    """A PNG, also under other names: files are read by content."""
    pixels = np.full((4, 4), 255 if mask else number, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def plant(root: Path, tree) -> list[str]:
    """Write a tree of files and return the images' paths."""
    images = []
    (root / "train/good").mkdir(parents=True)
    for number, (folder, stem, ending, mask) in enumerate(tree):
        try:
            path = root / folder / f"{stem}{ending}"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(number, False))
            images.append(path.relative_to(root).as_posix())
            kind = folder.removeprefix("test/")
            if mask is not None and kind != folder and not kind.startswith("good"):
                drawn = root / "ground_truth" / kind / f"{stem}{mask}.png"
                drawn.parent.mkdir(parents=True, exist_ok=True)
                drawn.write_bytes(content(number, True))
        except OSError:  # too long a name
            continue
    return images


scandir = os.scandir


class Shuffled:
    """``os.scandir`` in another order."""

    def __init__(self, path) -> None:
        with scandir(path) as entries:
            self.entries = list(entries)
        random.Random(7).shuffle(self.entries)

    def __enter__(self):
        return iter(self.entries)

    def __exit__(self, *_):
        return None


@settings(max_examples=25, **EASY)
@given(tree=trees, root=st.sampled_from(["good", "test", "a good test/ground_truth", "tr äin/x"]))
def test_every_image_is_listed_or_reported(tree, root):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / root / "part"
        images = plant(folder, tree)
        found = manifest.survey(folder, Reading(allow_one_class=True), threads=1)
        table = found.table

        warnings = list(map(str, found.warnings))
        said = "\n".join([*found.problems, *warnings])
        listed = table["image"].tolist()
        assert len(set(listed)) == len(listed)
        counted = sum(int(n.split(" ")[0]) for n in warnings if "not part of the layout" in n)
        beside = [image for image in images if image.startswith("other/") or "/" not in image]
        assert counted == len(beside)
        for image in set(images) - set(beside):
            path = folder / image
            named, within = (printable(str(each), keep="\n") for each in (path, path.parent))
            refused = named in said or f"{within}: " in said
            assert image in listed or refused

        for row in table.itertuples():
            split, kind, *_ = row.image.split("/")
            assert row.split == split
            assert row.label == int(kind != "good")
            for mask, _ in manifest.mask_files(row):
                stem, drawn = Path(row.image).stem, Path(mask).stem
                assert drawn in (stem, f"{stem}_mask")
                assert Path(mask).parts[1:-1] == Path(row.image).parts[1:-1]

        if len(table):  # an empty one is refused, so it is never written
            file = Path(place) / "m.csv"
            manifest.write(table, file)
            again = manifest.read(file)
            assert again.to_dict("list") == table.to_dict("list")
            assert manifest.content_hash(again) == manifest.content_hash(table)

        # Neither the folder's path nor the order of its files matters.
        other = Path(place) / "elsewhere"
        plant(other, tree)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files.os, "scandir", Shuffled)
            moved = manifest.survey(other, Reading(allow_one_class=True), threads=2)
        assert moved.table.to_dict("list") == table.to_dict("list")
        here, there = printable(str(folder)), str(other)
        assert [p.replace(there, here) for p in moved.problems] == found.problems


# -- masks and geometry ---------------------------------------------------------------------------

sides = st.integers(8, 70)


@settings(max_examples=30, **EASY)
@given(
    size=st.tuples(sides, sides),
    resize=st.one_of(st.integers(8, 48), st.lists(st.integers(8, 48), min_size=2, max_size=2)),
    data=st.data(),
)
def test_geometry_equals_torchvision_on_any_size(tmp_path_factory, size, resize, data):
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    whole = Geometry.from_config(resize, None)
    height, width = whole.resized(*size)
    crop = data.draw(
        st.one_of(st.none(), st.tuples(st.integers(1, height), st.integers(1, width)).map(list))
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.random(size) < 0.2
    folder = tmp_path_factory.mktemp("geometry")
    Image.fromarray(image).save(folder / "image.png")
    mode = data.draw(st.sampled_from(["L", "RGB", "1", "LA", "RGBA", "P"]))
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(folder / "mask.png")
    np.testing.assert_array_equal(mask_pixels(folder / "mask.png"), mask)

    def expected(pixels, interpolation):
        steps = [transforms.Resize(resize, interpolation)]
        steps += [] if crop is None else [transforms.CenterCrop(crop)]
        return np.asarray(transforms.Compose(steps)(Image.fromarray(pixels)))

    geometry = Geometry.from_config(resize, crop)
    seen = read_image(folder / "image.png", geometry)
    assert seen.shape[:2] == geometry.output(*size)
    np.testing.assert_array_equal(seen, expected(image, InterpolationMode.BILINEAR))
    kept = read_mask(folder / "mask.png", geometry)
    assert kept.dtype == bool
    wanted = expected(mask.astype(np.uint8), InterpolationMode.NEAREST)
    np.testing.assert_array_equal(kept, wanted > 0)


# -- configurations -------------------------------------------------------------------------------


def settle(config) -> Config:
    """Do to a configuration what planning a workflow does, except for reading data folders."""
    made = Config.read(config)
    assert made.experiments
    assert made.models
    assert all(map(made.geometries, made.datasets))
    for dataset in made.datasets.values():
        if dataset.source:
            assert dataset.categories
            _ = dataset.request
    _ = layout(made)
    return made


def options(**choices):
    """A mapping that has some of the keys."""
    return st.fixed_dictionaries({}, optional=choices)


word = st.sampled_from(["a", "OK", "größe", "x y"])
side = st.integers(8, 300)
datasets = st.one_of(
    options(
        good=st.one_of(word, st.lists(word, min_size=1, unique=True)),
        train=word,
        masks=st.just("gt/m"),
        mask_suffix=st.one_of(word, st.just("")),
        missing_masks=st.sampled_from(["error", "allow"]),
        holdout=st.floats(0.01, 0.99),
        holdout_seed=st.integers(0, 9),
        allow_one_class=st.booleans(),
        categories=st.lists(word, min_size=1, unique=True),
    ).map(lambda each: {"path": "/data/x"} | each),
    options(list=word, good=word, unlisted=st.just("allow")).map(
        lambda each: {"path": "/data/x", "list": "l.csv"} | each
    ),
    options(categories=st.just(["wood"]), options=options(train=st.integers(0, 9))).map(
        lambda each: {"source": "drawn"} | each
    ),
)
extractors = options(
    resize=st.one_of(st.integers(300, 400), st.lists(side, min_size=2, max_size=2)),
    crop=st.one_of(st.none(), st.integers(8, 256)),
    dtype=st.sampled_from(["float32", "float16"]),
    weights=st.sampled_from(["random", "/w.pth"]),
).map(lambda each: {"backbone": "resnet18.tv_in1k", "layers": ["layer1", "layer2"]} | each)
experiments = st.one_of(
    options(dimensions=st.integers(1, 9), epsilon=st.floats(0.001, 1)).map(
        lambda each: {"method": "padim"} | each
    ),
    options(k_image=st.integers(1, 9), layers=st.just(["layer2"])).map(
        lambda each: {"method": "spade"} | each
    ),
    options(coreset_ratio=st.floats(0.01, 1), embedding=st.just("concat")).map(
        lambda each: {"method": "patchcore"} | each
    ),
).map(lambda each: each | {"extractor": "e"})
configs = st.fixed_dictionaries(
    {
        "run": st.fixed_dictionaries(
            {"datasets": st.just(["d"]), "experiments": st.just(["x", "y"])},
            optional={"seeds": st.lists(st.integers(0, 9), min_size=1, unique=True)},
        ),
        "datasets": st.fixed_dictionaries({"d": datasets}),
        "extractors": st.fixed_dictionaries({"e": extractors}),
        "experiments": st.fixed_dictionaries({"x": experiments, "y": experiments}),
    },
    optional={
        "results": word,
        "device": st.sampled_from(["auto", "cpu", "cuda"]),
        "threads": st.integers(1, 64),
        "batch_size": st.one_of(st.just("auto"), st.integers(1, 64)),
        "memory_mb": st.integers(16, 9999),
        "tf32": st.booleans(),
    },
)


@settings(max_examples=25, **EASY)
@given(config=configs)
def test_valid_configurations_pass(config):
    made = settle(config)
    text = yaml.safe_dump(config, allow_unicode=True)
    assert settle(yaml.safe_load(text)).experiments == made.experiments


def places(value, path=()):
    """Name every key of a nested configuration."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in items:
        yield (*path, key)
        if isinstance(each, (dict, list)):
            yield from places(each, (*path, key))


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4),
    st.sampled_from(["/abs", "../up", ".", "x" * 300, "\0", [], {}, [None], {"a": 1}, [[1]]]),
)  # fmt: skip
#: Keys whose value another key's message may blame: names that are referred to.
names = {"run", "datasets", "extractors", "experiments", "method", "extractor", "source"}


@settings(max_examples=100, **EASY)
@given(config=configs, data=st.data())
def test_a_mutation_passes_or_is_one_error_that_names_the_key(config, data):
    config = copy.deepcopy(config)
    path = data.draw(st.sampled_from(list(places(config))))
    owner = config
    for key in path[:-1]:
        owner = owner[key]
    change = data.draw(st.sampled_from(["replace", "delete", "add"]))
    named = path[-1]
    if change == "replace":
        owner[named] = data.draw(junk)
    elif change == "delete":
        del owner[named]
    elif isinstance(owner, dict):
        named = data.draw(st.one_of(st.text(max_size=5), st.integers(), st.none()))
        owner[named] = data.draw(junk)
    try:
        settle(config)
    except IndadError as error:
        text = str(error)
        assert text.strip()
        assert len(text.splitlines()) <= 3
        parts = [part for part in (*path[:-1], named) if isinstance(part, str)]
        assert any(part in text for part in parts if part) or not any(parts)
        if named in ("threads", "resize", "holdout", "good", "coreset_ratio", "device"):
            assert named in text
