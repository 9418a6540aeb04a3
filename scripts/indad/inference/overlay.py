"""Draw anomaly maps over their images, at the images' own size."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from indad.data.images import Geometry, to_rgb

#: Opacity of the map where it is normal and where it is highest, low enough to show the defect.
COVER = (0.25, 0.6)
#: Brightness of the area outside the crop.
UNSEEN = 0.45
#: Colour of the outline of a region above the threshold, and its width as a share of the image.
LINE = (0, 229, 255)
LINE_WIDTH = 1 / 180


def on_image(values: np.ndarray, geometry: Geometry, height: int, width: int) -> np.ndarray:
    """Resize an anomaly map ``(h, w)`` to the image's own size, with NaN outside the crop.

    Args:
        values: float32, at the model's input size.
        geometry: the model's resize and crop.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        float32 ``(height, width)``.
    """
    top, left, bottom, right = geometry.window(height, width)
    fine = Image.fromarray(values.astype(np.float32))
    fine = fine.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    whole = np.full((height, width), np.nan, np.float32)
    whole[top:bottom, left:right] = np.asarray(fine)
    return whole


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
    photo = np.asarray(to_rgb(image), np.float32)
    fine = on_image(values, geometry, *photo.shape[:2])
    seen = np.isfinite(fine)
    low, high = scale
    level = np.clip((np.where(seen, fine, low) - low) / max(high - low, 1e-12), 0, 1)
    colour = 255 * mpl.colormaps["inferno"](level)[..., :3].astype(np.float32)
    cover = (COVER[0] + (COVER[1] - COVER[0]) * level)[..., None]
    drawn = np.where(seen[..., None], photo * (1 - cover) + colour * cover, photo * UNSEEN)
    if threshold is not None:
        above = seen & (fine > threshold)
        lines = max(1, round(min(above.shape) * LINE_WIDTH))
        # border_value=0: the outline is closed along the image's edge.
        drawn[above & ~binary_erosion(above, iterations=lines, border_value=0)] = LINE
    return Image.fromarray(np.rint(drawn).astype(np.uint8))
