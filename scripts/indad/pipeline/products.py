"""The paths of the products of a run, as patterns with Snakemake's wildcards.

The methods that take ``wildcards`` are input functions of rules.
"""

from typing import Any

from indad.pipeline.config import Config, Experiment

CATEGORY = "{dataset}/{category}"
#: A category, an experiment and a seed.
RUN = f"{CATEGORY}/{{experiment}}/seed{{seed}}"


class Products:
    """The products that the rules exchange."""

    def __init__(self, config: Config) -> None:
        self.config, self.results = config, str(config.results)

    def pixels(self, extractor: str, dataset: str) -> str:
        """Return the decoded images of a data set that an extractor gets."""
        geometry = self.config.extractor(extractor, dataset).geometry.name
        return f"{self.results}/pixels/{CATEGORY}/{geometry}.h5"

    def shown_pixels(self, wildcards: Any) -> list[str]:
        """Return the decoded images of each experiment that pictures and figures show."""
        shown = self.config.shown.values()
        return [self.pixels(each.extractor, wildcards.dataset) for each in shown]

    def features(self, extractor: str) -> str:
        """Return the feature store of an extractor."""
        return f"{self.results}/features/{CATEGORY}/{extractor}.h5"

    def model(self, experiment: Experiment) -> str:
        """Return the model that an experiment scores with."""
        return f"{self.results}/models/{CATEGORY}/{experiment.model}/seed{{seed}}.safetensors"

    def receipt(self, wildcards: Any) -> str | list[str]:
        """Return the receipt of a category that the workflow makes; [] for a folder of the user."""
        made = self.config.datasets[wildcards.dataset].used_in_place is None
        return f"{self.results}/data/{CATEGORY}.json" if made else []

    def weights(self, wildcards: Any) -> str | list[str]:
        """Return the weights if they are a file: other weights, other features."""
        path = self.config.extractors[wildcards.extractor].weights_file(self.config.results)
        return [] if path is None else str(path)

    def fitted_to(self, wildcards: Any) -> dict[str, Any]:
        """Return what a model is fitted to; for an ensemble also the models of its members."""
        model = self.config.models[wildcards.model]
        if not model.members:
            folder = f"{self.results}/coresets/{CATEGORY}/{{model}}/seed{{seed}}"
            jobs = self.config.coreset_jobs(model)
            coresets = {"coresets": [f"{folder}/{job}.safetensors" for job in jobs]} if jobs else {}
            return {"features": self.features(model.extractor)} | coresets
        return {
            "features": [self.features(each.extractor) for each in model.members],
            "members": [self.model(each) for each in model.members],
        }

    def scored_from(self, wildcards: Any) -> dict[str, Any]:
        """Return what scores are computed from: features, or the scores of members."""
        experiment = self.config.scored[wildcards.experiment]
        if not experiment.members:
            return {"features": self.features(experiment.extractor)}
        folders = [
            f"{self.results}/scores/{CATEGORY}/{each.name}/seed{{seed}}"
            for each in experiment.members
        ]
        return {
            "tables": [f"{folder}/scores.csv" for folder in folders],
            "maps": [f"{folder}/maps.h5" for folder in folders],
            "manifest": f"{self.results}/manifests/{CATEGORY}.csv",
            "pixels": self.pixels(experiment.extractor, wildcards.dataset),
        }
