"""The expected time of a run grows with the sizes, and what is said to be cheaper is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from indad.data import manifest
from indad.pipeline import cost
from indad.pipeline.config import Config
from indad.pipeline.config_files import load_config, merged
from indad.pipeline.extractor import Extractor

SETTINGS = {"backbone": "resnet18.tv_in1k", "layers": ["layer1", "layer2"], "resize": 256}
IMAGES = cost.Images(200, 80, (256, 256))


def parsed(folder: Path, **experiments: dict) -> Config:
    """Parse a configuration with these experiments, all on one extractor."""
    config = merged(load_config(None), {
        "results": str(folder.parent / "results"), "device": "cpu",
        "run": {"datasets": ["mine"], "experiments": [*experiments], "seeds": [0]},
        "datasets": {"mine": {"path": str(folder)}},
        "extractors": {"r18": SETTINGS | {"crop": None}},
        "experiments": {name: each | {"extractor": "r18"} for name, each in experiments.items()},
    })  # fmt: skip
    return Config.read(config)


def work(config: Config, name: str, resize: int = 256, **changes) -> float:
    """Return the operations of an experiment with changed parameters."""
    run = config.experiments[name]
    parameters = {"coreset": "exact", **run.parameters, **changes}
    layers = cost.layers_of(SETTINGS | {"resize": resize, "crop": None}, IMAGES.size)
    changed = run.__class__(run.name, run.method, run.extractor, parameters, run.model)
    return sum(cost.work_of(changed, layers, IMAGES))


EXPERIMENTS = {
    "SPADE": {"method": "spade", "k_pixel": 50},
    "PaDiM": {"method": "padim", "dimensions": 100},
    "PatchCore": {"method": "patchcore", "coreset_ratio": 0.1},
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_said_to_be_cheaper_is(tmp_path, name):
    config = parsed(tmp_path, **EXPERIMENTS)
    option, times, smaller = re.fullmatch(
        r"'(.+)' makes it about (\d+) times faster and half of 'resize' and 'crop' about (\d+) "
        "times",
        cost.cheaper(config.experiments[name], IMAGES.train),
    ).groups()
    whole = work(config, name)
    assert whole / work(config, name, **yaml.safe_load(option)) == pytest.approx(
        int(times), rel=0.2
    )
    assert whole / work(config, name, resize=128) == pytest.approx(int(smaller), rel=0.2)


def test_the_expected_times_are_those_of_what_is_missing(category, monkeypatch):
    monkeypatch.setattr(cost, "operations_per_second", lambda: 1e5)
    config = parsed(category.parent, **EXPERIMENTS)
    line, advice = cost.expected_times(config)
    assert "expected times on this machine" in line
    for part in ("extraction (r18)", *EXPERIMENTS):
        assert re.search(rf"{re.escape(part)} [\d:]+ h", line)
    assert advice.startswith("PatchCore takes longest; 'coreset_ratio: 0.01'")
    for name in ("PatchCore", "PaDiM"):
        done = config.results / f"scores/mine/widget/{name}/seed0/scores.csv"
        done.parent.mkdir(parents=True)
        done.touch()
    manifest.write(manifest.build(category), config.results / "manifests/mine/widget.csv")
    line, advice = cost.expected_times(config)
    assert "PatchCore" not in line
    assert advice.startswith("SPADE takes longest; 'k_pixel: 1' makes it about 3 times")
    assert cost.expected_times(parsed(category.parent / "nothing", **EXPERIMENTS)) == []


def test_fewer_training_images_and_another_coreset_cost_less(tmp_path):
    config = parsed(tmp_path, **EXPERIMENTS)
    assert work(config, "PatchCore", shots=10) < work(config, "PatchCore") / 10
    merge = {"coreset": "merge", "part_patches": 1000}
    assert work(config, "PatchCore", **merge) < work(config, "PatchCore")


def test_a_backbone_that_is_not_known_is_named(category):
    config = parsed(category.parent, **EXPERIMENTS)
    other = Extractor("r18", config.extractors["r18"].settings | {"backbone": "mynet"})
    config.extractors["r18"] = other
    (line,) = cost.expected_times(config)
    assert line.startswith("expected times are not known for experiments with mynet")
    assert cost.operations_per_second() > 0


@pytest.mark.slow
def test_layers_are_those_of_the_networks():
    import timm
    import torch

    for name, settings in load_config(None)["extractors"].items():
        known = cost.layers_of(settings | {"crop": None, "resize": 448}, (448, 448))
        assert known is not None, name
        with torch.device("meta"):
            model = timm.create_model(settings["backbone"], pretrained=False)
        infos = {each["module"]: each for each in model.feature_info}
        for layer, (positions, channels) in known.shapes.items():
            info = infos.get(layer) or next(iter(infos.values()))  # norm: as the blocks
            assert channels == info["num_chs"], (name, layer)
            assert positions == (448 // info["reduction"]) ** 2, (name, layer)
