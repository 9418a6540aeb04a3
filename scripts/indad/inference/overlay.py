"""Draw anomaly maps over their images, at the images' own size."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy import ndimage

from indad.data.images import Geometry, to_rgb
from indad.inference.result import above_threshold, strips

#: Opacity of the map where it is normal and where it is highest, low enough to show the defect.
COVER = (0.25, 0.6)
#: Brightness of the area outside the crop.
UNSEEN = 0.45
#: Colour of the outline of a region above the threshold, and its width as a share of the image.
LINE = (0, 229, 255)
LINE_WIDTH = 1 / 180


def overlay(
    image: Image.Image,
    values: np.ndarray,
    geometry: Geometry,
    scale: tuple[float, float],
    threshold: float | None,
) -> Image.Image:
    """Blend an anomaly map into its image and outline the regions above the threshold.

    Args:
        image: any mode and size, upright.
        values: the map ``(h, w)`` at the model's input size.
        geometry: the model's resize and crop.
        scale: values of the darkest and the brightest colour, the same for all images of a model.
        threshold: of a pixel; None draws no outline.

    Returns:
        RGB, of the image's size. The area outside the crop is darkened.
    """
    drawn = to_rgb(image)
    top, left, bottom, right = geometry.window(drawn.height, drawn.width)
    sides = [(0, 0, drawn.width, top), (0, bottom, *drawn.size), (0, top, left, bottom)]
    for side in (*sides, (right, top, drawn.width, bottom)):
        if side[0] < side[2] and side[1] < side[3]:
            dark = drawn.crop(side).point([round(UNSEEN * each) for each in range(256)] * 3)
            drawn.paste(dark, side)
    low, high = scale
    level = np.clip(255 * (values - low) / max(high - low, 1e-12), 0, 255)
    levels = Image.fromarray(np.rint(level).astype(np.uint8))
    covers = [round(255 * (COVER[0] + (COVER[1] - COVER[0]) * each / 255)) for each in range(256)]
    colours = mpl.colormaps["inferno"](np.arange(256), bytes=True)[:, :3].tobytes()
    for rows, heat in strips(levels, bottom - top, right - left):
        inside = (left, top + rows.start, right, top + rows.stop)
        cover = heat.point(covers)
        heat.putpalette(colours)
        drawn.paste(heat.convert("RGB"), inside, cover)
    if threshold is not None and values.max() > threshold:
        above = above_threshold(values, threshold, bottom - top, right - left)
        width = max(1, round(min(drawn.size) * LINE_WIDTH))
        inside = ndimage.minimum_filter(above, 2 * width + 1, mode="constant", cval=False)
        drawn.paste(LINE, (left, top), Image.fromarray(above & ~inside))
    return drawn
