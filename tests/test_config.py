"""References between the sections of a configuration, and which experiments share a model."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from indad import methods
from indad.core.errors import ConfigError, DataError
from indad.features.settings import expected_store, made_with
from indad.pipeline.config import Config
from indad.pipeline.config_files import (
    check_schema,
    expand_paths,
    literal_path,
    read_yaml,
)
from indad.pipeline.dataset import Dataset
from indad.pipeline.presentation import experiment_notes, layout
from indad.pipeline.settings import category_jobs

BASE = {
    "results": "results",
    "device": "cpu",
    "threads": 1,
    "uncertainty": {"resamples": 1000, "level": 0.95, "seed": 0},
    "evaluate_at": "input",
    "run": {"datasets": ["d"], "experiments": ["P10", "P1", "M"], "seeds": [0]},
    "datasets": {"d": {"path": "somewhere"}, "drawn": {"source": "drawn", "categories": ["wood"]}},
    "extractors": {
        "r": {
            "backbone": "resnet18.tv_in1k",
            "weights": "random",
            "layers": ["layer1", "layer2"],
            "resize": 256,
            "crop": 224,
            "dtype": "float32",
            "precision": "float32",
        }
    },
    "experiments": {
        "P10": {"method": "patchcore", "extractor": "r", "coreset_ratio": 0.10},
        "P1": {"method": "patchcore", "extractor": "r", "coreset_ratio": 0.01},
        "P-proj": {"method": "patchcore", "extractor": "r", "projection": 64},
        "M": {"method": "padim", "extractor": "r", "dimensions": 9},
        "S5": {"method": "spade", "extractor": "r", "k_image": 5},
        "S50": {"method": "spade", "extractor": "r", "k_image": 50},
    },
}


def config(**changes) -> Config:
    changed = copy.deepcopy(BASE)
    for key, value in changes.items():
        section, _, rest = key.partition("__")
        if rest:
            changed[section][rest] = value
        else:
            changed[section] = value
    return Config.parse(changed)


def dataset(settings: dict) -> Dataset:
    return config(run__datasets=["p"], datasets={"p": settings}).datasets["p"]


def test_experiments_that_differ_in_scoring_share_a_model():
    made = config(run__experiments=["P10", "P1", "P-proj", "M", "S5", "S50"])
    model = {name: experiment.model for name, experiment in made.experiments.items()}
    assert model["P10"] == model["P1"]
    assert model["S5"] == model["S50"]
    assert len(set(model.values())) == 4
    assert set(made.models) == set(model.values())


@pytest.mark.parametrize(("names", "ratio"), [(["P10", "P1"], 0.10), (["P1"], 0.01)])
def test_the_shared_fit_holds_the_largest_coreset_that_is_run(names, ratio):
    (model,) = config(run__experiments=names).models.values()
    assert model.parameters["coreset_ratio"] == ratio
    share = methods.method_class("patchcore").scored_share(
        {"coreset_ratio": 0.01}, model.parameters
    )
    assert share == pytest.approx(0.01 / ratio)


def test_an_experiment_may_have_seeds_of_its_own():
    made = config(experiments__P1={**BASE["experiments"]["P1"], "seeds": [3, 5]})
    assert {name: each.seeds for name, each in made.experiments.items()} == {
        "P10": (0,),
        "P1": (3, 5),
        "M": (0,),
    }
    model = made.experiments["P1"].model
    assert made.models[model].seeds == (0, 3, 5)  # shared with P10
    own = {**BASE["experiments"]["M"], "seeds": [7]}
    jobs = category_jobs(config(run__datasets=["drawn"], experiments__M=own))
    assert [job for job in jobs if "/M/" in job] == [
        "score/drawn/wood/M/seed7",
        "evaluate/drawn/wood/M/seed7",
    ]


def test_editing_one_experiment_leaves_the_others_alone():
    before = config().experiments
    changed = copy.deepcopy(BASE["experiments"])
    changed["M"]["dimensions"] = 10
    after = config(experiments=changed).experiments
    assert after["M"].model != before["M"].model
    assert after["P10"] == before["P10"]


def test_defaults_of_the_method_are_filled_in():
    assert config().experiments["M"].parameters["epsilon"] == 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run__datasets": ["x"]}, "run.datasets: 'x' is unknown; datasets known here: d, drawn"),
        ({"run__experiments": ["x"]}, "run.experiments: 'x' is unknown; experiments known here"),
        (
            {"experiments__M": {"method": "padim", "extractor": "q"}},
            "experiments.M.extractor: 'q' is unknown; extractors known here: r",
        ),
        (
            {"experiments__M": {"method": "padin", "extractor": "r"}},
            "experiments.M.method 'padin' is unknown; choose one of spade, padim, patchcore",
        ),
        (
            {"experiments__M": {"method": "padim", "extractor": "r", "dimension": 5}},
            "experiments.M.dimension: unknown parameter of padim; it has layers, dimensions",
        ),
        (
            {"experiments__M": {"method": "padim", "extractor": "r", "dimensions": 0}},
            "experiments.M.dimensions: must be a whole number of at least 1, got 0",
        ),
        (
            {"experiments__M": {"method": "padim", "extractor": "r", "layers": ["layer3"]}},
            "experiments.M.layers: 'layer3' is unknown; layers of r known here: layer1, layer2",
        ),
        (
            {"experiments__M": {"method": "padim", "extractor": "r", "published": "Padim"}},
            "experiments.M.published: 'Padim' is unknown; published results known here: SPADE, ",
        ),
        (
            {"datasets__d": {"path": "somewhere", "published": "mvtec"}},
            "datasets.d.published: 'mvtec' is unknown; data sets known here: mvtec_ad",
        ),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(changes, message):
    with pytest.raises(ConfigError) as error:
        config(**changes)
    assert message in str(error.value)


def test_crop_larger_than_resize():
    with pytest.raises(ConfigError, match="extractors.r.crop: 300 is larger than resize, 256"):
        config(extractors__r=BASE["extractors"]["r"] | {"crop": 300})


def test_weights_that_are_missing(tmp_path):
    def extractor(weights):
        return config(extractors__r=BASE["extractors"]["r"] | {"weights": weights}).extractors["r"]

    with pytest.raises(ConfigError, match="extractors.r.weights: weights '/no/such.pth': there is"):
        extractor("/no/such.pth").weights_file(tmp_path)
    downloaded = extractor(None).weights_file(tmp_path)
    assert downloaded == tmp_path / "weights/resnet18.tv_in1k.safetensors"
    assert extractor("random").weights_file(tmp_path) is None


def test_datasets_from_folders(category):
    made = dataset({"path": str(category.parent)})
    assert made.categories == ["widget"]
    assert made.category_folder("widget") == category
    with pytest.raises(ConfigError, match="'gadget' is unknown; categories of .* here: widget"):
        _ = dataset({"path": str(category.parent), "categories": ["gadget"]}).categories
    with pytest.raises(DataError, match="data folder not found"):
        _ = dataset({"path": "somewhere"}).categories


def test_a_public_data_set_is_used_in_place_if_all_of_it_is_there(tmp_path):
    def made(*mirrors, categories=("bottle", "cable"), source="mvtec_ad"):
        return dataset({"source": source, "categories": list(categories), "mirrors": list(mirrors)})

    (tmp_path / "bottle/train/good").mkdir(parents=True)
    here = str(tmp_path)
    for absent in (
        made(here),
        made("http://h/x.zip", here, categories=["bottle"]),
        made(here, categories=["bottle"], source="btad"),  # another layout
    ):
        assert absent.used_in_place is None
        assert absent.category_folder("bottle") == Path("results/data/p/bottle")
    there = made(here, categories=["bottle"])
    assert there.request is None
    assert there.category_folder("bottle") == tmp_path / "bottle"
    (tmp_path / "cable/train/good").mkdir(parents=True)
    assert made(here).used_in_place == tmp_path
    # A configured path that does not exist is an error, not a reason to download.
    with pytest.raises(DataError, match="typo: data folder not found"):
        _ = dataset({"path": str(tmp_path / "typo"), "source": "mvtec_ad"}).categories


def test_datasets_from_sources():
    made = config(run__datasets=["drawn"]).datasets["drawn"]
    assert made.categories == ["wood"]
    assert str(made.category_folder("wood")) == "results/data/drawn/wood"
    assert made.request["options"]["train"] == 60
    with pytest.raises(ConfigError, match="datasets.p.options.trian: unknown; drawn has train"):
        _ = dataset({"source": "drawn", "options": {"trian": 3}}).request
    with pytest.raises(ConfigError, match="datasets.p.source: 'net' is unknown; sources are"):
        dataset({"source": "net"})
    with pytest.raises(ConfigError, match=r"datasets.p.mirrors: only for .*: mvtec_ad, visa"):
        dataset({"source": "drawn", "mirrors": ["/data"]})


def standard(backbone="wide_resnet50_2.tv_in1k", weights=None, dataset="mvtec_ad") -> Config:
    """PaDiM as published, on another backbone or data set."""
    extractor = BASE["extractors"]["r"] | {"backbone": backbone, "weights": weights}
    return config(
        run__experiments=["M"],
        extractors={"r": extractor},
        experiments__M=BASE["experiments"]["M"] | {"published": "PaDiM"},
        datasets__d={"path": "somewhere", "published": dataset},
    )


def test_published_results_touch_no_model_and_no_parameter():
    plain = config(run__experiments=["M"])
    named = standard()
    assert named.experiments["M"].parameters == plain.experiments["M"].parameters
    assert named.models == plain.models
    shown = layout(named)
    assert layout(plain)["published"] == layout(plain)["compared"] == {}
    assert shown["published"] == {"M": "PaDiM"}
    assert shown["compared"] == {"d": "mvtec_ad"}
    assert shown["groups"]["d"]["textures"] == ["carpet", "grid", "leather", "tile", "wood"]
    assert shown["notes"] == {}


def test_another_backbone_is_not_compared_with_the_paper():
    """An override file inherits the standard experiment's `published`."""
    small = layout(standard("resnet18.tv_in1k"))
    assert small["published"] == {}
    assert small["notes"]["M"] == (
        "not compared with the published PaDiM, which is with wide_resnet50_2, not resnet18"
    )
    random = layout(standard(weights="random"))
    assert random["published"] == {}
    assert random["notes"]["M"].startswith("random backbone weights, not pretrained; not compared")
    assert layout(standard("resnet18.tv_in1k", dataset=None))["notes"] == {}


def test_groups_and_published_data_of_a_data_set():
    own = dataset({"path": "somewhere", "groups": {"soft": ["a", "b"]}})
    assert own.groups == {"soft": ["a", "b"]}
    public = dataset({"source": "mvtec_ad"})
    assert public.published == "mvtec_ad"
    assert len(public.groups["objects"]) == 10
    plain = dataset({"path": "somewhere"})
    assert plain.groups == {}
    assert plain.published is None


def test_random_weights_are_noted():
    assert experiment_notes(config())["M"] == "random backbone weights, not pretrained"


def test_what_a_store_must_have_been_made_with():
    extractor = config().extractors["r"].settings
    assert extractor["embedding"] == "layer2"
    expected = made_with(extractor, "ab")
    assert expected["weights_sha256"] == "ab"
    assert expected["layers"] == ["layer1", "layer2"]
    missing = extractor | {"weights": "/no/such/file.pth"}
    strict, lenient = (expected_store(missing, tf32=tf32) for tf32 in (False, True))
    assert strict["weights_sha256"] is None
    assert strict["weights"] == "/no/such/file.pth"
    # The store decides for features of a CPU, which has no TF32.
    assert (strict["tf32"], lenient["tf32"]) == (False, True)


def test_the_schema_leaves_parameters_to_the_constructors():
    """Names, defaults and allowed values of parameters are stated once."""
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    experiment = schema["$defs"]["experiment"]
    assert "additionalProperties" not in experiment
    for name in methods.METHODS:
        assert not set(experiment["properties"]) & set(methods.create(name, {}).parameters)


RUN = {"datasets": ["d"], "experiments": ["e"]}


def test_paths_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "~/photos")
    found = expand_paths(
        {
            "results": "~/out",
            "downloads": "$HOME/x$$y",
            "cache": "./~cache",
            "threads": 2,
            "readme": {"file": "${HOME}/a.md", "block": "$HOME"},
            "datasets": {
                "d": {"path": "$DATA", "list": "${DATA}.csv", "categories": ["~", "$x"]},
                "e": {"mirrors": ["~/m", "https://x/~a/$b", {"from": "$HOME/n", "sha256": "0"}]},
            },
            "extractors": {"r": {"weights": "~/w.pth", "backbone": "$b"}},
        }
    )
    assert found == {
        "results": "/home/me/out",
        "downloads": "/home/me/x$y",
        "cache": "./~cache",
        "threads": 2,
        "readme": {"file": "/home/me/a.md", "block": "$HOME"},
        "datasets": {
            "d": {
                "path": "/home/me/photos",
                "list": "/home/me/photos.csv",
                "categories": ["~", "$x"],
            },
            "e": {
                "mirrors": [
                    "/home/me/m",
                    "https://x/~a/$b",
                    {"from": "/home/me/n", "sha256": "0"},
                ]
            },
        },
        "extractors": {"r": {"weights": "/home/me/w.pth", "backbone": "$b"}},
    }


@pytest.mark.parametrize("path", ["a$b", "~x/y", "${a}", "$$", "~"])
def test_a_path_of_the_command_line_is_used_as_it_is(path):
    given = Path(path)
    assert Path(expand_paths({"results": literal_path(given)})["results"]) == given


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$NOT_SET/a", "'$NOT_SET/a' uses the environment variable NOT_SET, which is not set"),
        ("${EMPTY}/a", "uses the environment variable EMPTY, which is not set or empty"),
        ("a$/b", "'a$/b' has a $ that begins no $NAME or ${NAME}: write $$ for a dollar sign"),
        ("${HOME", "has a $ that begins no $NAME"),
        ("~no-such-user/a", "begins with ~, but there is no such user"),
    ],
)
def test_paths_that_cannot_be_expanded_are_errors(monkeypatch, path, message):
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        expand_paths({"datasets": {"d": {"path": path}}})
    assert str(error.value).startswith("datasets.d.path: ")


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("categories: [010]", "datasets.d.categories.0: must be text, got 8"),
        ("categories: [a, no]", "datasets.d.categories.1: must be text, got false"),
        ("categories: [1_000, a]", "datasets.d.categories.0: must be text, got 1000"),
        ("categories: [12:30]", "datasets.d.categories.0: must be text, got 750"),
        ("categories: [2024-01-31]", "datasets.d.categories.0: must be text, got 2024-01-31"),
        ("categories: [null]", "datasets.d.categories.0: must be text, got null"),
        ("categories: [1.50]", "datasets.d.categories.0: must be text, got 1.5"),
        ("good: off", "datasets.d.good: must be text or a list, got false"),
        ("good: [OK, 007]", "datasets.d.good.1: must be text, got 7"),
        ("train: 01", "datasets.d.train: must be text, got 1"),
        ("groups: {a: [on]}", "datasets.d.groups.a.0: must be text, got true"),
        ("groups: {010: [a]}", "datasets.d.groups: must be text, got 8"),
    ],
)
def test_names_that_yaml_reads_as_something_else(text, got):
    names = yaml.safe_load(text)
    with pytest.raises(ConfigError, match=re.escape(got)) as error:
        check_schema({"run": RUN, "datasets": {"d": {"path": "p"} | names}})
    assert "write this name in quotes" in str(error.value)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("run: {datasets: [010], experiments: [e]}", "run.datasets.0"),
        ("run: {datasets: [d], experiments: [yes]}", "run.experiments.0"),
        ("datasets: {010: {path: p}}", "datasets"),
        ("experiments: {no: {method: padim, extractor: r}}", "experiments"),
        ("experiments: {e: {method: padim, extractor: 18}}", "experiments.e.extractor"),
        ("experiments: {e: {method: padim, extractor: r, 1: 2}}", "experiments.e"),
        ("extractors: {r: {backbone: b, layers: [1]}}", "extractors.r.layers.0"),
        ("results: 2024", "results"),
    ],
)
def test_names_of_every_section_that_yaml_reads_as_something_else(section, key):
    with pytest.raises(ConfigError, match=rf"^{key}: must be text, got .* in quotes$"):
        check_schema({"run": RUN} | yaml.safe_load(section))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "run: missing"),
        ({"run": {"datasets": ["d"]}}, "run.experiments: missing"),
        ({"run": {"datasets": [], "experiments": ["e"]}}, "run.datasets: [] should be non-empty"),
        ({"threads": 0}, "threads: 0 is less than the minimum of 1"),
        ({"threads": "many"}, "threads: must be a whole number of at least 1, got 'many'"),
        ({"device": "gpu"}, "device: 'gpu' is not allowed; choose one of auto, cpu, cuda"),
        ({"devices": "cpu"}, "devices: unknown key (did you mean device?); allowed are results,"),
        (
            {"extractors": {"r": {"backbone": "b", "layers": ["l"], "cropp": 1}}},
            "extractors.r.cropp: unknown key (did you mean crop?); allowed are backbone, weights",
        ),
        (
            {"extractors": {"r": {"backbone": "b", "layers": ["l"], "resize": "x"}}},
            "extractors.r.resize: must be a whole number of at least 8 or a list of two whole",
        ),
        ({"datasets": {"d": {}}}, "datasets.d: needs path or source"),
        ({"datasets": {"a/b": {"path": "x"}}}, "datasets: 'a/b' has a /"),
    ],
)
def test_schema_errors_name_the_key_and_what_is_allowed(config, message):
    complete = {"run": {"datasets": ["d"], "experiments": ["e"]}} if config else {}
    with pytest.raises(ConfigError) as error:
        check_schema(complete | config)
    assert message in str(error.value)


def bomb(line: str) -> str:
    """Twelve lines that, written out, are ten to the power of twelve values."""
    lines = ["a0: &a0 {x: 1}"]
    return "\n".join([*lines, *(line.format(i=i, last=i - 1) for i in range(1, 12))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb("a{i}: &a{i} [" + ", ".join(["*a{last}"] * 10) + "]"), "more than 100000 values"),
        (bomb("a{i}: &a{i} {{<<: [" + ", ".join(["*a{last}"] * 10) + "]}}"), "more than 100000"),
        ("a: &a [*a]", "more than 100000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: 2001-99-99", "not a YAML configuration"),
        ("? [1, 2]\n: 3", "not a YAML configuration"),
        ("a: !!python/object/apply:os.getcwd []", "not a YAML configuration"),
        ("5", "it holds no keys, but 5"),
        ("a: [1", "not a YAML configuration"),
        (b"a: \xff\xfe", "not a YAML configuration"),
    ],
)
def test_hostile_configurations_are_refused(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{message}"):
        read_yaml(path)


def test_aliases_and_merge_keys_may_be_used(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("base: &base {x: 1}\nmine: {<<: *base, y: [2]}\nsame: *base\n")
    expected = {"base": {"x": 1}, "mine": {"x": 1, "y": [2]}, "same": {"x": 1}}
    assert read_yaml(path) == expected
    path.write_text("")
    assert read_yaml(path) == {}
