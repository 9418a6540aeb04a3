"""What a job asks for is above what it takes, and follows from its input."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml

from conftest import ROOT
from indad import methods
from indad.data import manifest
from indad.features import store
from indad.pipeline import resources
from indad.pipeline.resources import Features, Images

RESNET18 = Features(
    train=200,
    test=16,
    layers={"layer1": (64, 56, 56), "layer2": (128, 28, 28), "layer3": (256, 14, 14)},
    embedding=256,
    input_size=(224, 224),
)
#: What a process holds that has imported torch; scaling.csv has peaks beyond that.
TORCH, EXTRACT = 620, 850
METHODS = {
    "spade": {},
    "padim": {"dimensions": 100},
    "patchcore": {"layers": ["layer2", "layer3"], "embedding": "concat", "coreset_ratio": 0.01},
}


def parameters(method: str) -> dict:
    return methods.create(method, METHODS[method]).parameters


def needs(step: str, method: str, features: Features) -> resources.Needs:
    options = {"gpu": False, "threads": 2}
    if step == "fit":
        return resources.fit(method, parameters(method), features, **options)
    return resources.score(method, parameters(method), features, memory_mb=1024, **options)


def measured() -> list[dict[str, str]]:
    with (ROOT / "docs/scaling.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", measured(), ids=lambda row: f"{row['stage']}-{row['images']}")
def test_asked_is_above_measured_and_not_far(row):
    images, side = int(row["images"]), int(row["side"])
    peak, seconds = float(row["peak_mb"]), float(row["seconds"])
    step, _, name = row["stage"].partition(" ")
    if step == "decode":
        asked, held = resources.decode(Images(images, 16, 512, 512), (side, side), 2), 90
    elif step == "extract":
        known = Images(images, 16, 512, 512)
        options = {"weights_mb": 47, "batch_size": "auto", "gpu": False, "threads": 2}
        asked, held = resources.extract(known, (side, side), **options), EXTRACT
    else:
        scale = side / 224
        layers = {
            name: (channels, math.ceil(height * scale), math.ceil(width * scale))
            for name, (channels, height, width) in RESNET18.layers.items()
        }
        features = replace(RESNET18, train=images, layers=layers, input_size=(side, side))
        method = name.partition(",")[0].lower()
        asked, held = needs(step, method, features), TORCH
    taken = held + peak + resources.SNAKEMAKE_MB
    assert taken <= asked.mem_mb <= 4 * taken
    assert asked.runtime > 2 * seconds / 60


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", ["fit", "score"])
def test_more_input_asks_for_no_less(step, method):
    counts = (10, 300, 5000, 10**5)
    sizes = [needs(step, method, replace(RESNET18, train=n, test=n)) for n in counts]
    for smaller, larger in pairwise(sizes):
        assert smaller.mem_mb <= larger.mem_mb
        assert smaller.runtime <= larger.runtime
    assert resources.fit(method, parameters(method), RESNET18, gpu=True, threads=2).mem_mb >= (
        needs("fit", method, RESNET18).mem_mb + 1000
    )


def test_a_method_nobody_knows_asks_for_all_features():
    asked = resources.fit("new", {}, replace(RESNET18, train=1000), gpu=False, threads=1)
    numbers = 1000 * sum(map(math.prod, RESNET18.layers.values()))
    assert asked.mem_mb > 4 * numbers / 1e6


def test_each_attempt_asks_for_twice_as_much():
    assert [resources.grown(500, attempt) for attempt in (1, 2, 3)] == [500, 1000, 2000]


def test_images_are_counted_in_the_manifest(category, tmp_path):
    path = tmp_path / "manifest.csv"
    with pytest.raises(FileNotFoundError) as error:
        resources.images_of(str(path))
    assert error.value.filename == str(path)  # by which Snakemake knows to ask again later
    manifest.write(manifest.build(category), path)
    assert resources.images_of(str(path)) == Images(3, 5, 48, 40)


def test_shapes_are_read_from_the_store(tmp_path):
    path = tmp_path / "store.h5"
    with pytest.raises(FileNotFoundError) as error:
        resources.features_of(str(path))
    assert error.value.filename == str(path)
    with store.create(path, {}, dtype="float16") as writer:
        for split, count in (("train", 3), ("test", 2)):
            writer.add_split(split, ["x"] * count, {"a": (2, 4, 5)}, 6)
        writer.add_ground_truth([0, 1], ["good", "cut"], [True, True], np.zeros((2, 8, 9), bool))
    assert resources.features_of(str(path)) == Features(3, 2, {"a": (2, 4, 5)}, 6, (8, 9))
    # What a damaged file says is no matter: its reader will refuse it.
    path.write_bytes(b"\0" * 600)
    assert resources.features_of(str(path)) is None
    assert resources.fit("spade", {}, None, gpu=False, threads=1).mem_mb > 0


def test_every_rule_asks_for_memory_and_time():
    rules = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?: .*\n|\n)+)", path.read_text(), re.M):
            rules[name] = body
    assert len(rules) >= 11
    for name, body in rules.items():
        assert "mem_mb=" in body, name
        assert "runtime=" in body, name


@pytest.mark.parametrize("name", ["default", "workstation-gpu", "slurm", "kubernetes"])
def test_profiles_are_documented_and_known_to_snakemake(name):
    profile = yaml.safe_load((ROOT / "workflow/profiles" / name / "config.yaml").read_text())
    assert profile["rerun-incomplete"]
    text = (ROOT / "docs/cluster.md").read_text()
    assert f"profiles/{name}" in text or f"`{name}`" in text
    groups = {each.partition("=")[0] for each in profile.get("group-components", [])}
    used = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert all(f'"{group}"' in used for group in groups)


def test_the_documents_table_holds_what_it_is_for():
    rows = [
        [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/resources.md").read_text().splitlines()
        if line.startswith("| ") and "/" in line
    ]
    assert {row[0].partition("/")[0] for row in rows} >= {"extract", "fit", "score", "evaluate"}
    for name, asked, measured, *_ in rows:
        assert float(measured) <= float(asked) <= 4 * float(measured), name
