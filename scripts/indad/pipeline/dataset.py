"""A data set of the configuration: where its images are, or how they are made."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from indad.core.errors import ConfigError, DataError
from indad.core.names import name_problem, same_file_problem
from indad.data.folder_layout import GOOD, Reading
from indad.data.public import catalogue, sources
from indad.data.public.suggest import find_categories
from indad.reporting import published

#: Options of a data set that is a folder.
FOLDER_OPTIONS = {
    "train", "test", "good", "masks", "mask_prefix", "mask_suffix", "list", "unlisted",
}  # fmt: skip


def require_known(key: str, value: str, allowed: Collection[str], what: str) -> None:
    """Check a name that the configuration refers to.

    Raises:
        ConfigError: it is not one of ``allowed``; ``key`` is the configuration key to blame.
    """
    if value not in allowed:
        raise ConfigError(
            f"{key}: {value!r} is unknown; {what} known here: {', '.join(allowed) or 'none'}"
        )


@dataclass(frozen=True)
class Dataset:
    """A data set: a folder of images, or a source from which one is made.

    Attributes:
        name: as in the configuration.
        folder: the configured ``path``, None for a source.
        source: name of the source, None for a folder.
        asked: the configured categories; empty for all of them.
        options: the configured options of the source.
        mirrors: the user's own places of a public data set.
        reading: how category folders are read.
        published: the data set of the published results that this one is, if any.
        groups: groups of categories whose averages the tables show.
        metrics: metrics that the tables show besides the usual ones.
        resize: ``[height, width]`` to which extractors without a size of their own resize the whole
            images; None for the usual resize and crop.
        made_in: the folder in which the categories of a source are made.
        archives: the folder in which the archives of a source are kept.
    """

    name: str
    folder: Path | None
    source: str | None
    asked: tuple[str, ...]
    options: Mapping[str, Any]
    mirrors: tuple[catalogue.Place, ...]
    reading: Reading
    published: str | None
    groups: Mapping[str, Sequence[str]]
    metrics: Sequence[str]
    resize: list[int] | None
    made_in: Path
    archives: Path

    @classmethod
    def from_config(
        cls, name: str, settings: Mapping[str, Any], results: Path, downloads: Path
    ) -> Self:
        """Check and resolve the settings of one data set.

        Raises:
            ConfigError: an option has a value that is not allowed, or does not apply here.
        """
        key, known = f"datasets.{name}", catalogue.load()
        source = None if "path" in settings else settings["source"]
        mirrors = (settings.get("mirrors") or []) if source else []
        if source:
            if misplaced := FOLDER_OPTIONS & set(settings):
                raise ConfigError(
                    f"{key}.{min(misplaced)}: only for a data set with a 'path'; a source always "
                    "has the layout of MVTec AD"
                )
            sources.get(source, f"{key}.source")
            if source in known:
                settings = settings | {"mask_suffix": known[source].layout.mask_suffix}
            elif mirrors:
                raise ConfigError(
                    f"{key}.mirrors: only for a source that is downloaded: {', '.join(known)}"
                )
        # A folder may keep the source that an override file gives a path for.
        original = settings.get("source", "")
        published_as = settings.get("published")
        if published_as is not None:
            require_known(f"{key}.published", published_as, published.datasets(), "data sets")
        elif original in published.datasets():
            published_as = original
        public = known.get(published_as or "") or known.get(original)
        groups, metrics = settings.get("groups"), settings.get("metrics")
        if groups is None:
            groups = public.groups if public else {}
        if metrics is None:
            metrics = public.metrics if public else ()
        resize = settings.get("resize", public.resize if public else None)
        return cls(
            name=name,
            folder=None if source else Path(settings["path"]),
            source=source,
            asked=tuple(settings.get("categories") or ()),
            options=settings.get("options") or {},
            mirrors=tuple(catalogue.Place.of(each, mine=True) for each in mirrors),
            reading=Reading.from_config(settings, key),
            published=published_as,
            groups={group: list(categories) for group, categories in groups.items()},
            metrics=tuple(metrics),
            resize=None if resize is None else list(resize),
            made_in=results / "data" / name,
            archives=downloads / original,
        )

    @cached_property
    def categories(self) -> list[str]:
        """The categories to run.

        Raises:
            ConfigError: a configured category does not exist.
            DataError: the data folder is missing or has no category, or the name of a category
                cannot be used.
        """
        if self.folder is None:
            assert self.source is not None
            known, what = list(sources.get(self.source).categories), "categories"
        else:
            known = find_categories(self.folder, self.reading)
            what = f"categories of {self.folder}"
        for category in self.asked:
            require_known(f"datasets.{self.name}.categories", category, known, what)
        chosen = list(self.asked or known)
        where = self.folder or f"datasets.{self.name}"
        for problem in filter(None, map(name_problem, chosen)):
            raise DataError(f"{where}: the category {problem}")
        if problem := same_file_problem(chosen, self.made_in.parents[1]):
            raise DataError(f"{where}: the categories {problem}")
        return chosen

    @property
    def entry(self) -> catalogue.Entry | None:
        """The public data set that this one is downloaded from, if any."""
        return catalogue.load().get(self.source or "")

    @cached_property
    def used_in_place(self) -> Path | None:
        """The existing folder whose images are used; None if the images are made.

        That is the configured path, or the first mirror if it is a local folder in MVTec AD layout
        that has all categories.
        """
        if self.folder is not None:
            return self.folder
        first = self.mirrors[0].path if self.mirrors else None
        if first is None or self.entry is None or not self.entry.layout.native:
            return None
        complete = all((first / name / "train" / GOOD).is_dir() for name in self.categories)
        return first if complete else None

    @property
    def request(self) -> dict[str, Any] | None:
        """Source and all its options, for images that are made; None for a folder.

        Raises:
            ConfigError: the source has no such option, or the value is not allowed.
        """
        if self.used_in_place is not None:
            return None
        assert self.source is not None
        options = sources.check_options(self.source, self.options, f"datasets.{self.name}.options")
        request = {"source": self.source, "options": options}
        if self.entry is not None and self.entry.layout.version > 1:
            request["layout"] = self.entry.layout.version
        return request

    def category_folder(self, category: str) -> Path:
        """Return the folder of a category's images."""
        return (self.used_in_place or self.made_in) / category
