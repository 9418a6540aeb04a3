"""KNN-based industrial anomaly detection: SPADE, PaDiM and PatchCore, from images to tables.

The library knows nothing of Snakemake; the workflow's stage scripts call it, and so can you.
Modules that need torch are imported by those who use them, so that ``import indad`` is cheap.
"""

__version__ = "0.1.0"
