"""Batch norms folded into the convolutions before them: the same function in fewer passes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: Only types whose forward is known: a subclass may do anything to its weights.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def fold_batch_norms(model: nn.Module, tapped: Sequence[str], image: Tensor) -> None:
    """Fold each batch norm of ``model`` that follows a convolution into it.

    In evaluation mode a batch norm is an affine map per channel, so it can be taken into the
    weights; the output differs by float32 rounding. A convolution is followed by a batch norm when
    the tensor it gives is the one the batch norm gets.

    Args:
        model: in evaluation mode, on the CPU; changed in place.
        tapped: names of modules whose outputs are wanted: such a convolution is left alone.
        image: an input ``(B, 3, H, W)`` to see the order of the modules by.
    """
    modules = dict(model.named_modules())
    given: dict[int, tuple[str, Tensor]] = {}  # the tensor is kept, so that its id is not reused
    pairs: dict[str, str] = {}
    hooks = []
    for name, module in modules.items():
        if type(module) in _CONVOLUTIONS and name not in tapped:
            hooks.append(
                module.register_forward_hook(
                    lambda _module, _inputs, output, name=name: given.update(
                        {id(output): (name, output)}
                    )
                )
            )
        elif type(module) in _BATCH_NORMS and module.running_mean is not None:
            hooks.append(
                module.register_forward_pre_hook(
                    lambda _module, inputs, name=name: pairs.update(
                        {name: given[id(inputs[0])][0]} if id(inputs[0]) in given else {}
                    )
                )
            )
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    for norm_name, name in pairs.items():
        if list(pairs.values()).count(name) == 1:
            _fold(model, modules[name], norm_name, modules[norm_name])


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
    # The names within stay, so that a tap of the activation is still found.
    rest = OrderedDict((key, child) for key, child in norm.named_children())
    parent, _, child_name = norm_name.rpartition(".")
    setattr(model.get_submodule(parent), child_name, nn.Sequential(rest))
