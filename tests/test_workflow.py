"""The real workflow on a small real data set: solar cells and textures, a pretrained network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT
from dev import job_resources
from indad import methods
from indad.cli.main import main as indad
from indad.core import checksum, provenance
from indad.data import manifest
from indad.evaluation import comparison, evaluate
from indad.pipeline.verify import verify
from indad.reporting import tables
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


#: The target of runs whose reports no test reads.
METRICS = "results/metrics.csv"


def command(folder: Path, *arguments: str, cores: int = 2, **changes) -> list[str]:
    """Return the call that runs the workflow with results in ``folder``."""
    config = SMALL | {"results": "results"} | changes
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return [
        *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), *arguments),
        *("--directory", str(folder), "--cores", str(cores), "--resources", "gpu=1"),
        *("--configfile", str(ROOT / "config/config.yaml"), str(file)),
    ]


def snakemake(
    folder: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    before: Sequence[str] = (),
    **changes,
) -> subprocess.CompletedProcess[str]:
    """Run the workflow with results in ``folder``; ``before`` comes first on the command line."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    call = [*before, *command(folder, *arguments, **changes)]
    return subprocess.run(call, capture_output=True, text=True, env=variables)


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    """Results to damage, and to mend again."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    return folder / "results"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workflow")
    done = snakemake(folder, "--benchmark-extended")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


pytestmark = pytest.mark.slow


def test_all_metrics_of_all_experiments(finished):
    metrics = evaluate.read([finished / "results/metrics.csv"])
    assert list(metrics) == list(evaluate.COLUMNS)
    assert metrics["value"].between(0, 1).all()
    measured = metrics.groupby(["dataset", "category", "experiment"])["metric"].apply(tuple)
    assert len(measured) == 8
    for (dataset, _, _), names in measured.items():
        assert names == (tuple(tables.TITLES) if dataset == "drawn" else tuple(tables.TITLES)[:3])


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
    assert (pairs.groupby(["dataset", "metric"]).size() == 6).all()
    assert pairs["p"].dropna().between(0, 1).all()
    ranks = pd.read_csv(results / "ranks.csv")
    assert set(ranks["n_categories"]) == {1}
    assert (
        "No ranking over categories: a test needs"
        in (results / "tables/comparisons.md").read_text()
    )
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
    # Four pictures of each category, and accuracy against time.
    assert text.count('src="data:image/webp;base64,') == 2 * 4 + 1
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
        maps = scores.read(folder / "scores.csv", folder / "maps.h5").maps
        np.testing.assert_allclose([each.map for each in results], maps, atol=1e-4 * maps.max())


def test_no_job_takes_more_memory_than_it_asks_for(finished):
    jobs = job_resources.read_jobs(finished / "results")
    assert len(jobs) == 32  # all but those that run on the head
    for job in jobs.itertuples():
        assert job.measured_mb < job.asked_mb < 4 * job.measured_mb, job


def test_a_second_run_does_nothing(finished, tmp_path):
    """Nor one from another folder, without .snakemake, or on a copy with other times of files."""
    again = snakemake(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr
    assert planned(snakemake(tmp_path, "--dry-run", results=str(finished / "results"))) == {}
    shutil.copytree(finished / "results", tmp_path / "results")
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    for time, path in enumerate(sorted(files, reverse=True)):
        os.utime(path, (1_000_000_000 + time, 1_000_000_000 + time))
    assert planned(snakemake(tmp_path, "--dry-run")) == {}


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


#: Jobs that run again whenever metrics of an experiment change; `count` reads the first's.
SUMMARIES = dict.fromkeys(
    ("aggregate", "compare", "runtime", "tradeoff", "html_report", "all"), 1
)  # fmt: skip
PICTURES = {"pictures": 2, "figures": 2}


def changed(experiment: str, **parameters) -> dict:
    """Return the experiments with other parameters of one."""
    return SMALL["experiments"] | {experiment: SMALL["experiments"][experiment] | parameters}


def test_only_what_a_change_touches_runs_again(finished):
    def plan(**changes) -> dict[str, int]:
        # Batch size and device change nothing.
        return planned(snakemake(finished, "--dry-run", batch_size=3, device="auto", **changes))

    refitted = plan(experiments=changed("PaDiM", dimensions=9))
    assert refitted == {"fit": 2, "score": 2, "evaluate": 2} | PICTURES | SUMMARIES
    assert plan(tf32=True) == (
        {"extract": 2, "fit": 6, "score": 8, "evaluate": 8, "count": 1} | PICTURES | SUMMARIES
    )
    grouped = SMALL["datasets"] | {
        "drawn": SMALL["datasets"]["drawn"] | {"groups": {"g": ["wood"]}}
    }
    tables = dict.fromkeys(("aggregate", "compare", "tradeoff", "html_report", "all"), 1)
    assert plan(datasets=grouped) == tables
    # The first experiment scores otherwise, and there is one more.
    more = changed("SPADE", k_image=2) | {"SPADE-3": SMALL["experiments"]["SPADE"] | {"k_image": 1}}
    run = SMALL["run"] | {"experiments": [*SMALL["run"]["experiments"], "SPADE-3"]}
    assert plan(experiments=more, run=run) == (
        {"score": 4, "evaluate": 4, "count": 1} | PICTURES | SUMMARIES
    )
    assert plan(uncertainty={"resamples": 0}) == {"evaluate": 8, "count": 1} | SUMMARIES


def test_batches_threads_and_memory_change_no_figure(finished, tmp_path):
    shutil.copytree(finished / "results/data", tmp_path / "results/data")
    run = {"datasets": ["drawn"], "experiments": ["SPADE", "PaDiM", "PatchCore-10"]}
    done = snakemake(tmp_path, METRICS, run=run, batch_size=3, threads=2, memory_mb=64)
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


def test_other_cores_threads_and_order_give_the_same_bytes(finished, tmp_path):
    """Byte for byte: more jobs at once, more threads in each, another job first."""
    shutil.copytree(finished / "results/data", tmp_path / "results/data")
    run = {"datasets": ["drawn"], "experiments": SMALL["run"]["experiments"][::-1]}
    done = snakemake(tmp_path, METRICS, cores=9, threads=8, run=run)
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = finished / "results", tmp_path / "results"
    kinds = ("manifests", "pixels", "features", "models", "scores", "metrics")
    files = [path.relative_to(other) for k in kinds for path in (other / k).rglob("*.*")]
    assert len(files) == 3 + 3 + 4 * 3 + 4 * 2  # maps, calibrations and resamples among them
    for path in files:
        assert (other / path).read_bytes() == (one / path).read_bytes(), path


def test_the_run_says_what_it_comes_from(finished):
    found = provenance.read(finished / "results/provenance.json")
    assert len(found["runs"]) == 8
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


@pytest.mark.parametrize(
    "name", ["metrics/drawn/wood/PaDiM/seed0.csv", "scores/drawn/wood/PaDiM/seed0/scores.csv"]
)
def test_an_edited_result_never_reaches_the_tables(finished, tmp_path, name):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "results" / name
    path.write_text(path.read_text().replace("7", "6"))
    done = snakemake(tmp_path, "--until", "aggregate")
    assert done.returncode != 0
    assert f"{name}: not the " in done.stdout + done.stderr
    assert "run again" in done.stdout + done.stderr


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
    for product in ("metrics/drawn", "metrics.csv", "tables", "pictures/drawn", "figures/drawn"):
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # As it is parsed, and as an input is looked up; `test_config` has all messages.
        ({"device": "gpu"}, "device: 'gpu' is not allowed; choose one of auto, cpu, cuda"),
        (
            {"extractors": {"lite0": {"weights": "/no/such/weights.pth"}}},
            "extractors.lite0.weights: weights '/no/such/weights.pth': there is no file",
        ),
    ],
)
def test_configuration_errors_are_clear(tmp_path, changes, message):
    done = snakemake(tmp_path, "--dry-run", **changes)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


HOLD = """if True:
    import sys
    from pathlib import Path
    sys.path.insert(0, "SCRIPTS")
    from indad.pipeline import lock
    lock.claim(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.read()
""".replace("SCRIPTS", str(ROOT / "scripts"))


def test_a_results_folder_has_one_run_at_a_time(finished, tmp_path):
    """Snakemake's own lock is on the working directory; another one shares these results."""
    results = str(finished / "results")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    holder = [sys.executable, "-c", HOLD, results]
    run = ("--forcerun", "aggregate")
    with subprocess.Popen(
        holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=first, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        refused = snakemake(second, *run, results=results)
        looked = snakemake(second, *run, "--dry-run", results=results)
        other.kill()  # as a lost head node would end
    assert refused.returncode != 0
    message = refused.stdout + refused.stderr
    assert f"indad: results: another run uses the folder {results}" in message
    assert f'"directory": "{first}"' in message
    assert "Traceback" not in message
    assert planned(looked)["aggregate"] == 1
    again = snakemake(second, *run, results=results)
    assert again.returncode == 0, again.stderr[-2000:]


def test_a_demanded_gpu_is_not_replaced(finished, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, so it is used")
    shutil.copytree(finished / "results/data", tmp_path / "results/data")
    done = snakemake(tmp_path, device="cuda")
    assert done.returncode != 0
    assert "has 'device: cuda', but torch finds no usable CUDA" in done.stdout + done.stderr
    assert not list((tmp_path / "results/features").rglob("*.h5"))


def test_changed_data_are_noticed_from_any_folder(category, tmp_path):
    """Photos replaced or read differently: the index, and what follows from it."""
    changes = {
        "results": str(tmp_path / "results"),
        "run": {"datasets": ["mine"], "experiments": ["SPADE"]},
        "datasets": {"mine": {"path": str(category.parent)}},
        "extractors": {
            "lite0": {
                "resize": 40, "crop": 32, "embedding": "blocks.2",
                "layers": ["blocks.1", "blocks.2"],
            }
        },
        "experiments": {"SPADE": SMALL["experiments"]["SPADE"]},
    }  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    target = str(tmp_path / "results/metrics.csv")
    assert snakemake(first, target, **changes).returncode == 0
    everything = ("index", "decode", "extract", "fit", "score", "evaluate", "aggregate")

    def plan(folder: Path, **more) -> dict[str, int]:
        return planned(snakemake(folder, target, "--dry-run", **changes | more))

    read_as = {"mine": {"path": str(category.parent), "good": ["good", "dirt"]}}
    assert plan(second, datasets=read_as) == dict.fromkeys(everything, 1)
    assert plan(first) == {}  # the dry run left no trace
    photo = category / "train/good/000.png"
    photo.write_bytes((category / "train/good/001.png").read_bytes())
    assert plan(second) == dict.fromkeys(everything, 1)
    assert snakemake(second, target, **changes).returncode == 0
    # The first folder remembers other parameters and checksums, the results do not.
    assert plan(first) == {}


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
    assert "To get it by hand: download MPDD.zip from" in message


def test_mvtec_ad_is_used_where_it_lies_or_downloaded(tmp_path):
    """With the shipped configuration: data/mvtec_ad first, then the known addresses."""
    run = {"datasets": ["mvtec_ad"], "experiments": ["PaDiM"]}
    wanted = planned(snakemake(tmp_path, "--until", "index", "--dry-run", run=run))
    assert wanted == {"archive": 1, "download": 15, "index": 15}
    # No network: whoever answers at this address refuses.
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    few = {"mvtec_ad": {"categories": ["bottle", "cable"]}}
    index = ("--until", "index")
    failed = snakemake(tmp_path, *index, environment=offline, run=run, datasets=few)
    message = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert message.count("indad: mvtec_ad: could not get MVTec AD; tried in this order:") == 1
    assert "data/mvtec_ad: no such file or folder" in message
    assert "tar.xz (unconfirmed): connection refused (2 attempts in a row)" in message
    assert "To get it by hand: download mvtec_anomaly_detection.tar.xz (sha256 cf4313b" in message
    assert "Traceback" not in message

    for category in few["mvtec_ad"]["categories"]:
        make_mvtec(tmp_path / "data/mvtec_ad", category)
    done = snakemake(tmp_path, *index, run=run, datasets=few)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "results/manifests/mvtec_ad").iterdir())) == 2
    assert not (tmp_path / "results/data").exists()
    make_mvtec(tmp_path / "data/mvtec_ad", "bottle")  # other pixels
    again = snakemake(tmp_path, *index, "--dry-run", run=run, datasets=few)
    assert planned(again) == {"index": 1}


def test_a_folder_of_ones_own_by_a_list_and_with_one_class(category, tmp_path):
    """Photos that stay where they are, some without a mask, and a category of good ones alone."""
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
    changes = {
        "datasets": {"mine": {"path": str(root)} | options},
        "run": {"datasets": ["mine"], "experiments": ["PaDiM"]},
        "extractors": {"lite0": {"resize": [64, 64], "crop": None, "embedding": "blocks.4"}},
        "experiments": {"PaDiM": {"method": "padim", "extractor": "lite0", "dimensions": 3}},
    }
    done = snakemake(tmp_path, **changes)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    metrics = evaluate.read([tmp_path / "results/metrics.csv"])
    value = metrics.set_index(["category", "metric"])["value"]
    assert value["widget"].notna().sum() == 7
    assert value["gadget"].isna().all()
    text = (tmp_path / "results/tables/image_auroc.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| gadget"))
    assert row.split("|")[2].strip() == "-"
    for table in ("results.md", "summary.md"):
        text = (tmp_path / "results/tables" / table).read_text()
        assert "- mine, widget: 1 of 3 defective images have no mask: pixel-level" in text
        assert "- mine, gadget: all test images are good: image-level figures are not" in text
    assert verify(tmp_path / "results").problems == []
    log = (tmp_path / "results/logs/index/mine/widget.log").read_text()
    assert "holdout: 2 of 5 good training images are held out for the test" in log
    assert "1 of 3 images of 'flaw' have no mask" in log

    # Another line of the list is another manifest, and what follows from it.
    (category / "split.csv").write_text("image,split,defect,mask\n" + "".join(rows[1:]))
    again = planned(snakemake(tmp_path, "--dry-run", **changes))
    assert again["index"] == 1
    assert again["score"] == 1
