"""The content of a results folder: data, features, models, experiments and their metrics."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from indad import methods
from indad.core.errors import StoreError
from indad.evaluation import calibration


@dataclass
class Features:
    """A feature store: its extractor, path and bytes."""

    extractor: str
    path: str
    bytes: int


@dataclass
class Experiment:
    """A scored experiment.

    Attributes:
        name: as in the configuration.
        seed: its seed.
        scores: the folder of its scores, an argument for ``run.py predict``.
        parameters: those of scoring.
        metrics: name to value in [0, 1]; empty where it was not evaluated.
    """

    name: str
    seed: int
    scores: str
    parameters: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Model:
    """A fitted model with the experiments that score with it.

    Attributes:
        path: the model file.
        method: its method.
        backbone: timm's name.
        parameters: those of the fit that are set, without the seed.
        seed: its seed.
        bytes: size of the file.
        problem: why it cannot be read, or "".
        experiments: those that score with it, by name.
    """

    path: str
    method: str = ""
    backbone: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    seed: int = 0
    bytes: int = 0
    problem: str = ""
    experiments: list[Experiment] = field(default_factory=list)


@dataclass
class Category:
    """The products of one category.

    Attributes:
        dataset: its data set.
        category: its name.
        train: training images; None where there is no manifest.
        good: good test images.
        defective: defective test images.
        features: its feature stores.
        models: its fitted models.
        others: experiments without a model file.
    """

    dataset: str
    category: str
    train: int | None = None
    good: int | None = None
    defective: int | None = None
    features: list[Features] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    others: list[Experiment] = field(default_factory=list)


def survey(results: Path) -> list[Category]:
    """List the categories of a results folder; the list is empty where nothing was computed.

    A model that cannot be read has a ``problem``; everything else is listed.
    """
    found: dict[tuple[str, str], Category] = {}

    def at(path: Path, folder: str) -> Category:
        dataset, category = path.relative_to(results / folder).parts[:2]
        key = dataset, category.removesuffix(".csv")
        return found.setdefault(key, Category(*key))

    for path in sorted(results.glob("manifests/*/*.csv")):
        _count(path, at(path, "manifests"))
    for path in sorted(results.glob("features/*/*/*.h5")):
        if not path.name.startswith("."):
            one = Features(path.stem, str(path), path.stat().st_size)
            at(path, "features").features.append(one)
    models: dict[Path, Model] = {}
    for path in sorted(results.glob("models/*/*/*/seed*.safetensors")):
        models[path.resolve()] = _model(path)
        at(path, "models").models.append(models[path.resolve()])
    for path in sorted(results.glob("scores/*/*/*/seed*/scores.csv")):
        dataset, category, name, seed = path.parts[-5:-1]
        experiment = Experiment(name, int(seed.removeprefix("seed")), str(path.parent))
        metrics = results / "metrics" / dataset / category / name / f"{seed}.csv"
        experiment.metrics = _metrics(metrics)
        category_of = at(path, "scores")
        try:
            made = calibration.read(path.with_name(calibration.NAME))
        except StoreError:
            category_of.others.append(experiment)
            continue
        experiment.parameters = made.parameters
        model = models.get((path.parent / made.model).resolve())
        (category_of.others if model is None else model.experiments).append(experiment)
    return [found[key] for key in sorted(found)]


def _count(path: Path, category: Category) -> None:
    with path.open(encoding="utf-8", newline="") as text:
        rows = csv.DictReader(text)
        kinds = Counter((row.get("split") == "train", row.get("label") == "0") for row in rows)
    category.train = kinds[True, True] + kinds[True, False]
    category.good, category.defective = kinds[False, True], kinds[False, False]


def _model(path: Path) -> Model:
    model = Model(str(path), bytes=path.stat().st_size)
    try:
        header = methods.read_header(path, verify=False)
        parameters = dict(header["parameters"])
        model.method, model.seed = header["method"], parameters.pop("seed")
        model.backbone = header["features"].get("backbone", "")
        model.parameters = {k: v for k, v in parameters.items() if v is not None}
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        model.problem = str(error)
    return model


def _metrics(path: Path) -> dict[str, float]:
    try:
        with path.open(encoding="utf-8", newline="") as text:
            return {row["metric"]: float(row["value"]) for row in csv.DictReader(text)}
    except (OSError, KeyError, ValueError, TypeError):
        return {}
