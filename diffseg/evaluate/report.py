"""How a run ended: tables of scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from ..datasets import Dataset
from ..metrics import POLICIES
from .counting import DATASET, NAMED, Key
from .tables import Statistic, class_table, draw, interval, label, select, size_statistics, statistics

_PER_IMAGE = ["image", "method", "setting", "segments", "accuracy", "miou", "boundary"]


@dataclass(frozen=True)
class Report:
    """Scores of methods on a data set.

    Attributes:
        rows: one per image, method and setting, see `counting.schema`.
        data: what was scored on.
        keys: the methods and settings that were asked for.
        protocols: those that were asked for. Segments with names are scored by their names, without any of them.
        unusable: name of an image -> why it could not be used. The scores are without these; another run tries them
            again.
        models: fingerprints by role.
        shared: method -> whether its segment ids mean the same in all images.
    """

    rows: pd.DataFrame = field(repr=False)
    data: Dataset = field(repr=False)
    keys: Sequence[Key]
    protocols: Sequence[str]
    unusable: Mapping[str, str]
    models: Mapping[str, str]
    shared: Mapping[str, bool] = field(default_factory=dict, repr=False)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per method, setting and protocol: images, accuracy, miou and boundary, each with its interval.

        miou and boundary are means over classes; `policies` says over which.
        """
        rows = []
        for method, setting, protocol, chosen in self._each():
            found = statistics(chosen, protocol, self.shared.get(method, False))
            columns = {name: value for each in found for name, value in _with_interval(each, found[each], chosen)}
            rows.append({**_named(method, setting, protocol), "images": len(chosen), **columns})
        names = [f"{name}{end}" for name in ("accuracy", "miou", "boundary") for end in ("", "_low", "_high")]
        return _sorted(rows, ["images", *names])

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One row per method, setting, protocol and class: images, share, recall, iou, boundary."""
        tables = []
        for method, setting, protocol, chosen in self._each(of_classes=True):
            table = class_table(chosen, protocol, self.data.classes)
            tables.append(table.assign(**_named(method, setting, protocol)))
        columns = ["method", "setting", "protocol", "class", "images", "share", "recall", "iou", "boundary"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)

    @cached_property
    def sizes(self) -> pd.DataFrame:
        """One row per method, setting, protocol and size of things: their mean IoU and its interval."""
        rows = []
        for method, setting, protocol, chosen in self._each(of_classes=True):
            for size, statistic in size_statistics(chosen, protocol).items():
                score = dict(_with_interval("miou", statistic, chosen))
                rows.append({**_named(method, setting, protocol), "size": size, **score})
        return pd.DataFrame(rows, columns=["method", "setting", "protocol", "size", "miou", "miou_low", "miou_high"])

    @property
    def images(self) -> pd.DataFrame:
        """One row per image, method and setting, each image scored by itself (protocol "clean", or by names)."""
        return self.rows[_PER_IMAGE]

    @property
    def policies(self) -> dict[str, str]:
        """What each protocol of these scores does with classes that an image does not show."""
        return {protocol: POLICIES[protocol] for protocol in dict.fromkeys(name for _, _, name, _ in self._each())}

    def compare(self, first: str, second: str) -> pd.DataFrame:
        """How much better the first of two methods is than the second, on the images that both have.

        Args:
            first, second: as on the command line: "diffseg", or "diffseg=0.3" if it has several settings.

        Returns:
            One row per protocol and score: difference, low and high, the ends of its interval over the same draws of
            images; and `clear`, whether zero lies outside.

        Raises:
            ValueError: if one of them was not run, or is not one method with one setting, or they share no protocol.
        """
        keys = [self._key(name) for name in (first, second)]
        rows = []
        for protocol in (*self.protocols, NAMED):
            try:
                pair = self._pair(keys, protocol)
            except KeyError:
                continue
            weights = draw(pair[0][1])
            for score in pair[0][0].keys() & pair[1][0].keys():
                one, other = (found[score] for found, _ in pair)
                ones = np.ones((1, pair[0][1]), int)
                low, high = interval(one(weights) - other(weights))
                difference = float((one(ones) - other(ones))[0])
                rows.append((protocol, score, pair[0][1], difference, low, high, low > 0 or high < 0))
        if not rows:
            raise ValueError(f"{first} and {second} have no protocol in common: names are scored by themselves.")
        columns = ["protocol", "score", "images", "difference", "low", "high", "clear"]
        return pd.DataFrame(sorted(rows), columns=columns)

    def _pair(self, keys: Sequence[Key], protocol: str) -> list[tuple[dict[str, Statistic], int]]:
        """The statistics of two methods on the images that both have."""
        chosen = [select(self.rows, key) for key in keys]
        both = set(chosen[0].image) & set(chosen[1].image)
        if not both:
            raise KeyError(protocol)
        chosen = [rows[rows.image.isin(both)].sort_values("image", ignore_index=True) for rows in chosen]
        return [
            (statistics(rows, protocol, self.shared.get(method, False)), len(rows))
            for rows, (method, _) in zip(chosen, keys)
        ]

    def _key(self, name: str) -> Key:
        matching = [key for key in self.keys if name in (key[0], label(*key))]
        if len(matching) != 1:
            known = ", ".join(label(*key) for key in self.keys)
            raise ValueError(f"{name!r} must name one method with one setting, of {known}.")
        return matching[0]

    def _each(self, of_classes: bool = False) -> Iterator[tuple[str, float | None, str, pd.DataFrame]]:
        """Method, setting, protocol and rows of everything that can be scored."""
        for key in self.keys:
            chosen = select(self.rows, key)
            if not len(chosen):
                continue
            named = chosen.hits_named.notna().all()
            for protocol in [NAMED] if named else self.protocols:
                if not (of_classes and protocol == DATASET):
                    yield *key, protocol, chosen


def _with_interval(name: str, statistic: Statistic, rows: pd.DataFrame) -> list[tuple[str, float]]:
    value = float(statistic(np.ones((1, len(rows)), int))[0])
    low, high = interval(statistic(draw(len(rows))))
    return [(name, value), (f"{name}_low", low), (f"{name}_high", high)]


def _named(method: str, setting: float | None, protocol: str) -> dict[str, object]:
    return {"method": method, "setting": setting, "protocol": protocol}


def _sorted(rows: list[dict], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["method", "setting", "protocol", *columns])
    table = table.astype({"setting": float})  # None becomes NaN, even where there is no number
    return table.sort_values(["method", "setting", "protocol"], ignore_index=True)
