"""Tables say what was measured and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indad import evaluation, readme, tables
from indad.errors import DataError, StoreError
from indad.store import GroundTruth


def metrics(rows) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "dataset": d,
                "category": c,
                "experiment": e,
                "seed": s,
                "metric": m,
                "value": v,
                "ci_low": np.nan,
                "ci_high": np.nan,
            }
            for d, c, e, s, m, v in rows
        ]
    )


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_averages_best_and_gaps():
    frame = metrics(
        [
            ("d", "b", "X", 0, "image_auroc", 0.90),
            ("d", "b", "Y", 0, "image_auroc", 0.9501),
            ("d", "b", "Z", 0, "image_auroc", 0.9499),
            ("d", "a", "X", 0, "image_auroc", 0.70),
            ("d", "a", "Y", 0, "image_auroc", 0.65),
        ]
    )
    rows = cells(tables.table(frame, "d", "image_auroc", ["X", "Y", "Z"]))
    assert rows[0] == ["category", "X", "Y", "Z"]
    assert rows[2] == ["b", "90.0", "**95.0**", "**95.0**"]  # a tie in what is shown
    assert rows[3] == ["a", "**70.0**", "65.0", "-"]
    assert rows[4] == ["average", "80.0", "80.0", "**95.0** (of 1)"]


def test_means_over_seeds():
    frame = metrics([("d", "a", "X", s, "aupro", v) for s, v in enumerate((0.5, 0.7))])
    assert cells(tables.table(frame, "d", "aupro", ["X"]))[2] == ["a", "**60.0**"]
    assert "Means over 2 seeds." in tables.document(frame, ["X"])


def test_without_masks_the_document_says_so():
    frame = metrics([("solar", "mono", "X", 0, "image_auroc", 0.8)])
    text = tables.document(frame, ["X"], notes={"X": "random backbone weights"})
    assert "solar has no ground truth masks: image level only." in text
    assert "Pixel AUROC" not in text
    assert "X: random backbone weights." in text


def test_blocks_of_a_document_are_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n")
    assert readme.update(path, "x", "new\n\n| t |\n")
    assert path.read_text() == "a\n<!-- begin x -->\nnew\n\n| t |\n<!-- end x -->\nb\n"
    assert not readme.update(path, "x", "new\n\n| t |\n")
    with pytest.raises(DataError, match=r"README\.md: needs the markers '<!-- begin y -->'"):
        readme.update(path, "y", "new")


def truth(labels, has_mask, masks) -> GroundTruth:
    names = np.array([f"{i}.png" for i in range(len(labels))])
    return GroundTruth(names, np.array(labels), names, np.array(has_mask), np.array(masks))


def scored(values) -> pd.DataFrame:
    names = [f"{i}.png" for i in range(len(values))]
    return pd.DataFrame({"image": names, "label": 0, "defect": "", "score": values})


def test_defects_without_a_mask_do_not_count_for_pixels(rng):
    masks = np.zeros((4, 6, 6), bool)
    masks[2, 1:3, 1:4] = True
    maps = rng.random((4, 6, 6)).astype(np.float32)
    known = truth([0, 0, 1, 1], [True, True, True, False], masks)
    values = evaluation.evaluate(scored([0.1, 0.2, 0.9, 0.15]), maps, known)
    without = truth([0, 0, 1], [True] * 3, masks[:3])
    three = evaluation.evaluate(scored([0.1, 0.2, 0.9]), maps[:3], without)
    assert values["image_auroc"] == 0.75
    assert three["image_auroc"] == 1.0
    assert values["pixel_auroc"] == three["pixel_auroc"]
    assert list(values) == list(tables.TITLES)


def test_no_masks_no_pixel_metrics(rng):
    known = truth([0, 1], [True, False], np.zeros((2, 4, 4), bool))
    values = evaluation.evaluate(scored([0.1, 0.2]), rng.random((2, 4, 4)), known)
    assert list(values) == ["image_auroc", "image_ap", "image_f1max"]


def test_scores_of_other_images_are_refused(rng):
    known = truth([0, 1], [True, True], np.zeros((2, 4, 4), bool))
    with pytest.raises(StoreError, match="not of the store's test images"):
        evaluation.evaluate(scored([0.1, 0.2, 0.3]), rng.random((3, 4, 4)), known)


def test_metrics_files_round_trip(tmp_path):
    frame = evaluation.tidy(
        {"image_auroc": 1 / 3}, dataset="NA", category="1", experiment="X", seed=0
    )
    evaluation.write(frame, tmp_path / "m.csv")
    again = evaluation.read([tmp_path / "m.csv", tmp_path / "m.csv"])
    assert len(again) == 2
    assert again.loc[0, ["dataset", "category", "seed"]].tolist() == ["NA", "1", 0]
    assert again.loc[0, "value"] == pytest.approx(1 / 3, abs=1e-10)
    (tmp_path / "m.csv").write_text("junk\n")
    with pytest.raises(StoreError, match=r"m\.csv: not a metrics table"):
        evaluation.read([tmp_path / "m.csv"])
