"""Measurements on many scenes: settings chosen on tuning scenes, scores on validation scenes, a table with targets.

A *way* is one thing that is measured on each scene. Where it has a setting, such as a threshold, all values are tried
on the tuning scenes, and the validation scenes see the best one only. A *group* of ways is a part of the table, with a
file for what was measured, so that a stopped run goes on where it was.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from ...progress import progress
from ...sweeps import best_threshold, bootstrap_interval, mean_interval
from ..scenes import TUNING_SEED, VALIDATION_SEED
from .loop import OutOfTime

NO_SETTING = 0.0  # of a way that has nothing to choose

_KEY = ["seed", "way", "setting"]

Row = dict[str, Any]
Trial = tuple[str, float]  # a way and its setting


@dataclass(frozen=True)
class Way:
    """One thing that is measured on each scene.

    Attributes:
        measure: what is known of the scene, and the setting -> one row or more.
        settings: what is tried on tuning scenes; if it is only one, there is nothing to choose.
    """

    measure: Callable[[Any, float], list[Row]]
    settings: tuple[float, ...] = (NO_SETTING,)


@dataclass(frozen=True)
class Target:
    """What the mean of a row, and its interval, should be.

    Attributes:
        at_least, at_most: bounds of the mean.
        above_zero: whether the whole interval must be above 0.
    """

    at_least: float = -math.inf
    at_most: float = math.inf
    above_zero: bool = False

    def is_reached(self, mean: float, low: float) -> bool:
        """Whether a mean, whose interval begins at `low`, is as it should be; NaN never is."""
        return self.at_least <= mean <= self.at_most and (low > 0 or not self.above_zero)

    def __str__(self) -> str:
        parts = [
            f"at least {self.at_least:g}" if self.at_least > -math.inf else "",
            f"at most {self.at_most:g}" if self.at_most < math.inf else "",
            "interval above 0" if self.above_zero else "",
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Line:
    """One line of the table; without a target there is nothing to reach."""

    row: str
    mean: float
    low: float = math.nan
    high: float = math.nan
    target: Target | None = None

    @property
    def reached(self) -> str:
        """ "yes", "no", or "" without a target."""
        if self.target is None:
            return ""
        return "yes" if self.target.is_reached(self.mean, self.low) else "no"


@dataclass(frozen=True)
class Measured:
    """The rows of all ways at their chosen settings: seed, way, setting, and whatever was measured."""

    tuning: pd.DataFrame
    validation: pd.DataFrame

    def scores(self, column: str = "miou") -> pd.DataFrame:
        """Of the validation scenes: a row for each scene, a column for each way."""
        return self.validation.pivot(index="seed", columns="way", values=column)


@dataclass(frozen=True)
class Group:
    """A part of the table.

    Attributes:
        ways: by their names.
        judge: what was measured -> lines of the table.
        models: names of the folders that it depends on.
        about: what else all of its ways depend on.
        scenes: how many validation scenes it takes at most.
    """

    ways: Mapping[str, Way]
    judge: Callable[[Measured], list[Line]]
    models: tuple[str, ...]
    about: Mapping[str, float] = field(default_factory=dict)
    scenes: int | None = None

    def tuning_trials(self) -> list[Trial]:
        """All settings of the ways that have some to choose from."""
        return [(name, value) for name, way in self.ways.items() if len(way.settings) > 1 for value in way.settings]

    def choose(self, tuned: pd.DataFrame) -> list[Trial]:
        """Each way with its best setting on the tuning scenes, see `best_threshold`."""
        return [
            (name, way.settings[0] if len(way.settings) == 1 else best_threshold(tuned[tuned.way == name], "setting"))
            for name, way in self.ways.items()
        ]

    def validation_seeds(self, scenes: int) -> range:
        """Those of the first validation scenes."""
        return range(VALIDATION_SEED, VALIDATION_SEED + min(scenes, self.scenes or scenes))


class Store:
    """Measurements in a CSV file that is complete at any moment: a new one takes its place in one step."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows = pd.DataFrame(columns=_KEY)
        if file.exists():
            self.rows = pd.read_csv(file, dtype={"way": str}, engine="pyarrow")  # reads numbers to the last bit
        self._done = set(self._keys())

    def missing(self, seed: int, trials: Iterable[Trial]) -> list[Trial]:
        """Those trials of a scene that have not been made."""
        return [trial for trial in trials if (seed, *trial) not in self._done]

    def add(self, seed: int, measured: Mapping[Trial, Sequence[Row]]) -> None:
        """Keep the rows of some trials of a scene."""
        new = pd.DataFrame(
            {"seed": seed, "way": way, "setting": setting, **row}
            for (way, setting), rows in measured.items()
            for row in rows
        )
        self.rows = new if self.rows.empty else pd.concat([self.rows, new], ignore_index=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        hidden = self.file.with_name(f".{self.file.name}")
        self.rows.to_csv(hidden, index=False)
        hidden.replace(self.file)
        self._done |= {(seed, *trial) for trial in measured}

    def select(self, seeds: range, trials: Sequence[Trial]) -> pd.DataFrame:
        """The rows of some trials of some scenes, in the order of the scenes, then of the trials."""
        places = {(seed, *trial): place for place, (seed, trial) in enumerate(product(seeds, trials))}
        order = pd.Series([places.get(key) for key in self._keys()], self.rows.index, float)
        return self.rows.loc[order.dropna().sort_values(kind="stable").index].reset_index(drop=True)

    def _keys(self) -> Iterable[tuple[int, str, float]]:
        return self.rows[_KEY].itertuples(index=False, name=None)


def measure_groups(
    groups: Mapping[str, Group],
    stores: Mapping[str, Store],
    look: Callable[[int], Any],
    scenes: int,
    deadline: float = math.inf,
) -> pd.DataFrame:
    """Measure what is not yet stored, and judge all of it.

    Args:
        groups: by their names.
        stores: of each group.
        look: seed -> what the ways get to know of a scene; one for all groups.
        scenes: how many tuning scenes, and how many validation scenes.
        deadline: value of `time.monotonic()` after which the measuring stops, to be resumed.

    Returns:
        The lines: row, mean, low, high (the ends of the 95% interval), target, reached.

    Raises:
        OutOfTime: after a scene past the deadline, unless it is the last one.
    """
    tuning = range(TUNING_SEED, TUNING_SEED + scenes)
    ways = {name: group.ways for name, group in groups.items()}
    tried = {name: group.tuning_trials() for name, group in groups.items()}
    measure(ways, stores, tried, dict.fromkeys(groups, tuning), look, deadline)

    chosen = {name: group.choose(stores[name].select(tuning, tried[name])) for name, group in groups.items()}
    seeds = {name: group.validation_seeds(scenes) for name, group in groups.items()}
    measure(ways, stores, chosen, seeds, look, deadline)

    table = []
    for name, group in groups.items():
        splits = (stores[name].select(split, chosen[name]) for split in (tuning, seeds[name]))
        for line in group.judge(Measured(*splits)):
            table.append((line.row, line.mean, line.low, line.high, str(line.target or ""), line.reached))
    return pd.DataFrame(table, columns=["row", "mean", "low", "high", "target", "reached"])


def measure(
    ways: Mapping[str, Mapping[str, Way]],
    stores: Mapping[str, Store],
    trials: Mapping[str, Sequence[Trial]],
    seeds: Mapping[str, range],
    look: Callable[[int], Any],
    deadline: float = math.inf,
    about: str = "measuring scenes",
) -> None:
    """Make the trials of each group on its scenes, as far as they are missing, scene by scene.

    Args:
        ways: of each group, by their names.
        stores, trials, seeds: of each group.
        look, deadline: as in `measure_groups`.
        about: what the bar says.

    Raises:
        OutOfTime: as `measure_groups`.
    """
    late = False
    for seed in progress(max(seeds.values(), key=len), about):
        missing = {name: stores[name].missing(seed, trials[name]) for name in ways if seed in seeds[name]}
        if not any(missing.values()):
            continue
        if late:
            raise OutOfTime(f"all scenes before {seed} are measured")
        seen = look(seed)
        for name, left in missing.items():
            if left:
                own = ways[name]
                stores[name].add(seed, {(way, setting): own[way].measure(seen, setting) for way, setting in left})
        late = time.monotonic() >= deadline


def mean_line(row: str, values: pd.Series, target: Target | None = None) -> Line:
    """The mean over scenes, with Student's interval; of differences on the same scenes a paired comparison."""
    return Line(row, *mean_interval(values), target)


def pooled_line(
    row: str,
    counts: Shaped[np.ndarray, "scenes ..."],
    statistic: Callable[[np.ndarray], float],
    target: Target | None = None,
) -> Line:
    """A number of all scenes together, with the bootstrap's interval."""
    return Line(row, statistic(counts), *bootstrap_interval(counts, statistic), target)


def share_line(row: str, part: pd.Series, whole: pd.Series, target: Target | None = None) -> Line:
    """One sum over scenes divided by another, with the bootstrap's interval."""
    return pooled_line(row, np.stack([part, whole], axis=1), _share, target)


def _share(counts: Shaped[np.ndarray, "scenes 2"]) -> float:
    part, whole = counts.sum(axis=0)
    return float(part / whole) if whole else math.nan
