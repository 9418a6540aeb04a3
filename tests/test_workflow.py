"""The real workflow on a small real data set: solar cells and textures, a pretrained network."""

from __future__ import annotations

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
import yaml

from conftest import ROOT
from indad import comparison, evaluation, methods, tables
from indad.store import FeatureStore
from run import load_config
from test_layouts import make_mvtec, pack

SMALL = {
    "threads": 1,
    "device": "cpu",
    "batch_size": 8,
    "run": {
        "datasets": ["elpv", "drawn"],
        "experiments": ["SPADE", "PaDiM", "PatchCore-10", "PatchCore-1"],
    },
    "datasets": {
        "elpv": {"categories": ["mono"], "options": {"train": 12, "good": 4, "per_defect": 3}},
        "drawn": {
            "categories": ["wood"],
            "options": {"train": 12, "good": 4, "per_defect": 2, "size": 128},
        },
    },
    "extractors": {"lite0": {"resize": 128, "crop": 112, "embedding": "blocks.4"}},
    "experiments": {
        "SPADE": {"method": "spade", "extractor": "lite0", "k_pixel": 3},
        "PaDiM": {"method": "padim", "extractor": "lite0", "dimensions": 20},
        "PatchCore-10": {
            "method": "patchcore",
            "extractor": "lite0",
            "layers": ["blocks.2", "blocks.4"],
            "embedding": "concat",
            "coreset_ratio": 0.1,
        },
        "PatchCore-1": {
            "method": "patchcore",
            "extractor": "lite0",
            "layers": ["blocks.2", "blocks.4"],
            "embedding": "concat",
            "coreset_ratio": 0.01,
        },
    },
}


def command(folder: Path, *arguments: str, **changes) -> list[str]:
    """Return the call that runs the workflow with results in ``folder``."""
    config = SMALL | {"results": "results"} | changes
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return [
        *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), *arguments),
        *("--directory", str(folder), "--cores", "2", "--resources", "gpu=1"),
        *("--configfile", str(ROOT / "config/config.yaml"), str(file)),
    ]


def snakemake(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, **changes
) -> subprocess.CompletedProcess[str]:
    """Run the workflow with results in ``folder``."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    call = command(folder, *arguments, **changes)
    return subprocess.run(call, capture_output=True, text=True, env=variables)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workflow")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


pytestmark = pytest.mark.slow


def test_all_metrics_of_all_experiments(finished):
    metrics = evaluation.read([finished / "results/metrics.csv"])
    assert list(metrics) == list(evaluation.COLUMNS)
    assert metrics["value"].between(0, 1).all()
    measured = metrics.groupby(["dataset", "category", "experiment"])["metric"].apply(tuple)
    assert len(measured) == 8
    for (dataset, _, _), names in measured.items():
        assert names == (tuple(tables.TITLES) if dataset == "drawn" else tuple(tables.TITLES)[:3])


def test_every_value_has_an_interval_and_a_number_of_images(finished):
    metrics = evaluation.read([finished / "results/metrics.csv"])
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
    assert (pairs.groupby(["dataset", "metric"]).size() == 6).all()
    assert pairs["p"].dropna().between(0, 1).all()
    ranks = pd.read_csv(results / "ranks.csv")
    assert set(ranks["n_categories"]) == {1}
    assert (
        "No ranking over categories: 1 category" in (results / "tables/comparisons.md").read_text()
    )
    assert (results / "figures/critical_difference").is_dir()


def test_metrics_are_those_of_the_scores(finished):
    from sklearn.metrics import roc_auc_score

    scores = pd.read_csv(finished / "results/scores/drawn/wood/PaDiM/seed0/scores.csv")
    metrics = evaluation.read([finished / "results/metrics/drawn/wood/PaDiM/seed0.csv"])
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
        "download": 2, "index": 2, "decode": 2, "extract": 2, "fit": 6, "score": 8, "evaluate": 8,
        "pictures": 2, "figures": 2,
    }  # fmt: skip
    for rule, count in jobs.items():
        assert len(list((results / "logs" / rule).rglob("*.log"))) == count
        assert len(list((results / "benchmarks" / rule).rglob("*.tsv"))) == count
    runtime = pd.read_csv(results / "runtime.csv")
    assert runtime.groupby("stage").size().to_dict() == jobs
    assert (runtime[["seconds", "compute_seconds"]] >= 0).all(axis=None)
    assert runtime.loc[runtime["stage"] == "score", "model_mb"].gt(0).all()
    for metric in tables.TITLES:
        for suffix in ("md", "csv", "tex"):
            assert (results / f"tables/{metric}.{suffix}").stat().st_size > 0
    assert not [path for path in results.rglob("*") if ".tmp" in path.name]


def test_the_report_holds_every_category(finished):
    text = (finished / "results/report/index.html").read_text(encoding="utf-8")
    assert [name for name in ("mono", "wood") if f">{name}</option>" not in text] == []
    assert text.count('src="data:image/webp;base64,') == 2 * 4
    assert "elpv has no ground truth masks" in text
    assert "coreset_ratio: 0.01" in text  # the configuration, to run it again


def test_snakemakes_own_report_holds_every_product(finished):
    done = snakemake(finished, "--report", "report.zip")
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(finished / "report.zip") as archive:
        assert archive.testzip() is None
        held = {Path(name).name for name in archive.namelist()}
    assert {"report.html", "index.html", "metrics.csv", "wood.png", "curves.png"} <= held


def test_coresets_share_one_fit(finished):
    models = list((finished / "results/models/drawn/wood").iterdir())
    assert sorted(path.name.split("-")[0] for path in models) == ["padim", "patchcore", "spade"]
    (patchcore,) = (path for path in models if path.name.startswith("patchcore"))
    header = methods.read_header(patchcore / "seed0.safetensors")
    assert header["parameters"]["coreset_ratio"] == 0.1
    assert header["features"]["backbone"] == "tf_efficientnet_lite0"


def test_a_model_scores_images_as_the_workflow_does(finished):
    from indad import load_model, scores

    for experiment in SMALL["run"]["experiments"]:
        folder = finished / f"results/scores/drawn/wood/{experiment}/seed0"
        table = scores.read_table(folder / "scores.csv")
        model = load_model(folder, device="cpu")
        assert model.calibration.experiment == experiment
        images = [finished / "results/data/drawn/wood" / name for name in table["image"]]
        results = model.predict(images)
        np.testing.assert_allclose([each.score for each in results], table["score"], rtol=1e-4)
        maps = scores.read_maps(folder / "maps.h5")
        np.testing.assert_allclose([each.map for each in results], maps, atol=1e-4 * maps.max())


def test_a_second_run_does_nothing(finished):
    again = snakemake(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr


def planned(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Read the job counts of a dry run."""
    counts = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if (
            len(words) == 2
            and words[1].isdigit()
            and words[0].isidentifier()
            and words[0] != "total"
        ):
            counts[words[0]] = int(words[1])
    counts.pop("total", None)
    return counts


def test_only_what_a_change_touches_runs_again(finished):
    rescored = SMALL["experiments"] | {"SPADE": SMALL["experiments"]["SPADE"] | {"k_image": 2}}
    done = snakemake(finished, "--dry-run", experiments=rescored)
    assert planned(done) == {
        "score": 2, "evaluate": 2, "pictures": 2, "figures": 2, "tradeoff": 1, "runtime": 1,
        "tabulate": 1, "compare": 1, "count": 1, "html_report": 1, "all": 1,
    }  # fmt: skip
    refitted = SMALL["experiments"] | {"PaDiM": SMALL["experiments"]["PaDiM"] | {"dimensions": 9}}
    done = snakemake(finished, "--dry-run", experiments=refitted)
    assert planned(done) == {
        "fit": 2, "score": 2, "evaluate": 2, "pictures": 2, "figures": 2, "tradeoff": 1,
        "runtime": 1, "tabulate": 1, "compare": 1, "html_report": 1, "all": 1,
    }  # fmt: skip
    done = snakemake(finished, "--dry-run", uncertainty={"resamples": 0})
    assert planned(done) == {
        "evaluate": 8, "tabulate": 1, "compare": 1, "count": 1, "tradeoff": 1, "runtime": 1,
        "html_report": 1, "all": 1,
    }  # fmt: skip
    more = SMALL["experiments"] | {"SPADE-2": SMALL["experiments"]["SPADE"] | {"k_image": 2}}
    run = SMALL["run"] | {"experiments": [*SMALL["run"]["experiments"], "SPADE-2"]}
    done = snakemake(finished, "--dry-run", experiments=more, run=run)
    assert planned(done) == {
        "score": 2, "evaluate": 2, "pictures": 2, "figures": 2, "tradeoff": 1, "runtime": 1,
        "tabulate": 1, "compare": 1, "html_report": 1, "all": 1,
    }  # fmt: skip
    assert planned(snakemake(finished, "--dry-run", batch_size=3, device="auto")) == {}


def test_batches_threads_and_memory_change_no_figure(finished, tmp_path):
    shutil.copytree(finished / "results/data", tmp_path / "results/data")
    run = {"datasets": ["drawn"], "experiments": ["SPADE", "PaDiM", "PatchCore-10"]}
    done = snakemake(tmp_path, run=run, batch_size=3, threads=2, memory_mb=64)
    assert done.returncode == 0, done.stderr[-2000:]
    for experiment in run["experiments"]:
        name = f"results/scores/drawn/wood/{experiment}/seed0/scores.csv"
        one, other = (pd.read_csv(folder / name) for folder in (finished, tmp_path))
        np.testing.assert_allclose(other["score"], one["score"], rtol=1e-4)
    keys = ["dataset", "category", "experiment", "seed", "metric"]
    whole, part = (
        pd.read_csv(folder / "results/metrics.csv").set_index(keys)["value"]
        for folder in (finished, tmp_path)
    )
    np.testing.assert_allclose(part, whole.loc[part.index], rtol=1e-6, atol=1e-6)


def test_stages_without_torch_do_not_import_it(finished, tmp_path):
    blocked = tmp_path / "blocked/torch"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('torch is blocked')")
    fresh, late = tmp_path / "fresh", tmp_path / "late"
    fresh.mkdir()
    without = {"PYTHONPATH": str(blocked.parent)}
    done = snakemake(fresh, "--until", "decode", environment=without)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((fresh / "results/pixels").rglob("*.h5"))) == 2
    shutil.copytree(finished, late)
    for product in ("metrics", "metrics.csv", "tables", "pictures", "figures"):
        path = late / "results" / product
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = snakemake(late, environment=without)
    assert done.returncode == 0, done.stderr[-2000:]
    name = "results/metrics.csv"
    assert (late / name).read_text() == (finished / name).read_text()
    # That the block holds: a stage that needs torch fails by it.
    done = snakemake(fresh, "--until", "extract", environment=without)
    assert done.returncode != 0
    assert "torch is blocked" in done.stdout + done.stderr


def test_a_truncated_store_is_refused_and_recovered(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    run = tmp_path / "run"
    # Results that were computed from the whole store stay valid: take some away.
    for product in ("models", "scores", "metrics", "metrics.csv"):
        path = run / "results" / product
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    store = run / "results/features/drawn/wood/lite0.h5"
    store.write_bytes(store.read_bytes()[:-1000])
    broken = snakemake(run)
    assert broken.returncode != 0
    assert "lite0.h5" in broken.stdout + broken.stderr
    assert "delete it" in broken.stdout + broken.stderr
    store.unlink()
    mended = snakemake(run)
    assert mended.returncode == 0, mended.stderr[-2000:]
    with FeatureStore(store) as opened:
        assert len(opened.split("train")) == 12
    before, after = (folder / "results/metrics.csv" for folder in (finished, run))
    assert after.read_text() == before.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"devise": "cpu"},
            "devise: unknown key (did you mean device?); allowed are results, downloads",
        ),
        ({"device": "gpu"}, "device: 'gpu' is not allowed; choose one of auto, cpu, cuda"),
        # A path given over a source of the catalogue is what counts.
        ({"datasets": {"elpv": {"path": "/no/such"}}}, "/no/such: data folder not found"),
        ({"datasets": {"m": {"path": "/no/such"}}, "run": {"datasets": ["m"]}}, "/no/such: data f"),
        (
            {"extractors": {"lite0": {"weights": "/no/such/weights.pth"}}},
            "extractors.lite0.weights: weights '/no/such/weights.pth': there is no file",
        ),
        ({"experiments": {"PaDiM": {"dimension": 3}}}, "experiments.PaDiM.dimension: unknown"),
    ],
)
def test_configuration_errors_are_clear(tmp_path, changes, message):
    done = snakemake(tmp_path, "--dry-run", **changes)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_a_demanded_gpu_is_not_replaced(finished, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, so it is used")
    shutil.copytree(finished / "results/data", tmp_path / "results/data")
    done = snakemake(tmp_path, device="cuda")
    assert done.returncode != 0
    assert "demands 'device: cuda', but torch finds no usable CUDA" in done.stdout + done.stderr
    assert not list((tmp_path / "results/features").rglob("*.h5"))


def test_an_edited_image_is_noticed(finished, category, tmp_path):
    run = {"datasets": ["mine"], "experiments": ["SPADE"]}
    mine = {"mine": {"path": str(category.parent)}}
    extractors = {"lite0": {"resize": 40, "crop": 32, "embedding": "blocks.2"}}
    extractors["lite0"]["layers"] = ["blocks.1", "blocks.2"]
    changes = {"run": run, "datasets": mine, "extractors": extractors}
    changes["experiments"] = {"SPADE": SMALL["experiments"]["SPADE"]}
    assert snakemake(tmp_path, **changes).returncode == 0
    assert planned(snakemake(tmp_path, "--dry-run", **changes)) == {}
    shutil.copy(category / "test/good/000.png", category / "train/good/extra.png")
    assert planned(snakemake(tmp_path, "--dry-run", **changes))["extract"] == 1


def test_results_land_in_the_readme(finished):
    document = finished / "NOTES.md"
    document.write_text("<!-- begin mine -->\nstale figures\n<!-- end mine -->\n")
    done = snakemake(finished, "readme", readme={"file": str(document), "block": "mine"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "#### Image AUROC: elpv" in document.read_text()
    assert "stale" not in document.read_text()
    # The check looks again each time it is asked for.
    settings = {"readme": {"file": str(document), "block": "mine"}}
    assert snakemake(finished, "readme_check", **settings).returncode == 0
    document.write_text(document.read_text().replace("PaDiM", "PaDiN", 1))
    failed = snakemake(finished, "readme_check", **settings)
    assert failed.returncode != 0
    message = failed.stdout + failed.stderr
    assert "NOTES.md: block 'mine' is not what results/tables/readme.md has" in message
    assert "Traceback" not in message


def test_a_public_data_set_is_taken_from_a_mirror(tmp_path):
    original = tmp_path / "original"
    for category in ("tubes", "connector", "metal_plate"):
        make_mvtec(original, category)
    pack(original, tmp_path / "MPDD.zip", "MPDD/")
    datasets = {
        "mpdd": {
            "source": "mpdd",
            "categories": ["tubes", "connector"],
            "mirrors": ["/no/such/place", str(tmp_path / "MPDD.zip")],
        }
    }
    run = {"datasets": ["mpdd"], "experiments": ["PaDiM"]}
    done = snakemake(tmp_path, "--until", "index", datasets=datasets, run=run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "licence: MPDD" in done.stdout + done.stderr
    manifests = sorted((tmp_path / "results/manifests/mpdd").iterdir())
    assert [path.stem for path in manifests] == ["connector", "tubes"]
    receipt = json.loads((tmp_path / "results/data/mpdd/tubes.json").read_text())
    assert receipt["from"] == str(tmp_path / "MPDD.zip")
    # Found elsewhere, it is the same data: another mirror makes nothing again.
    datasets["mpdd"]["mirrors"].reverse()
    again = snakemake(tmp_path, "--until", "index", "--dry-run", datasets=datasets, run=run)
    assert planned(again) == {}
    datasets["mpdd"]["mirrors"] = ["http://127.0.0.1:9/MPDD.zip"]
    shutil.rmtree(tmp_path / "results")
    failed = snakemake(tmp_path, "--until", "index", datasets=datasets, run=run)
    assert failed.returncode != 0
    message = failed.stdout + failed.stderr
    assert "http://127.0.0.1:9/MPDD.zip: connection refused (2 attempts" in message
    assert "To place it by hand: get MPDD.zip from" in message


def test_mvtec_ad_is_used_where_it_lies_or_downloaded(tmp_path):
    """With the shipped configuration: data/mvtec_ad first, then the known addresses."""
    run = {"datasets": ["mvtec_ad"], "experiments": ["PaDiM"]}
    wanted = planned(snakemake(tmp_path, "--until", "index", "--dry-run", run=run))
    assert wanted == {"archive": 1, "download": 15, "index": 15}
    # No network: whoever answers at this address refuses.
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    failed = snakemake(tmp_path, "--until", "index", environment=offline, run=run)
    message = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert message.count("indad: mvtec_ad: MVTec AD could not be had; tried in this order:") == 1
    assert "data/mvtec_ad: there is no such file or folder" in message
    assert "tar.xz (unconfirmed): connection refused (2 attempts in a row)" in message
    assert "To place it by hand: get mvtec_anomaly_detection.tar.xz (sha256 cf4313b" in message
    assert "Traceback" not in message

    for category in load_config(None)["datasets"]["mvtec_ad"]["categories"]:
        make_mvtec(tmp_path / "data/mvtec_ad", category)
    done = snakemake(tmp_path, "--until", "index", run=run)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "results/manifests/mvtec_ad").iterdir())) == 15
    assert not (tmp_path / "results/data").exists()
    make_mvtec(tmp_path / "data/mvtec_ad", "bottle")  # other pixels
    assert planned(snakemake(tmp_path, "--until", "index", "--dry-run", run=run)) == {"index": 1}
