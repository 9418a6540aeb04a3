"""What tables, figures and the report state about a configuration besides its results."""

from typing import Any

from indad.features.weights import RANDOM
from indad.pipeline.config import Config, Experiment
from indad.pipeline.extractor import USUAL_SIZE, Extractor
from indad.reporting import published


def layout(config: Config) -> dict[str, Any]:
    """Return the arguments of ``tables.Layout``.

    A published result is shown next to an experiment only on its data set and with its backbone.
    """
    compared = {name: each.published for name, each in config.datasets.items() if each.published}
    notes, same = experiment_notes(config), {}
    for name, each in config.shown.items():
        extractor = config.extractors[each.extractor]
        if each.published and (difference := _difference(extractor, each.published)):
            if compared:
                notes[name] = "; ".join(filter(None, [notes.get(name), difference]))
        elif each.published:
            same[name] = each.published
    return {
        "experiments": list(config.shown),
        "groups": {name: dict(each.groups) for name, each in config.datasets.items()},
        "compared": compared,
        "published": same,
        "notes": notes,
        "evaluated_at": config.written["evaluate_at"],
        "metrics": {name: list(each.metrics) for name, each in config.datasets.items()},
    }


def _difference(extractor: Extractor, result: str) -> str:
    """Explain why an extractor cannot reproduce a published result; "" if it may."""
    theirs, ours = published.backbone(result), extractor.backbone.partition(".")[0]
    if ours != theirs:
        return f"not compared with the published {result}, which is with {theirs}, not {ours}"
    if extractor.weights == RANDOM:
        return f"not compared with the published {result}, whose weights were pretrained"
    return ""


def experiment_notes(config: Config) -> dict[str, str]:
    """Return what a reader of the tables must know about experiments."""
    notes = {}
    for name, each in config.shown.items():
        remarks = []
        if any(config.extractors[used].weights == RANDOM for used in each.extractors):
            remarks.append("random backbone weights, not pretrained")
        if each.parameters.get("scaling") == "test":
            remarks.append(
                "transductive, the members' scores are scaled by their range over all test images"
            )
        if remarks:
            notes[name] = "; ".join(remarks)
    return notes


def member_jobs(experiment: Experiment) -> list[list[str]]:
    """Return the name, the model and the extractor of each member of an ensemble."""
    return [[each.name, each.model, each.extractor] for each in experiment.members]


def experiment_summaries(config: Config) -> dict[str, dict[str, Any]]:
    """Return what the report shows of each experiment."""
    return {
        name: {
            "method": each.method,
            "backbone": ", ".join(config.extractors[used].backbone for used in each.extractors),
            "parameters": dict(each.parameters),
        }
        for name, each in config.shown.items()
    }


def size_notes(config: Config) -> list[str]:
    """Say for which extractors a data set decides the size of the images."""
    lines = []
    for name, dataset in config.datasets.items():
        used = [each.name for each in config.used_extractors.values() if each.on(dataset) != each]
        if used and dataset.resize:
            height, width = dataset.resize
            lines.append(
                f"{name}: whole images are resized to {height} x {width} for {', '.join(used)}, as "
                "set for this data set; 'resize' or 'crop' of an extractor replaces it"
            )
    return lines


def _size(config: Config, extractor: str) -> dict[str, Any]:
    """Return resize and crop of an extractor, if they are the same on all data sets."""
    used = [config.extractor(extractor, dataset).settings for dataset in config.datasets]
    sizes = [{key: each[key] for key in USUAL_SIZE} for each in used]
    return sizes[0] if all(each == sizes[0] for each in sizes) else {}


def deciding_part(config: Config) -> dict[str, Any]:
    """Return the part of the configuration that decides the results: enough to repeat the run."""
    written = config.written
    return {
        "run": dict(written["run"]),
        "datasets": {name: written["datasets"][name] for name in config.datasets},
        "extractors": {
            name: written["extractors"][name] | _size(config, name)
            for name in config.used_extractors
        },
        "experiments": {
            each.configured: written["experiments"][each.configured]
            for each in config.scored.values()
        },
        "uncertainty": written["uncertainty"],
        "evaluate_at": written["evaluate_at"],
    }
