"""Tables of results, and comparisons with published values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from conftest import table_rows
from indad.core.csv_files import write_csv
from indad.core.errors import DataError, StoreError
from indad.data import manifest
from indad.data.ground_truth import GroundTruth
from indad.data.public import catalogue
from indad.evaluation import counts, evaluate
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from indad.reporting import published, readme, results_document, tables
from indad.reporting.tables import Layout


def metrics(rows, bounds=(np.nan, np.nan)) -> pd.DataFrame:
    frame = pd.DataFrame(
        rows, columns=["dataset", "category", "experiment", "seed", "metric", "value"]
    )
    return frame.assign(ci_low=bounds[0], ci_high=bounds[1])


def table(frame, metric, *experiments, **more) -> list[list[str]]:
    """The table of the data set "d"."""
    style = {key: more.pop(key) for key in ("intervals", "differences") if key in more}
    layout = Layout(experiments, **more)
    return table_rows(
        results_document.table(tables.summarise(frame, layout), "d", metric, layout, **style)
    )


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
    rows = table(frame, "image_auroc", "X", "Y", "Z")
    assert rows[0] == ["category", "X", "Y", "Z"]
    assert rows[2] == ["b", "90.0", "**95.0**", "**95.0**"]  # a tie in what is shown
    assert rows[3] == ["a", "**70.0**", "65.0", "-"]
    assert rows[4] == ["average", "80.0", "80.0", "**95.0** (of 1)"]


def test_mean_and_sample_deviation_over_seeds():
    frame = metrics(
        [("d", c, "X", s, "aupro", v) for c in "ab" for s, v in enumerate((0.5, 0.6, 0.7))]
        + [("d", "c", "X", 1, "aupro", 0.9)],
        bounds=(0.1, 0.2),
    )
    rows = table(frame, "aupro", "X", intervals=True)
    assert rows[2] == ["a", "**60.0** ± 10.0"]  # n - 1, and no interval of just one seed
    assert rows[4] == ["c", "**90.0** [10.0, 20.0]"]
    assert rows[5] == ["average", "**70.0**"]  # no spread: only one seed has all categories
    layout = Layout(["X"])
    text = results_document.document(tables.summarise(frame, layout), layout)
    assert "With ±: means and sample standard deviations over 3 seeds." in text


def test_confidence_intervals_in_full_documents_only():
    frame = metrics([("d", "a", "X", 0, "aupro", 0.981)], bounds=(0.969, 0.99))
    assert table(frame, "aupro", "X", intervals=True)[2] == ["a", "**98.1** [96.9, 99.0]"]
    layout = Layout(["X"])
    measured = tables.summarise(frame, layout)
    assert "[96.9, 99.0]" in results_document.document(measured, layout, full=True)
    assert "[" not in results_document.document(measured, layout)


def test_averages_have_intervals_in_tables_and_in_their_file():
    values = {"a": 0.5, "b": 0.7, "c": 0.9}
    frame = metrics([("d", c, "X", 0, "aupro", v) for c, v in values.items()])
    frame = frame.assign(ci_low=frame["value"] - 0.3, ci_high=frame["value"] + 0.03)
    rows = table(frame, "aupro", "X", intervals=True, groups={"d": {"soft": ["a", "c"]}})
    assert rows[5] == ["average of 2 soft", "**70.0** [58.3, 81.7]"]  # 16.5 / sqrt(2)
    assert rows[6] == ["average", "**70.0** [60.5, 79.5]"]
    (row,) = evaluate.averages(frame).itertuples(index=False)
    assert row[:5] == ("d", evaluate.AVERAGE, "X", 0, "aupro")
    assert row.categories == 3
    assert (row.ci_low, row.ci_high) == pytest.approx((0.7 - 0.165 / 3**0.5, 0.7 + 0.165 / 3**0.5))
    assert evaluate.averages(frame[:1]).empty
    # Seeds score the same images: their intervals are not pooled.
    seeds = pd.concat([frame, frame.assign(seed=1)])
    assert table(seeds, "aupro", "X", intervals=True)[5] == ["average", "**70.0** ± 0.0"]
    assert len(evaluate.averages(seeds)) == 2


def test_groups_get_averages_of_their_own():
    values = {"a": 0.5, "b": 0.7, "c": 0.9, "d": 0.1}
    frame = metrics([("d", c, "X", 0, "aupro", v) for c, v in values.items()])
    groups = {"d": {"soft": ["a", "c", "elsewhere"], "lone": ["d"], "all": list(values)}}
    rows = table(frame, "aupro", "X", groups=groups)
    assert [row[0] for row in rows[2:]] == [*values, "average of 2 soft", "average"]
    assert rows[-2][1] == "**70.0**"
    assert rows[-1][1] == "**55.0**"


MVTEC = list(catalogue.load()["mvtec_ad"].categories)


def on_mvtec(categories, value=0.9, experiment="S", result="SPADE"):
    """Metrics of one experiment that is the same everywhere, beside a published result."""
    names = ("image_auroc", "pixel_auroc", "aupro")
    rows = [("d", c, experiment, 0, m, value) for c in categories for m in names]
    layout = Layout(
        [experiment], compared={"d": "mvtec_ad"}, published={experiment: result}, groups={}
    )
    return tables.summarise(metrics(rows), layout), layout


def test_the_difference_to_the_paper():
    measured, layout = on_mvtec(["bottle", "cable"])
    rows = table_rows(results_document.table(measured, "d", "pixel_auroc", layout))
    assert [row[1] for row in rows[2:]] == ["**90.0** (-8.4)", "**90.0** (-7.2)", "**90.0** (-7.8)"]
    cell = measured[(measured["metric"] == "aupro") & (measured["category"] == "cable")].iloc[0]
    assert (cell["paper"], cell["difference"]) == (90.9, pytest.approx(-0.9))
    # Not for other data sets and other experiments.
    other = Layout(["S"], published={"S": "SPADE"})
    without = measured.assign(difference=np.nan)
    assert "(" not in results_document.table(without, "d", "pixel_auroc", other)
    assert tables.with_published(measured, other).empty
    assert tables.with_published(measured, Layout(["S"], compared={"d": "mvtec_ad"})).empty


def test_a_result_published_only_as_an_average_is_not_used_for_categories():
    measured, layout = on_mvtec(MVTEC)
    rows = table_rows(results_document.table(measured, "d", "image_auroc", layout))
    assert {row[1] for row in rows[2:-1]} == {"**90.0**"}
    assert rows[-1] == ["average", "**90.0** (+4.5)"]
    text = results_document.document(measured, layout, full=True)
    assert "SPADE's paper gives Image AUROC only as an average over all 15 categories: 85.5" in text
    comparison = results_document.comparison(
        measured, tables.with_published(measured, layout), "d", "image_auroc", "S"
    )
    bottle = next(row for row in table_rows(comparison) if row[0] == "bottle")
    theirs = ["-", "-", "96.7", "-6.7", "95.7", "-5.7", "97.2", "-7.2"]  # with our differences
    assert bottle == ["bottle", "90.0", *theirs]
    # The printed average is not used for fewer categories.
    measured, layout = on_mvtec(MVTEC[:-1])
    rows = table_rows(results_document.table(measured, "d", "image_auroc", layout))
    assert rows[-1] == ["average", "**90.0**"]
    assert "only as an average over all 15 categories: 85.5" in results_document.document(
        measured, layout
    )


def test_averages_are_computed_and_different_printed_ones_are_noted():
    measured, layout = on_mvtec(MVTEC)
    others = tables.with_published(measured, layout)
    average = others[(others["scope"] == "average") & (others["kind"] == "paper")]
    computed = average.set_index("metric")["theirs"]
    of_paper = tables.select(published.values(), name="SPADE", metric="pixel_auroc")
    each = of_paper[of_paper["category"].isin(MVTEC)]["percent"]
    assert computed["pixel_auroc"] == pytest.approx(each.mean())
    text = results_document.document(measured, layout)
    note = "SPADE's paper prints an average Pixel AUROC of 96.5; the mean of its categories, shown"
    assert f"{note} here, is 96.0" in text
    assert "average AUPRO of" not in text
    assert note not in results_document.document(*on_mvtec(MVTEC[:3]))


def test_the_overview_has_the_paper_others_and_ours():
    measured, layout = on_mvtec(MVTEC, result="PatchCore-10")
    text = results_document.overview(
        measured, tables.with_published(measured, layout), "d", tables.SUMMARY
    )
    rows = table_rows(text)[2:]
    assert rows[0][:3] == ["S", "**ours**", "90.0 (-8.9)"]
    assert rows[1] == ["", "paper", "98.9", "98.1", "93.5"]
    assert ["", "anomalib PatchCore", "98.0", "98.0", "-"] in rows
    assert len(rows) == 5


def test_latex_is_escaped_and_balanced():
    rows = [
        ("d_1", "metal_nut", "50%&_{x}\\", 0, "aupro", 0.9),
        ("d_1", "b", "50%&_{x}\\", 0, "aupro", 0.8),
    ]
    layout = Layout(["50%&_{x}\\"])
    text = results_document.latex(tables.summarise(metrics(rows), layout), "aupro", layout)
    assert r"category & 50\%\&\_\{x\}\textbackslash{} \\" in text
    assert r"metal\_nut & \textbf{90.0} \\" in text
    assert text.count(r"\midrule") == 2
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_images_are_counted(category):
    counted = counts.images({("d", "widget"): manifest.build(category)})
    rows = table_rows(results_document.image_counts(counted, "d"))
    assert rows[2] == ["widget", "3", "2", "3", "3", "cut 2, dirt 1"]
    assert counted["images"].sum() == 8


def test_without_masks_the_document_says_so():
    frame = metrics([("solar", "mono", "X", 0, "image_auroc", 0.8)])
    layout = Layout(["X"], notes={"X": "random backbone weights"})
    text = results_document.document(tables.summarise(frame, layout), layout)
    assert "solar has no ground truth masks: image-level metrics only." in text
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


def test_an_outdated_block_is_reported_line_by_line(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- begin x -->\nold\nsame\n<!-- end x -->\nb\n")
    assert readme.difference(path, "x", "new\nsame\n") == "- old\n+ new"
    assert readme.difference(path, "x", "old\nsame\n") == ""
    assert "old" in path.read_text()


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
    pixels = evaluate.PixelScores(maps, known)
    values = evaluate.evaluate(scored([0.1, 0.2, 0.9, 0.15]), pixels)
    without = truth([0, 0, 1], [True] * 3, masks[:3])
    pixels = evaluate.PixelScores(maps[:3], without)
    three = evaluate.evaluate(scored([0.1, 0.2, 0.9]), pixels)
    assert values["image_auroc"] == 0.75
    assert three["image_auroc"] == 1.0
    assert values["pixel_auroc"] == three["pixel_auroc"]
    assert tuple(values) == IMAGE_METRICS + PIXEL_METRICS


def test_scores_of_other_images_are_refused(rng):
    known = truth([0, 1], [True, True], np.zeros((2, 4, 4), bool))
    with pytest.raises(StoreError, match="the scores belong to other images"):
        evaluate.PixelScores(rng.random((3, 4, 4)), known)
    pixels = evaluate.PixelScores(rng.random((2, 4, 4)), known)
    with pytest.raises(StoreError, match="the scores belong to other images"):
        evaluate.evaluate(scored([0.1, 0.2, 0.3]), pixels)


def test_metrics_files_round_trip(tmp_path):
    frame = evaluate.tidy(
        {"image_auroc": 1 / 3}, dataset="NA", category="1", experiment="X", seed=0
    )
    write_csv(frame, tmp_path / "m.csv")
    again = evaluate.read([tmp_path / "m.csv", tmp_path / "m.csv"])
    assert len(again) == 2
    assert again.loc[0, ["dataset", "category", "seed"]].tolist() == ["NA", "1", 0]
    assert again.loc[0, "value"] == pytest.approx(1 / 3, abs=1e-10)
    (tmp_path / "m.csv").write_text("junk\n")
    with pytest.raises(StoreError, match=r"m\.csv: not a metrics table"):
        evaluate.read([tmp_path / "m.csv"])


def test_metrics_of_images_of_one_class_are_empty(rng, tmp_path):
    maps = rng.random((2, 4, 4), np.float32)
    names = np.array(["a", "b"])
    masks = np.zeros((2, 4, 4), bool)
    scored = pd.DataFrame({"image": names, "label": 0, "defect": "good", "score": [0.1, 0.2]})
    good = GroundTruth(names, np.zeros(2, int), np.array(["good"] * 2), np.ones(2, bool), masks)
    drawn = masks.copy()
    drawn[:, :2] = True
    bad = GroundTruth(names, np.ones(2, int), np.array(["cut"] * 2), np.ones(2, bool), drawn)
    frames = []
    for category, truth, count in (("all good", good, 3), ("all bad", bad, 8)):
        pixels = evaluate.PixelScores(maps, truth)
        values = evaluate.evaluate(scored, pixels)
        assert len(values) == count
        keys = {"dataset": "d", "category": category, "experiment": "X", "seed": 0}
        run = evaluate.resample(scored, pixels, resamples=20, draw_seed=0, **keys)
        bounds = evaluate.intervals(values, run, level=0.95)
        assert set(run.values) == {name for name, value in values.items() if np.isfinite(value)}
        assert all(np.isnan(bounds[name][0]) for name in list(tables.TITLES)[:3])
        assert all(np.isnan(values[name]) for name in list(tables.TITLES)[:3])
        assert all(np.isfinite(values[name]) for name in list(values)[3:])
        path = tmp_path / f"{category}.csv"
        write_csv(evaluate.tidy(values, **keys), path)
        frames.append(path)
    measured = evaluate.read(frames)
    assert [row[1] for row in table(measured, "image_auroc", "X")[2:]] == ["-", "-", "-"]
    good_row, bad_row, _ = table(measured, "aupro", "X")[2:]
    assert good_row == ["all good", "-"]
    assert bad_row[1].startswith("**")
    layout = Layout(["X"])
    remarks = ["d, all good: all test images are good."]
    text = results_document.document(tables.summarise(measured, layout), layout, remarks=remarks)
    assert "\n- d, all good: all test images are good.\n" in text
