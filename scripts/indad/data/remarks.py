"""What a reader of a category's results must not miss about its data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from indad.data.decode import Pixels


def lost_defects(manifest: pd.DataFrame, pixels: Pixels) -> list[str]:
    """Name the test images whose mask the resize and crop leave empty.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
    """
    test = manifest[manifest["split"] == "test"]
    masked = (test["mask"] != "").to_numpy()
    empty = ~pixels.mask().any(axis=(1, 2)) if len(test) else np.zeros(0, bool)
    return test["image"][masked & empty].tolist()


def remarks(manifest: pd.DataFrame, pixels: Pixels) -> list[str]:
    """Return a sentence for each thing that makes the results mean less than they seem to.

    Args:
        manifest: the category's manifest.
        pixels: its decoded images.
    """
    test = manifest[manifest["split"] == "test"]
    defective = test[test["label"] == 1]
    masks = int((defective["mask"] != "").sum())
    lines = []
    if lost := lost_defects(manifest, pixels):
        lines.append(
            f"{len(lost)} of {masks} defects lie wholly outside the crop ({pixels.path.stem}): no "
            "method can find them, and their images still count as defective"
        )
    if 0 < masks < len(defective):
        lines.append(
            f"{len(defective) - masks} of {len(defective)} defective images have no mask: "
            "pixel-level figures leave them out"
        )
    if len(set(test["label"])) == 1:
        only = "defective" if len(defective) else "good"
        lines.append(f"all test images are {only}: image-level figures are not defined")
    return lines
