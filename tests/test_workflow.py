"""The real workflow on a small real data set: solar cells and textures, a pretrained network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from safetensors.torch import save_file

import coreset
import fit
import readme
from conftest import make_job
from dev import job_resources
from indad.cli.main import main as indad
from indad.core import checksum, provenance
from indad.data import manifest
from indad.evaluation import comparison, evaluate
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS
from indad.pipeline import lock
from indad.pipeline.config import Config
from indad.pipeline.config_files import load_config, merged
from indad.pipeline.settings import job_settings
from indad.pipeline.verify import verify
from indad.reporting import tables
from small_run import SMALL, fail, plan, succeed, without_torch
from test_layouts import make_mvtec, pack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    """Results to damage and to restore."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    return folder / "results"


def test_all_metrics_of_all_experiments(finished):
    metrics = evaluate.read([finished / "results/metrics.csv"])
    assert list(metrics) == list(evaluate.COLUMNS)
    assert metrics["value"].between(0, 1).all()
    measured = metrics.groupby(["dataset", "category", "experiment"])["metric"].apply(tuple)
    assert len(measured) == 6
    for (dataset, _, _), names in measured.items():
        assert names == IMAGE_METRICS + (PIXEL_METRICS if dataset == "drawn" else ())


def test_every_value_has_an_interval_and_a_number_of_images(finished):
    metrics = evaluate.read([finished / "results/metrics.csv"])
    assert (metrics["ci_low"] <= metrics["value"]).all()
    assert (metrics["value"] <= metrics["ci_high"]).all()
    assert (metrics["ci_high"] - metrics["ci_low"] > 1e-3).all()
    counts = pd.read_csv(finished / "results/counts.csv").set_index("category")
    assert counts.loc["mono"].tolist() == ["elpv", 12, 4, 9, 0, 0]
    assert counts.loc["wood", ["dataset", "n_train", "n_good"]].tolist() == ["drawn", 12, 4]
    assert counts.loc["wood", "n_regions"] >= counts.loc["wood", "n_masks"] > 0


def test_experiments_are_compared(finished):
    results = finished / "results"
    pairs = pd.read_csv(results / "comparisons.csv")
    assert list(pairs) == list(comparison.COMPARISON_COLUMNS)
    assert (pairs.groupby(["dataset", "metric"]).size() == 3).all()
    assert pairs["p"].dropna().between(0, 1).all()
    ranks = pd.read_csv(results / "ranks.csv")
    assert set(ranks["n_categories"]) == {1}
    text = (results / "tables/comparisons.md").read_text()
    assert "| category " in text
    assert "average over" not in text  # of one category
    assert list(pd.read_csv(results / "averages.csv")) == list(evaluate.AVERAGE_COLUMNS)
    assert (results / "figures/critical_difference").is_dir()


def test_metrics_are_those_of_the_scores(finished):
    from sklearn.metrics import roc_auc_score

    scores = pd.read_csv(finished / "results/scores/drawn/wood/PaDiM/seed0/scores.csv")
    metrics = evaluate.read([finished / "results/metrics/drawn/wood/PaDiM/seed0.csv"])
    assert list(scores) == ["image", "label", "defect", "score"]
    value = metrics.set_index("metric").loc["image_auroc", "value"]
    assert value == pytest.approx(roc_auc_score(scores["label"], scores["score"]), abs=1e-9)


def test_tables_pictures_logs_and_benchmarks(finished):
    results = finished / "results"
    text = (results / "tables/results.md").read_text()
    assert "## AUPRO (up to 30 % false positives): drawn" in text
    assert "elpv has no ground truth masks" in text
    for name in ("pictures/drawn/wood", "pictures/elpv/mono_cases", "figures/tradeoff"):
        assert (results / f"{name}.png").stat().st_size > 10_000
    for name in ("curves.png", "scores.png", "defects.png", "defects.csv"):
        assert (results / "figures/elpv/mono" / name).exists()
    jobs = {
        "download": 2, "index": 2, "decode": 2, "extract": 2, "fit": 6, "score": 6, "evaluate": 6,
        "pictures": 2, "figures": 2,
    }  # fmt: skip
    for rule, count in jobs.items():
        assert len(list((results / "logs" / rule).rglob("*.log"))) == count
        assert len(list((results / "benchmarks" / rule).rglob("*.tsv"))) == count
    runtime = pd.read_csv(results / "runtime.csv")
    assert runtime.groupby("stage").size().to_dict() == jobs
    assert (runtime[["seconds", "compute_seconds"]] >= 0).all(axis=None)
    assert runtime.loc[runtime["stage"] == "score", "model_mb"].gt(0).all()
    for metric in tables.Layout([]).titles:
        for suffix in ("md", "csv", "tex"):
            assert (results / f"tables/{metric}.{suffix}").stat().st_size > 0
    assert not [path for path in results.rglob("*") if ".tmp" in path.name]


def test_the_report_holds_every_category(finished):
    text = (finished / "results/report/index.html").read_text(encoding="utf-8")
    assert [name for name in ("mono", "wood") if f">{name}</option>" not in text] == []
    # Four pictures of each category, and accuracy against time.
    assert text.count('src="data:image/webp;base64,') == 2 * 4 + 1
    assert "elpv has no ground truth masks" in text
    assert "coreset_ratio: 0.1" in text  # the configuration, to run it again


def test_snakemakes_own_report_holds_every_product(finished):
    succeed(finished, "--report", "report.zip")
    with zipfile.ZipFile(finished / "report.zip") as archive:
        assert archive.testzip() is None
        held = {Path(name).name for name in archive.namelist()}
    assert {"report.html", "index.html", "metrics.csv", "wood.png", "curves.png"} <= held


def test_a_model_scores_images_as_the_workflow_does(finished):
    from indad import load_model
    from indad.evaluation import scores

    for experiment in SMALL["run"]["experiments"]:
        folder = finished / f"results/scores/drawn/wood/{experiment}/seed0"
        table = scores.read_table(folder / "scores.csv")
        model = load_model(folder, device="cpu")
        assert model.calibration.experiment == experiment
        images = [finished / "results/data/drawn/wood" / name for name in table["image"]]
        results = model.predict(images)
        np.testing.assert_allclose([each.score for each in results], table["score"], rtol=1e-4)
        maps = np.stack(list(scores.read(folder / "scores.csv", folder / "maps.h5").maps))
        np.testing.assert_allclose([each.map for each in results], maps, atol=1e-4 * maps.max())


def test_no_job_takes_more_memory_than_it_asks_for(finished):
    jobs = job_resources.read_jobs(finished / "results")
    assert len(jobs) == 28  # all but those that run on the head
    for job in jobs.itertuples():
        # Short jobs are measured once or twice, so that there is no lower bound of what they used.
        assert job.measured_mb < job.asked_mb < 10_000, job


def test_a_second_run_does_nothing(finished, tmp_path):
    """Nor one from another folder, without .snakemake, on a copy with other times of files."""
    assert "Nothing to be done" in succeed(finished)
    shutil.copytree(finished / "results", tmp_path / "results")
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    for time, path in enumerate(sorted(files, reverse=True)):
        os.utime(path, (1_000_000_000 + time, 1_000_000_000 + time))
    assert plan(tmp_path) == {}


def test_the_run_says_what_it_comes_from(finished):
    found = provenance.read(finished / "results/provenance.json")
    assert len(found["runs"]) == 6
    by_keys = {tuple(run["keys"].values()): run for run in found["runs"]}
    run = by_keys["wood", "drawn", "PaDiM", 0]
    made, features = run["made_with"], run["made_with"]["features_made_with"]
    assert made["parameters"]["dimensions"] == 20
    assert (made["parameters"]["seed"], made["device"]) == (0, "cpu")
    assert {"torch", "numpy", "indad"} <= set(made["versions"])
    digest = hashlib.sha256((finished / "results/metrics.csv").read_bytes()).hexdigest()
    assert found["digests"]["metrics.csv"] == f"sha256:{digest}"
    text = (finished / "results/tables/results.md").read_text().splitlines()[-1]
    assert text.startswith("Provenance: indad ")
    assert features["weights_sha256"][:12] in text


def test_verify_finds_nothing_wrong_with_a_finished_run(finished, capsys):
    assert indad(["verify", str(finished / "results")]) == 0
    shown = capsys.readouterr().out
    assert "Everything matches the record of" in shown.replace("\n", " ")
    assert "feature stores" in shown


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("manifests/drawn/wood.csv", "manifest", "is not the file the tables come from"),
        ("pixels/drawn/wood/*.h5", "pixels", "damaged: its content does not match its checksum"),
        (
            "features/drawn/wood/*.h5",
            "features",
            "damaged: its content does not match its checksum",
        ),
        ("models/drawn/wood/padim*/seed0.safetensors", "model", "does not match its checksum"),
        ("scores/drawn/wood/PaDiM/seed0/scores.csv", "scores", "is not the file the tables"),
        ("scores/drawn/wood/PaDiM/seed0/maps.h5", "maps", "does not match its checksum"),
        ("scores/drawn/wood/PaDiM/seed0/calibration.json", "calibration", "is not the file"),
        ("metrics/drawn/wood/PaDiM/seed0.h5", "resamples", "does not match its checksum"),
        ("metrics/drawn/wood/PaDiM/seed0.csv", "metrics", "is not the file the tables come from"),
        ("metrics.csv", "table", "is not the file the tables come from"),
        ("tables/results.md", "table", "is not the file the tables come from"),
        ("data/drawn/wood/test/good/000.png", "data", "is not the file of the manifest"),
        ("data/drawn/wood/ground_truth/*/000_mask.png", "data", "is not the file of the manif"),
    ],
)
def test_verify_names_what_no_longer_matches(copied, name, kind, message):
    path = next(copied.glob(name))
    sound = path.read_bytes()
    middle = len(sound) // 2
    path.write_bytes(sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :])
    try:
        report = verify(copied)
        assert any(k == kind and str(path) in m and message in m for k, m in report.problems)
        path.unlink()
        assert any(k == kind and "is missing" in m for k, m in verify(copied).problems)
    finally:
        path.write_bytes(sound)
    assert not verify(copied, data=False).problems


def test_scores_that_do_not_give_the_metrics_are_noticed(copied):
    """Even where every file is the one recorded: the figure has to follow from the scores."""
    path = copied / "provenance.json"
    sound = path.read_bytes()
    found = provenance.read(path)
    (padim,) = (run for run in found["runs"] if run["keys"]["experiment"] == "PaDiM"
                and run["keys"]["dataset"] == "drawn")  # fmt: skip
    other = next(run for run in found["runs"] if run["keys"]["dataset"] == "elpv")
    padim["files"]["metrics"] = other["files"]["metrics"]
    checksum.write_json(path, found)
    problems = [message for kind, message in verify(copied).problems if kind == "chain"]
    path.write_bytes(sound)
    assert any("image AUROC" in message and "give" in message for message in problems)


def changed(experiment: str, **parameters) -> dict:
    """Return the experiments with other parameters of one."""
    return SMALL["experiments"] | {experiment: SMALL["experiments"][experiment] | parameters}


def test_only_what_a_change_touches_runs_again(finished):
    """`test_currency` has what each setting touches."""
    summaries = ("aggregate", "compare", "runtime", "tradeoff", "html_report", "all")
    always = {"pictures": 2, "figures": 2} | dict.fromkeys(summaries, 1)
    refitted = plan(finished, experiments=changed("PaDiM", dimensions=9))
    assert refitted == {"fit": 2, "score": 2, "evaluate": 2} | always
    # The first experiment scores differently, and one more shares the model of another.
    more = changed("SPADE", k_image=2)
    more["PatchCore-1"] = SMALL["experiments"]["PatchCore-10"] | {"coreset_ratio": 0.01}
    run = SMALL["run"] | {"experiments": [*SMALL["run"]["experiments"], "PatchCore-1"]}
    assert plan(finished, experiments=more, run=run) == (
        {"score": 4, "evaluate": 4, "count": 1} | always
    )


def test_a_sweep_is_one_run_for_each_number_of_images_and_draw(tmp_path):
    experiments = changed("PaDiM", shots=[2, 5, "all"], seeds=[0, 1])
    run = {"datasets": ["drawn"], "experiments": ["PaDiM", "SPADE"]}
    planned = plan(tmp_path, run=run, experiments=experiments)
    assert planned["fit"] == planned["score"] == planned["evaluate"] == 3 * 2 + 1
    assert planned["extract"] == planned["learning_curves"] == planned["html_report"] == 1


def test_separate_jobs_choose_the_coresets_of_parts(finished, tmp_path):
    merge = {"coreset": "merge", "part_patches": 500, "seeds": [0, 1]}
    changes = {"experiments": changed("PatchCore-10", **merge), "coreset_jobs": 2}
    changes["run"] = {"datasets": ["drawn"], "experiments": ["PatchCore-10", "PaDiM"]}
    planned = plan(tmp_path, "--until", "fit", **changes)
    assert (planned["coreset"], planned["fit"]) == (2 * 2, 2 + 1)
    # What the scripts of these jobs make, on the features of the finished run.
    config = Config.read(merged(load_config(None), SMALL | changes))
    model = config.experiments["PatchCore-10"].model
    at = {"dataset": "drawn", "category": "wood", "model": model, "seed": "0"}
    inputs = {"features": finished / "results/features/drawn/wood/lite0.h5",
              "manifest": finished / "results/manifests/drawn/wood.csv"}  # fmt: skip
    files = [tmp_path / f"{part}.safetensors" for part in config.coreset_jobs(config.models[model])]
    for file in files:
        job = make_job(
            input=inputs,
            output={"coresets": file},
            settings=job_settings(config, "coreset", at),
            params={"coreset_ratio": 0.1},
            wildcards=at | {"part": file.stem},
        )
        coreset.main(job)
    models = []
    for given in {}, {"coresets": files}:
        models.append(tmp_path / f"{len(models)}.safetensors")
        job = make_job(
            input=inputs | given,
            output={"model": models[-1]},
            settings=job_settings(config, "fit", at),
            wildcards=at,
        )
        fit.main(job)
    alone, together = (path.read_bytes() for path in models)
    assert alone == together


def test_an_edited_result_never_reaches_the_tables(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "results/metrics/drawn/wood/PaDiM/seed0.csv"
    path.write_text(path.read_text().replace("7", "6"))
    message = fail(tmp_path, "--until", "aggregate")
    assert "metrics/drawn/wood/PaDiM/seed0.csv: not the " in message
    assert "run again" in message


def test_stages_without_torch_do_not_import_it(finished, tmp_path):
    """`small_run` runs them where importing it fails."""
    environment = os.environ | without_torch(tmp_path)
    code = [sys.executable, "-c", "import torch"]
    done = subprocess.run(code, env=environment, capture_output=True, text=True)
    assert "torch is blocked" in done.stderr
    records = [json.loads(path.read_text()) for path in (finished / "results/records").rglob("*.*")]
    with_torch = {record["rule"] for record in records if record["torch_seconds"]}
    assert with_torch == {"extract", "fit", "score"}
    spade = [
        each for each in records if each["rule"] == "fit" and "spade" in str(each["wildcards"])
    ]
    assert spade
    assert not any(each["torch_seconds"] or each["device"] for each in spade)
    assert len(records) > 30


def test_configuration_errors_are_clear(tmp_path):
    """As an input is looked up; `test_run` has one as it is parsed, `test_config` all messages."""
    changes = {"extractors": {"lite0": {"weights": "/no/such/weights.pth"}}}
    message = fail(tmp_path, "--dry-run", **changes)
    assert "extractors.lite0.weights: weights '/no/such/weights.pth': there is no file" in message


def test_a_results_folder_has_one_run_at_a_time(finished, tmp_path, monkeypatch):
    """Snakemake's own lock is on the working directory; another one shares these results."""
    results = finished / "results"
    monkeypatch.setattr(lock, "_held", [])
    lock.claim(results)
    run = {"results": str(results)}
    message = fail(tmp_path, "--forcerun", "aggregate", **run)
    assert f"indad: results: another run uses the folder {results}" in message
    assert plan(tmp_path, "--forcerun", "aggregate", **run)["aggregate"] == 1


def test_results_land_in_the_readme(finished):
    document = finished / "NOTES.md"
    document.write_text("<!-- begin mine -->\nstale figures\n<!-- end mine -->\n")
    settings = {"readme": {"file": str(document), "block": "mine"}}
    succeed(finished, "readme", **settings)
    assert "#### Image AUROC: elpv" in document.read_text()
    assert "stale" not in document.read_text()
    job = make_job(
        input={"rendered": str(finished / "results/tables/readme.md")},
        params=settings | {"check": True},
    )
    assert readme.main(job) is None
    document.write_text(document.read_text().replace("PaDiM", "PaDiN", 1))
    message = fail(finished, "readme_check", **settings)
    assert "NOTES.md: block 'mine' is not what results/tables/readme.md has" in message


# -- other data ------------------------------------------------------------------------------------


def test_a_public_data_set_is_taken_from_a_mirror(tmp_path):
    original = tmp_path / "original"
    for category in ("tubes", "connector", "metal_plate"):
        make_mvtec(original, category)
    pack(original, tmp_path / "MPDD.zip", "MPDD/")
    mpdd = {
        "source": "mpdd",
        "categories": ["tubes", "connector"],
        "mirrors": ["/no/such/place", str(tmp_path / "MPDD.zip")],
    }
    changes = {
        "datasets": {"mpdd": mpdd},
        "run": {"datasets": ["mpdd"], "experiments": ["PaDiM"]},
    }
    assert "licence: MPDD" in succeed(tmp_path, "--until", "index", **changes)
    manifests = sorted((tmp_path / "results/manifests/mpdd").glob("*.csv"))
    assert [path.stem for path in manifests] == ["connector", "tubes"]
    receipt = json.loads((tmp_path / "results/data/mpdd/tubes.json").read_text())
    assert receipt["from"] == str(tmp_path / "MPDD.zip")
    # Found elsewhere, it is the same data: another mirror makes nothing again.
    mpdd["mirrors"].reverse()
    assert plan(tmp_path, "--until", "index", **changes) == {}


def test_mvtec_ad_is_used_in_place_or_downloaded(tmp_path):
    """With the shipped configuration: data/mvtec_ad first, then the known addresses."""
    run = {"datasets": ["mvtec_ad"], "experiments": ["PaDiM"]}
    index = ("--until", "index")
    assert plan(tmp_path, *index, run=run) == {"archive": 1, "download": 15, "index": 15}
    # No network: whoever answers at this address refuses.
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    few = {"mvtec_ad": {"categories": ["bottle", "cable"]}}
    message = fail(tmp_path, *index, environment=offline, run=run, datasets=few)
    assert message.count("indad: mvtec_ad: could not get MVTec AD; tried in this order:") == 1
    assert "data/mvtec_ad: no such file or folder" in message
    assert "tar.xz (unconfirmed): connection refused (2 attempts in a row)" in message
    assert "To get it by hand: download mvtec_anomaly_detection.tar.xz (sha256 cf4313b" in message

    for category in few["mvtec_ad"]["categories"]:
        make_mvtec(tmp_path / "data/mvtec_ad", category)
    succeed(tmp_path, *index, run=run, datasets=few)
    assert len(list((tmp_path / "results/manifests/mvtec_ad").glob("*.csv"))) == 2
    assert not (tmp_path / "results/data").exists()
    make_mvtec(tmp_path / "data/mvtec_ad", "bottle")  # other pixels
    assert plan(tmp_path, *index, run=run, datasets=few) == {"index": 1}


#: Up to the metrics, from the images on.
STAGES = ("index", "decode", "extract", "fit", "score", "evaluate")


def test_a_folder_of_ones_own_by_a_list_and_with_one_class(category, tmp_path):
    """Photos that stay where they are, some without a mask, and a category of good ones alone.

    The backbone's weights are a file of one's own, too.
    Replaced photos and another list are noticed from any folder.
    """
    root = category.parent
    table = manifest.build(category)
    rows = []
    for row in table.itertuples():
        mask = row.mask if row.defect != "dirt" else ""
        split = "test" if row.label else "train"
        rows.append(f"{row.image},{split},{'OK' if not row.label else 'flaw'},{mask}\n")
    (category / "split.csv").write_text("image,split,defect,mask\n" + "".join(rows))
    (root / "gadget").mkdir()
    goods = [row for row in rows if ",OK," in row]
    for folder in ("train", "test/good"):
        shutil.copytree(category / folder, root / "gadget" / folder)
    (root / "gadget/split.csv").write_text("image,split,defect,mask\n" + "".join(goods))
    options = {"list": "split.csv", "good": "OK", "holdout": 0.4, "missing_masks": "allow",
               "allow_one_class": True, "unlisted": "allow"}  # fmt: skip
    results, weights = tmp_path / "results", tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), weights)
    changes = {
        "results": str(results),
        "datasets": {"mine": {"path": str(root)} | options},
        "run": {"datasets": ["mine"], "experiments": ["SPADE"]},
        "extractors": {
            "own": {
                "backbone": "test_resnet", "weights": str(weights), "resize": [64, 64],
                "crop": None, "layers": ["layer1", "layer2"],
            }
        },
        "experiments": {"SPADE": {"method": "spade", "extractor": "own", "k_pixel": 2}},
    }  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    # `test_figures` has the pictures and figures of a category like this one.
    succeed(first, f"{results}/metrics.csv", f"{results}/tables/comparisons.md", **changes)
    metrics = evaluate.read([results / "metrics.csv"])
    value = metrics.set_index(["category", "metric"])["value"]
    assert value["widget"].notna().sum() == 8
    assert value["gadget"].isna().all()
    text = (results / "tables/image_auroc.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| gadget"))
    assert row.split("|")[2].strip() == "-"
    for document in ("results.md", "summary.md"):
        text = (results / "tables" / document).read_text()
        assert "- mine, widget: 1 of 3 defective images have no mask, so pixel-level" in text
        assert "- mine, gadget: all test images are good: image AUROC and similar" in text
    assert verify(results).problems == []
    log = (results / "logs/index/mine/widget.log").read_text()
    assert "holdout: 2 of 5 good training images are held out for the test" in log
    assert "1 of 3 defective images have no mask" in log

    target, again = f"{results}/metrics.csv", dict.fromkeys(STAGES, 2) | {"aggregate": 1}
    read_as = changes["datasets"]["mine"] | {"good": ["OK", "flaw"]}
    assert plan(second, target, **changes | {"datasets": {"mine": read_as}}) == again
    photo = category / "train/good/000.png"
    photo.write_bytes((category / "train/good/001.png").read_bytes())
    (root / "gadget/split.csv").write_text("image,split,defect,mask\n" + "".join(goods[1:]))
    assert plan(second, target, **changes) == again
