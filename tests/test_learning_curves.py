"""Learning curves: from the metrics of several shots to points, sentences and figures."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from scipy.stats import norm

from conftest import table_rows
from fabricate import fabricate
from indad.core.csv_files import write_csv
from indad.core.errors import ConfigError
from indad.evaluation import comparison
from indad.evaluation.resamples import Resamples
from indad.pipeline.config import one_for_each_number_of_shots
from indad.reporting import learning_curves, report

SWEEPS = {"PaDiM": {"PaDiM-1shot": 1, "PaDiM-10shot": 10, "PaDiM-50shot": 50, "PaDiM": None}}
TRAINED = {("mvtec", "bottle"): 209, ("mvtec", "brush"): 40}
METHODS = {"PaDiM": "padim"}
#: Image AUROC with the seeds 0 and 1, by experiment and category.
VALUES = {
    "PaDiM-1shot": {"bottle": (0.70, 0.80), "brush": (0.60, 0.60)},
    "PaDiM-10shot": {"bottle": (0.90, 0.92), "brush": (0.80, 0.84)},
    "PaDiM-50shot": {"bottle": (0.96, 0.96), "brush": (0.90, 0.90)},
    "PaDiM": {"bottle": (0.97, 0.97), "brush": (0.90, 0.90)},
}


def resamples(category: str, experiment: str, seed: int, value: float) -> Resamples:
    """The scores of 20 good and 20 defective images with an image AUROC near ``value``."""
    label = np.repeat([0, 1], 20)
    # Good images have the scores 0 to 19; a defective one is above a share of them.
    score = np.concatenate([np.arange(20.0), np.full(20, 20 * value - 0.5)])
    # Each experiment has the same order of the defective images.
    score[20:] += np.linspace(-3, 3, 20) if value < 1 else 0
    return Resamples(
        "mvtec", category, experiment, seed, label.astype(str), label, score, label, {}, {}, 0, 20
    )


@pytest.fixture
def table() -> pd.DataFrame:
    keys = [
        (category, experiment, seed, value)
        for experiment, by_category in VALUES.items()
        for category, values in by_category.items()
        for seed, value in enumerate(values)
    ]
    names = ["category", "experiment", "seed", "value"]
    metrics = pd.DataFrame(keys, columns=names).assign(dataset="mvtec", metric="image_auroc")
    runs = [resamples(*each) for each in keys]
    return learning_curves.gather(metrics, SWEEPS, TRAINED, runs)


def points(table: pd.DataFrame, category: str) -> list[tuple]:
    chosen = table[table["category"] == category].round(6)
    return list(chosen[["images", "percent", "low", "high"]].itertuples(index=False, name=None))


def test_points_are_means_and_ranges_over_draws(table):
    assert points(table, "bottle") == [
        (1, 75, 70, 80),
        (10, 91, 90, 92),
        (50, 96, 96, 96),
        (209, 97, 97, 97),
    ]
    # Fifty shots of forty images are all of them.
    assert points(table, "brush") == [(1, 60, 60, 60), (10, 82, 80, 84), (40, 90, 90, 90)]
    assert points(table, "average") == [
        (1, 67.5, 65, 70),
        (10, 86.5, 85, 88),
        (45, 93, 93, 93),
        (124.5, 93.5, 93.5, 93.5),
    ]
    assert list(table["category"].unique()) == ["average", "bottle", "brush"]


def test_more_images_are_compared_on_the_same_test_images(table):
    """As the comparison of two experiments does, averaged over the categories."""
    runs = {
        (category, shots): [
            resamples(category, name, seed, value) for seed, value in enumerate(values[category])
        ]
        for name, values in VALUES.items()
        for category in values
        for shots in (SWEEPS["PaDiM"][name],)
    }
    spreads = [
        comparison.difference_spread(runs[name, None], runs[name, 10], "image_auroc")
        for name in ("bottle", "brush")
    ]
    variance = sum(each.variance for each in spreads) / 4
    expected = 2 * norm.sf((0.935 - 0.865) / variance**0.5)
    average = table[table["category"] == "average"].set_index("shots")["p"]
    assert average[10] == pytest.approx(expected)
    assert average[1] < average[10] < 0.05 < average[50]
    assert average[0] == 1


def test_one_sentence_says_how_many_images_are_enough(table):
    (sentence,) = learning_curves.sentences(table)
    p = table.set_index(["category", "shots"])["p"]["average", 50]
    assert sentence == (
        "mvtec, PaDiM, image AUROC: 10 good images give 86.5 (85.0 to 88.0), 45 good images give "
        "93.0 (93.0 to 93.0). More than 45 good images make no difference that these test images "
        f"can show: 93.0 with 45, 93.5 with all images (p = {p:.3f})."
    )


def test_a_curve_that_still_rises_is_not_called_enough(table):
    rising = table[table["images"] < 45]
    rising = rising.assign(p=np.where(rising["shots"] == 10, 1, 0.012))
    (sentence,) = learning_curves.sentences(rising)
    assert sentence.endswith(
        "The value still rises with the last images added (p = 0.012): more than 10 images may "
        "help."
    )


def test_document_has_the_published_values_of_the_same_method(table):
    text = learning_curves.document(table, {"mvtec": "mvtec_ad"}, METHODS)
    cells = table_rows(text)
    assert ["category", "experiment", "1", "10", "50", "all"] in cells
    assert ["", "PaDiM, wide_resnet50_2", "76.1", "-", "90.1", "-"] in cells
    assert next(line[:4] for line in cells if line[:1] == ["brush"]) == [
        "brush",
        "PaDiM",
        "60.0 (60.0 to 60.0)",
        "82.0 (80.0 to 84.0)",
    ]
    assert "76.1" not in learning_curves.document(table, {}, METHODS)


def test_figure_has_a_panel_for_the_average_and_each_category(table, tmp_path):
    sizes = []
    for categories in (["bottle"], ["bottle", "brush", "average"]):
        file = tmp_path / f"{len(categories)}.png"
        chosen = table[table["category"].isin(categories)]
        learning_curves.draw(chosen, "mvtec", file, compared="mvtec_ad", methods=METHODS)
        sizes.append(imread(file).shape)
    assert sizes[0] == sizes[1]  # one row of up to three panels


def test_report_page_shows_figure_sentence_and_values(table, tmp_path):
    sources = fabricate(tmp_path, ["bottle", "brush"], ["PaDiM"], dataset="mvtec", height=40)
    learning_curves.draw(table, "mvtec", tmp_path / "mvtec.png", methods=METHODS)
    write_csv(table, tmp_path / "curves.csv")
    shown = replace(sources, curve_points=tmp_path / "curves.csv", curve_figures=tmp_path)
    report.write(shown, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"<li>{next(learning_curves.sentences(table))}</li>" in text
    assert 'alt="Accuracy by number of training images, mvtec"' in text
    row = re.search(r'<tr><th scope="row">brush</th>.*', text[text.index("lowest and highest") :])
    assert re.findall(r"<td.*?>(.*?)</td>", row[0]) == [
        "PaDiM",
        "60.0 (60.0 to 60.0)",
        "82.0 (80.0 to 84.0)",
        "-",  # all of the 40 images
        "90.0 (90.0 to 90.0)",
    ]


def test_an_experiment_with_several_shots_is_run_as_several():
    settings = {"method": "padim", "published": "PaDiM", "shots": [1, "all", 16]}
    runs = one_for_each_number_of_shots("PaDiM", settings)
    assert runs == {
        "PaDiM-1shot": {"method": "padim", "published": None, "shots": 1},
        "PaDiM": {"method": "padim", "published": "PaDiM"},
        "PaDiM-16shot": {"method": "padim", "published": None, "shots": 16},
    }
    single = one_for_each_number_of_shots("A", {"shots": 4})
    assert single == {"A": {"shots": 4, "published": None}}
    assert one_for_each_number_of_shots("A", {"x": 1}) == {"A": {"x": 1}}


@pytest.mark.parametrize("shots", [[], [1, 1], ["all", "all"]])
def test_shots_must_be_different(shots):
    with pytest.raises(ConfigError, match=r"experiments.A.shots: must be a number of images"):
        one_for_each_number_of_shots("A", {"shots": shots})


def test_sizes_increase(table):
    for _, curve in table.groupby("category"):
        assert all(fewer < more for fewer, more in itertools.pairwise(curve["images"]))
