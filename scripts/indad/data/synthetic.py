"""Synthetic textures with exact defect masks, in MVTec AD layout.

Four materials, each with its own kinds of defects, from obvious to subtle. They show that a
pipeline works; they are not a benchmark. Each image has its own random generator, seeded by the
data set's seed, the material, the folder and the number, so that drawing more images never changes
the earlier ones.

A defect is a layer over a good image: an opacity alpha in [0, 1] and a colour. Its mask is where
alpha exceeds ``VISIBLE``. Elsewhere alpha is set to zero, so that pixels outside the mask equal
those of the good image.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy  # loads its parts when they are used, not when a workflow is planned
from PIL import Image

from indad.core.progress import Progress, ignore

Random = np.random.Generator
#: Opacity above which a defect is drawn and belongs to the mask.
VISIBLE = 0.1


def _noise(rng: Random, size: int, scale: float | tuple[float, float]) -> np.ndarray:
    """Smooth periodic noise of zero mean and unit deviation, ``(size, size)``; scale in pixels."""
    # A Gaussian filter in the frequency domain: its cost does not depend on the scale.
    rows, columns = np.broadcast_to(scale, 2)
    fall_y = np.exp(-2 * (np.pi * rows * np.fft.fftfreq(size)) ** 2)
    fall_x = np.exp(-2 * (np.pi * columns * np.fft.rfftfreq(size)) ** 2)
    spectrum = scipy.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field = scipy.fft.irfft2(spectrum * np.outer(fall_y, fall_x).astype(np.float32), s=(size, size))
    return (field - field.mean()) / (field.std() + 1e-9)


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates in [0, 1)."""
    axis = np.arange(size, dtype=np.float32) / size
    return axis[:, None], axis[None, :]


def _rotated(rng: Random, size: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates rotated by up to ``degrees`` and shifted, both at random."""
    y, x = _grid(size)
    angle = np.deg2rad(rng.uniform(-degrees, degrees))
    along = np.cos(angle) * x + np.sin(angle) * y + rng.uniform()
    across = -np.sin(angle) * x + np.cos(angle) * y + rng.uniform()
    return along, across


def _colour(values: np.ndarray, dark: tuple[int, ...], light: tuple[int, ...]) -> np.ndarray:
    """Blend two colours by ``values`` in [0, 1]: float32 ``(H, W, 3)``."""
    values = np.clip(values, 0, 1)[..., None]
    low, high = (np.array(c, np.float32) for c in (dark, light))
    return low + values * (high - low)


def _light(rng: Random, size: int, strength: float) -> np.ndarray:
    """Illumination: a linear gradient across the image with mean 1."""
    y, x = _grid(size)
    slope = rng.uniform(-strength, strength, 2)
    return (1 + slope[0] * (y - 0.5) + slope[1] * (x - 0.5))[..., None]


# -- materials ----------------------------------------------------------------------------------


def wood(rng: Random, size: int) -> np.ndarray:
    """Boards sawn along the grain: rings distorted by smooth noise, and fine pores."""
    along, across = _rotated(rng, size, 4)
    bend = 0.035 * _noise(rng, size, (size / 10, size / 4))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(7, 10) * (across + bend) + 0.3 * along))
    pores = _noise(rng, size, (0.6, 9))
    tone = 0.55 * rings**1.5 + 0.10 * pores + 0.06 * _noise(rng, size, (2, 40)) + 0.2
    warmth = rng.uniform(-8, 8)
    image = _colour(tone, (112, 70, 38), (205, 158, 104)) + np.array([warmth, warmth / 2, 0])
    return image * _light(rng, size, 0.12)


def fabric(rng: Random, size: int) -> np.ndarray:
    """A plain weave: warp and weft threads over and under, slightly wavy."""
    along, across = _rotated(rng, size, 2)
    count = 26
    wave = 0.004 * _noise(rng, size, size / 12)
    u, v = count * (along + wave), count * (across - wave)
    warp, weft = np.sin(np.pi * u) ** 2, np.sin(np.pi * v) ** 2
    over = (np.floor(u) + np.floor(v)) % 2
    height = np.where(over > 0, warp * (0.55 + 0.45 * weft), weft * (0.55 + 0.45 * warp))
    tone = 0.25 + 0.6 * height + 0.05 * _noise(rng, size, 0.7) + 0.04 * _noise(rng, size, 20)
    shade = rng.uniform(-6, 6)
    image = _colour(tone, (38, 52, 82), (142, 164, 196)) + shade
    return image * _light(rng, size, 0.15)


def metal(rng: Random, size: int) -> np.ndarray:
    """Brushed steel: fine streaks along one direction and a broad reflection."""
    y, x = _grid(size)
    streaks = 0.5 * _noise(rng, size, (0.5, size / 5)) + 0.25 * _noise(rng, size, (1.2, size / 3))
    centre, width = rng.uniform(0.25, 0.75), rng.uniform(0.3, 0.45)
    glare = np.exp(-(((y - centre) / width) ** 2)) * (1 + 0.1 * np.sin(3 * x + rng.uniform(0, 6)))
    tone = 0.33 + 0.33 * glare + 0.09 * streaks + 0.02 * _noise(rng, size, 0.5)
    return _colour(tone, (70, 74, 80), (226, 230, 235)) + rng.uniform(-5, 5)


def tile(rng: Random, size: int) -> np.ndarray:
    """Terrazzo: chips of several stones on a pale ground."""
    chips = _noise(rng, size, 3.2)
    other, fine = _noise(rng, size, 2.2), _noise(rng, size, 1.1)
    base = 0.75 + 0.03 * _noise(rng, size, 0.6) + 0.05 * _noise(rng, size, 12)
    image = _colour(base, (120, 116, 110), (232, 228, 220))
    for field, limit, colour in (
        (chips, 1.15, (92, 84, 80)),
        (other, 1.35, (176, 122, 92)),
        (-chips, 1.35, (140, 148, 142)),
        (fine, 1.9, (60, 58, 60)),
    ):
        alpha = np.clip((field - limit) * 6, 0, 1)[..., None]
        image = image * (1 - alpha) + np.array(colour, np.float32) * alpha
    return (image + rng.uniform(-6, 6)) * _light(rng, size, 0.08)


# -- defects: each returns opacity (H, W) in [0, 1] and a colour (H, W, 3) or (3,) --------------

Layer = tuple[np.ndarray, np.ndarray]


def _blob(rng: Random, size: int, radii: tuple[float, float], ragged: float) -> np.ndarray:
    """An irregular spot, ``radii`` in sides of the image: distance in pixels, positive inside."""
    radius = rng.uniform(*radii) * size
    y, x = _grid(size)
    cy, cx = rng.uniform(0.2, 0.8, 2)
    stretch, angle = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
    dy, dx = size * (y - cy), size * (x - cx)
    a, b = np.cos(angle) * dx + np.sin(angle) * dy, -np.sin(angle) * dx + np.cos(angle) * dy
    distance = np.hypot(a * stretch, b / stretch)
    return radius * (1 + ragged * _noise(rng, size, max(2.0, radius / 2)) * 0.5) - distance


def _path(rng: Random, size: int, lengths: tuple[float, float], wander: float) -> np.ndarray:
    """A random curve, ``lengths`` in sides of the image: pixels ``(n, 2)``, half of one apart."""
    steps = int(2 * (rng.uniform(*lengths) * size))
    turn = np.cumsum(rng.normal(0, wander, steps)) + rng.uniform(0, 2 * np.pi)
    points = np.cumsum(0.5 * np.stack([np.sin(turn), np.cos(turn)], axis=1), axis=0)
    return points - points.mean(axis=0) + rng.uniform(0.3, 0.7, 2) * size


def _stroke(points: np.ndarray, size: int, width: float) -> np.ndarray:
    """Opacity of a soft line along points, ``width`` pixels wide."""
    canvas = np.zeros((size, size), np.float32)
    rows, columns = np.rint(points).astype(int).T
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    canvas[rows[inside], columns[inside]] = 1
    soft = scipy.ndimage.gaussian_filter(canvas, width / 2)
    return np.clip(soft / (soft.max() + 1e-9) * 1.6, 0, 1)


def scratch(rng: Random, image: np.ndarray) -> Layer:
    """One or two long thin lines, lighter or darker than the texture."""
    size = len(image)
    alpha = np.zeros((size, size), np.float32)
    for _ in range(rng.integers(1, 3)):
        points = _path(rng, size, (0.25, 0.6), 0.012)
        alpha = np.maximum(alpha, _stroke(points, size, rng.uniform(1.3, 2.4)))
    bright = rng.choice([-1, 1]) * rng.uniform(35, 75)
    return alpha, image + bright


def crack(rng: Random, image: np.ndarray) -> Layer:
    """A dark jagged line with branches."""
    size = len(image)
    trunk = _path(rng, size, (0.3, 0.55), 0.22)
    alpha = _stroke(trunk, size, 1.7)
    for _ in range(rng.integers(1, 4)):
        branch = _path(rng, size, (0.08, 0.2), 0.25)
        branch += trunk[rng.integers(len(trunk))] - branch[0]
        alpha = np.maximum(alpha, _stroke(branch, size, 1.3))
    return alpha, 0.35 * image


def stain(rng: Random, image: np.ndarray) -> Layer:
    """A soft discolouration with a darker rim."""
    size = len(image)
    field = _blob(rng, size, (0.06, 0.13), 0.35)
    alpha = np.clip(field / 4, 0, 1) * rng.uniform(0.45, 0.8)
    rim = np.exp(-((field - 3) ** 2) / 8)[..., None]
    tint = np.array(rng.uniform(0.55, 0.95, 3), np.float32)
    return alpha, image * tint * (1 - 0.25 * rim)


def hole(rng: Random, image: np.ndarray) -> Layer:
    """One or two dark round pits with a bright edge."""
    size = len(image)
    alpha, shade = np.zeros((size, size)), image.copy()
    for _ in range(rng.integers(1, 3)):
        field = _blob(rng, size, (0.018, 0.04), 0.15)
        alpha = np.maximum(alpha, np.clip(field / 1.5, 0, 1))
        depth = np.clip(field / 4, 0, 1)[..., None]
        shade = np.where(field[..., None] > 0, image * (0.7 - 0.5 * depth), shade)
    return alpha, shade


def contamination(rng: Random, image: np.ndarray) -> Layer:
    """A few foreign particles of one colour."""
    size = len(image)
    alpha = np.zeros((size, size))
    for _ in range(rng.integers(1, 5)):
        field = _blob(rng, size, (0.01, 0.028), 0.4)
        alpha = np.maximum(alpha, np.clip(field / 1.5, 0, 0.95))
    colours = ((196, 178, 60), (60, 108, 70), (150, 50, 44), (28, 28, 30), (236, 236, 230))
    return alpha, np.array(colours[rng.integers(len(colours))], np.float32)


def dent(rng: Random, image: np.ndarray) -> Layer:
    """A shallow dent: one flank darker, the other lighter."""
    size = len(image)
    field = _blob(rng, size, (0.05, 0.09), 0.1)
    bump = np.clip(field / (0.05 * size), 0, 1) ** 2
    slope = scipy.ndimage.gaussian_filter(bump, 2)
    flank = np.gradient(slope, axis=0) + 0.5 * np.gradient(slope, axis=1)
    shading = flank / (np.abs(flank).max() + 1e-9) * rng.uniform(45, 80)
    return np.clip(field / 4, 0, 1), image + shading[..., None]


def knot(rng: Random, image: np.ndarray) -> Layer:
    """A dark knot with its own rings."""
    size = len(image)
    field = _blob(rng, size, (0.045, 0.09), 0.2)
    rings = 0.5 + 0.15 * np.sin(field * 1.1)
    return np.clip(field / 4, 0, 1) * 0.9, image * rings[..., None] * (1.0, 0.9, 0.8)


def coloured_thread(rng: Random, image: np.ndarray) -> Layer:
    """A thread of a wrong colour along the weave."""
    size = len(image)
    length, width = rng.uniform(0.2, 0.7), size / 52
    y, x = _grid(size)
    start, at = rng.uniform(0, 1 - length), rng.uniform(0.15, 0.85)
    axis, cross = (x, y) if rng.integers(2) else (y, x)
    wobble = 0.004 * np.sin(9 * axis + rng.uniform(0, 6))
    inside = (axis >= start) & (axis < start + length)
    alpha = np.clip(1.3 - np.abs(cross - at + wobble) * size / width * 1.3, 0, 0.75) * inside
    tint = np.array(rng.uniform((120, 40, 40), (220, 130, 90)), np.float32)
    return alpha, tint * (image.mean(axis=2, keepdims=True) / 130)


def missing_thread(rng: Random, image: np.ndarray) -> Layer:
    """A line where a thread is missing and the dark ground is visible."""
    alpha, _ = coloured_thread(rng, image)
    return np.minimum(alpha * 1.3, 0.9), 0.45 * image


def distortion(rng: Random, image: np.ndarray) -> Layer:
    """A place where the pattern is displaced."""
    size = len(image)
    field = _blob(rng, size, (0.08, 0.13), 0.1)
    pull = np.clip(field / (0.06 * size), 0, 1) ** 1.5 * rng.uniform(6, 10) * size / 256
    rows, columns = np.mgrid[:size, :size].astype(float)
    direction = rng.uniform(0, 2 * np.pi)
    where = [rows + pull * np.sin(direction), columns + pull * np.cos(direction)]
    moved = [
        scipy.ndimage.map_coordinates(image[..., c], where, order=1, mode="reflect")
        for c in range(3)
    ]
    return np.clip(field / 3, 0, 1), np.stack(moved, axis=-1)


@dataclass(frozen=True)
class Material:
    """A material and its kinds of defects.

    Attributes:
        render: ``render(rng, size)`` returns float ``(H, W, 3)`` in 0..255.
        defects: by name, functions of ``(rng, image)`` that return opacity and colour.
    """

    render: Callable[[Random, int], np.ndarray]
    defects: dict[str, Callable[[Random, np.ndarray], Layer]]


MATERIALS = {
    render.__name__: Material(render, {defect.__name__: defect for defect in defects})
    for render, *defects in (
        (wood, scratch, stain, hole, knot),
        (fabric, coloured_thread, missing_thread, distortion, stain),
        (metal, scratch, dent, contamination, stain),
        (tile, crack, stain, hole, contamination),
    )
}


def _pixels(image: np.ndarray) -> np.ndarray:
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def draw_good(material: str, rng: Random, size: int = 256) -> np.ndarray:
    """Draw a good image: uint8 ``(size, size, 3)``."""
    return _pixels(MATERIALS[material].render(rng, size))


def draw_defect(
    material: str, defect: str, rng: Random, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a defective image, uint8 ``(size, size, 3)``, and its mask, bool ``(size, size)``.

    Outside the mask the image equals that of ``draw_good`` with a generator in the same state.
    """
    image = MATERIALS[material].render(rng, size)
    faintness = rng.uniform(0.4, 1) ** 1.5  # from obvious to subtle
    while True:
        alpha, colour = MATERIALS[material].defects[defect](rng, image)
        alpha = alpha * faintness
        mask = alpha > VISIBLE
        if mask.sum() >= size * size / 4000:
            break  # else most of the defect is outside the image, and another one is drawn
    alpha = np.where(mask, alpha, 0)[..., None]
    return _pixels(image * (1 - alpha) + colour * alpha), mask


def draw_category(
    folder: Path,
    material: str,
    *,
    train: int = 60,
    good: int = 20,
    per_defect: int = 10,
    size: int = 256,
    seed: int = 0,
    progress: Progress = ignore,
) -> None:
    """Draw the images and masks of a category in MVTec AD layout.

    Args:
        folder: the category folder.
        material: one of ``MATERIALS``.
        train: number of training images.
        good: number of good test images.
        per_defect: number of test images of each defect.
        size: side of the images in pixels.
        seed: seed of the data set.
        progress: called with the number of images done and in total.
    """
    jobs = [("train", "good", i) for i in range(train)]
    jobs += [("test", "good", i) for i in range(good)]
    jobs += [
        ("test", defect, i) for defect in MATERIALS[material].defects for i in range(per_defect)
    ]
    for done, (split, kind, number) in enumerate(jobs, 1):
        words = [zlib.crc32(word.encode()) for word in (material, f"{split}/{kind}")]
        rng = np.random.default_rng([seed, *words, number])
        if kind == "good":
            image = draw_good(material, rng, size)
        else:
            image, mask = draw_defect(material, kind, rng, size)
            _save(folder / "ground_truth" / kind / f"{number:03d}_mask.png", mask * np.uint8(255))
        _save(folder / split / kind / f"{number:03d}.png", image)
        progress(done, len(jobs))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=3)
