"""Exported ONNX files: the scores and verdicts of the model they were made from, or no file."""

from __future__ import annotations

import io
import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from conftest import make_features
from drawn_model import RESNET, VIT, make_model, save_photos
from indad import methods
from indad.cli import export as command
from indad.cli.main import parse_command
from indad.core import checksum, provenance
from indad.core.errors import ConfigError, ExportError
from indad.data import manifest
from indad.data.images import Geometry, prepare
from indad.evaluation.calibration import Threshold
from indad.inference import export, graph
from indad.inference.model import Model
from indad.methods import PatchCore


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return save_photos(tmp_path / "images")


# -- the parts of the graph, in torch -------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("padim", {"dimensions": 5}),
        ("padim", {"dimensions": 6, "layers": ["b"]}),
        ("padim", {"dimensions": 12, "shots": 3}),
        ("patchcore", {"coreset_ratio": 1, "embedding": "concat"}),
        ("patchcore", {"coreset_ratio": 0.1, "neighbours": 4}),
        ("patchcore", {"coreset_ratio": 0.002, "neighbours": 4, "squared": False}),
        ("patchcore", {"distance": "cosine", "image_score": "top7%", "pooling": 1}),
    ],
)
def test_methods_in_the_operators_of_onnx_give_the_same_scores(
    monkeypatch, rng, method, parameters
):
    monkeypatch.setattr(graph, "BANK_BLOCK", 100)  # several blocks
    train, test = make_features(rng, 12), make_features(rng, 5)
    detector = methods.create(method, parameters).fit(train)
    expected = detector.score(test)
    layers = {name: torch.from_numpy(test.maps(name, slice(0, 5))) for name in detector.layers_}
    with torch.no_grad():
        score, patch_map = graph.patch_scores(detector)(layers)
        maps = graph.anomaly_maps([patch_map], (32, 32)).numpy()
    np.testing.assert_allclose(maps, expected.maps, rtol=1e-5, atol=1e-5 * expected.maps.max())
    score = maps.max(axis=(1, 2)) if score is None else score
    np.testing.assert_allclose(score, expected.image, rtol=1e-5)


def test_a_training_patch_has_the_distance_zero(rng):
    """Products alone would give the square root of their rounding error."""
    train = make_features(rng, 3)
    detector = PatchCore(coreset_ratio=1, embedding="concat").fit(train)
    layers = {name: torch.from_numpy(train.maps(name, slice(0, 3))) for name in train.layers}
    with torch.no_grad():
        score, patch_map = graph.patch_scores(detector)(layers)
    assert score.max() < 1e-6
    assert patch_map.max() < 1e-6


@pytest.mark.parametrize("resize", [64, (40, 70)])
@pytest.mark.parametrize("crop", [None, (39, 50)])
def test_images_are_resized_as_pillow_does_in_every_pixel(rng, resize, crop):
    geometry = Geometry(resize, crop)
    for height, width in [*rng.integers(39, 300, (40, 2)).tolist(), [192, 192], [64, 64], [80, 40]]:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        try:
            expected = prepare(Image.fromarray(pixels), geometry)
        except ValueError:
            expected = None
        size = crop or geometry.resized(90, 100)
        found, usable = graph.Resize(geometry, size)(torch.from_numpy(pixels[None]))
        assert usable == (expected is not None and expected.shape[:2] == size)
        if usable:
            np.testing.assert_array_equal(found[0].numpy(), expected)


def test_thresholds_are_rounded_without_changing_a_verdict():
    for exact in (0.1, 1 / 3, 1e10 / 3, 2.0, float(np.nextafter(np.float32(5), np.float32(6)))):
        (limit, peak) = graph.limits(Threshold(exact, -exact, ""))
        for value in (
            np.float32(exact),
            *np.nextafter(np.float32(exact), np.float32([-1e9, 1e11])),
        ):
            assert (value > np.float32(limit)) == (float(value) > exact)
            assert (-value > np.float32(peak)) == (-float(value) > -exact)
    assert graph.limits(None) == []
    assert graph.limits(Threshold(2.0, None, "")) == [2.0]


# -- files ----------------------------------------------------------------------------------------


TILED = RESNET | {
    "tiles": {"size": 64, "overlap": 32},
    "crop": [64, 96],
    "resize": 100,
    "dtype": "float16",
}


def check_in_openvino(model: Model, path: Path, images: list[Path]) -> None:
    """Check that OpenVINO computes the scores of the model."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    for image in images:
        pixels, expected = np.asarray(Image.open(image)), model.predict(image)
        found = compiled({"images": pixels[None]})
        np.testing.assert_allclose(found["score"], [expected.score], rtol=1e-4)
        np.testing.assert_allclose(found["map"][0], expected.map, atol=1e-4 * expected.map.max())
        assert found["anomalous"].tolist() == [expected.anomalous]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extractor", "method", "parameters"),
    [
        (RESNET, "padim", {"dimensions": 5}),
        (TILED, "patchcore", {"coreset_ratio": 0.2, "neighbours": 3}),
        (
            VIT | {"dtype": "float32"},
            "patchcore",
            {"distance": "cosine", "image_score": "top2%", "coreset_ratio": 1},
        ),
    ],
)
def test_an_exported_file_has_the_scores_of_its_model(
    tmp_path, images, extractor, method, parameters
):
    model, path = make_model(tmp_path, extractor, method, **parameters), tmp_path / "model.onnx"
    images, tall = (images[:4], images[4]) if extractor is RESNET else (images, None)
    parity = export.export(model, path, images)
    assert parity.images == len(images)
    assert parity.score < export.TOLERANCE
    assert parity.map < export.TOLERANCE

    session = export.open_session(path)
    batch = np.stack([np.asarray(Image.open(image)) for image in images[:2]])
    score, values, anomalous, mask = session.run(None, {"images": batch})
    expected = model.predict(batch)
    np.testing.assert_allclose(score, [each.score for each in expected], rtol=1e-4)
    assert anomalous.tolist() == [each.anomalous for each in expected]
    np.testing.assert_array_equal(mask, values > model.threshold.peak)
    assert mask.shape == (2, *model.input_size)
    if tall is not None:  # refused by the model: no score, and not called good
        pixels = np.asarray(Image.open(tall))[None]
        score, values, anomalous, mask = session.run(None, {"images": pixels})
        assert np.isnan(score).all()
        assert np.isnan(values).all()
        assert anomalous.all()
        assert mask.all()

    import onnx

    # OpenVINO and TensorRT do not compute antialiased resizes.
    nodes = onnx.load(path).graph.node
    assert not any(each.i for node in nodes for each in node.attribute if each.name == "antialias")
    found = session.get_modelmeta().custom_metadata_map
    assert json.loads(found["train_sha256"]) == ["0" * 64]
    assert json.loads(found["threshold"])["score"] == model.threshold.score
    assert json.loads(found["geometry"])["resize"] == extractor["resize"]
    assert found["weights_sha256"] == model.detector.made_with_["weights_sha256"]
    if find_spec("openvino") and extractor is not TILED:  # its features are of half precision
        check_in_openvino(model, path, images[:4])


class Answers:
    """A session that gives the scores of a model times a factor, and maybe other verdicts."""

    def __init__(self, model: Model, factor: float = 1, flip: bool = False) -> None:
        self.model, self.factor, self.flip = model, factor, flip

    def get_outputs(self) -> list[SimpleNamespace]:
        names = ["score", "map", *(["anomalous"] if self.model.threshold else [])]
        return [SimpleNamespace(name=name) for name in names]

    def run(self, _, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        (result,) = self.model.predict(given["images"])
        found = [np.array([result.score * self.factor]), result.map[None]]
        return [
            *found,
            *([np.array([result.anomalous != self.flip])] if self.model.threshold else []),
        ]


@pytest.fixture
def answer(monkeypatch):
    """Replace the file of an export by given `Answers`."""

    def replace(answers: Answers) -> None:
        monkeypatch.setattr(export, "_write", lambda model, path: path.write_bytes(b"ONNX"))
        monkeypatch.setattr(export, "open_session", lambda path: answers)

    return replace


def test_a_file_with_other_scores_or_verdicts_is_not_written(tmp_path, images, answer):
    model, path = make_model(tmp_path, RESNET, "padim", dimensions=5), tmp_path / "out/model.onnx"
    answer(Answers(model, 1 + 5e-5))
    parity = export.export(model, path, images[:3])
    assert (parity.images, round(parity.score, 6), parity.map) == (3, 5e-5, 0)
    assert path.read_bytes() == b"ONNX"
    for wrong in (Answers(model, 1 + 2e-4), Answers(model, np.nan), Answers(model, flip=True)):
        answer(wrong)
        path.write_bytes(b"before")
        with pytest.raises(
            ExportError, match=r"0\.png: the exported file gives the score .*written"
        ):
            export.export(model, path, images[:3])
        assert path.read_bytes() == b"before"
        assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]


def run(*arguments: object) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    parsed = parse_command("export", [str(each) for each in arguments])
    return command.run(parsed, console), console.file.getvalue()


def test_the_command(tmp_path, images, answer):
    model, path = make_model(tmp_path, RESNET, "padim", dimensions=5), tmp_path / "model.onnx"
    given = (model.path, path, "--images", *images[:4])
    model.threshold = None
    answer(Answers(model))
    with pytest.raises(ConfigError, match="no threshold is known"):
        run(*given)
    with pytest.raises(ConfigError, match="not in the results folder of a finished run"):
        run(model.path, path, "--threshold", "none")
    with pytest.raises(ExportError, match=r"\(anomalous: None\), the model .*anomalous: False\)"):
        run(*given, "--threshold", "1e9")
    code, text = run(*given, "--threshold", "none")
    assert code == 0
    assert "compared   4 images: the same verdicts, scores differ by at most 0 (relative)" in text
    assert f"wrote      {path}, 4 bytes" in text


def test_the_images_of_a_run_are_its_test_images(tmp_path, category):
    model = tmp_path / "results/models/mine/widget/padim-1/seed0.safetensors"
    table = tmp_path / "results/manifests/mine/widget.csv"
    manifest.write(manifest.build(category), table)
    record = {"version": provenance.VERSION, "data": {"manifests/mine/widget.csv": str(category)}}
    checksum.write_json(tmp_path / "results/provenance.json", record)
    found = export.images_of_run(model)
    assert len(found) == 5
    assert {each.parent.parent for each in found} == {category / "test"}
    found[2].unlink()
    with pytest.raises(ConfigError, match=f"{found[2].name}: the run's test images are no longer"):
        export.images_of_run(model)


def test_an_ensemble_and_images_of_several_sizes_are_refused(tmp_path, images):
    model, path = make_model(tmp_path, RESNET, "padim", dimensions=5), tmp_path / "model.onnx"
    model.ensemble = methods.create_ensemble({"members": ["a", "b"]})
    with pytest.raises(ConfigError, match="an ensemble cannot be exported; export one of its"):
        export.export(model, path, images[:1])
    model.ensemble, model.input_size = None, ()
    with pytest.raises(ConfigError, match="differ in size after the resize.*set 'crop' of the"):
        export.export(model, path, images[:1])
    assert not path.exists()


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch, rng, images):
    spade = methods.create("spade", {"k_image": 1, "k_pixel": 1}).fit(make_features(rng, 3))
    with pytest.raises(ConfigError, match="spade cannot be exported: it compares with the stored"):
        graph.patch_scores(spade)
    model, path = make_model(tmp_path, RESNET, "padim", dimensions=5), tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="no images to compare scores on"):
        export.export(model, path, [])
    monkeypatch.setattr(export, "MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"0\.0 GB, more than one ONNX file can hold"):
        export.export(model, path, images[:1])
    model.detector.made_with_["precision"] = "bfloat16"
    with pytest.raises(ConfigError, match="computes in bfloat16; only float32 can be exported"):
        export.export(model, path, images[:1])
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"needs onnx, onnxscript, onnxruntime.*'indad\[export\]'"
    ):
        export.export(model, path, images[:1])
    assert not path.exists()
