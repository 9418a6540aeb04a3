"""KNN-based industrial anomaly detection: SPADE, PaDiM and PatchCore, from images to tables.

The library knows nothing of Snakemake; the workflow's stage scripts call it, and so can you.
A fitted model scores new images in three lines::

    from indad import load_model
    model = load_model("results/models/mine/screw/padim-r18-4cb67777/seed0.safetensors")
    result = model.predict("photo.png")  # result.score, result.map, result.anomalous

Modules that need torch are imported by those who use them, so that ``import indad`` is cheap.
"""

from importlib import import_module

__version__ = "0.1.0"

#: Names that are imported on first use: their modules import pandas, Pillow and matplotlib.
_LAZY = {
    "load_model": "indad.inference.loading",
    "Model": "indad.inference.model",
    "Result": "indad.inference.result",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
