"""What to do when a GPU's memory does not hold the work: less of it at once, and say so."""

from __future__ import annotations

import logging

from indad.errors import DeviceError

logger = logging.getLogger("indad")


def smaller(size: int, what: str, least: int = 1) -> int:
    """Return half of ``size``, after a ``torch.cuda.OutOfMemoryError``.

    Called while the error is handled. Sizes change results by rounding at most.

    Args:
        size: what did not fit.
        what: names it in messages; ``{}`` stands for the size.
        least: the smallest size worth trying.

    Raises:
        DeviceError: ``size`` already is ``least``.
    """
    import torch

    if size <= least:
        raise DeviceError(
            f"the GPU's memory does not hold {what.format(size)}. Free it of other programs, or "
            "set 'device: cpu' in the configuration"
        ) from None
    half = max(least, size // 2)
    logger.warning("the GPU's memory does not hold %s; trying %d", what.format(size), half)
    torch.cuda.empty_cache()
    return half
