"""Sweeps over settings: what a number does to the scores of several scenes, and what luck does to them (Fig. 11).

A sweep is a table with a row for each scene and setting, in the columns `scene`, `knob` (which number was turned),
`value` (to what), and any scores, such as `accuracy`, `miou` and `segments`. All but the turned number stay at their
defaults. Every scene is scored at every value, so that values can be compared scene by scene.
"""

from numbers import Real

from pandas import DataFrame, Series
from scipy import stats


def by_scene(scores: DataFrame, knob: str, column: str = "miou") -> DataFrame:
    """One column of a sweep as a table: a row for each scene, a column for each value of the knob.

    Raises:
        ValueError: if the knob was not turned, or not every scene has been scored at every value.
    """
    rows = scores[scores.knob == knob]
    if rows.empty:
        raise ValueError(f"knob={knob!r} is not among those of the sweep: {', '.join(scores.knob.unique())}.")
    table = rows.pivot(index="scene", columns="value", values=column)
    if table.isna().any(axis=None):
        raise ValueError(f"knob={knob!r}: some scenes have no {column} at some values; score all scenes at all values.")
    return table


def half_width(table: DataFrame, level: Real = 0.95) -> Series:
    """Half the width of the confidence interval of each column's mean, by Student's t distribution.

    Args:
        table: a row for each scene; NaN comes out if there is only one.
        level: how often such intervals hold the true mean.
    """
    return stats.t.ppf((1 + level) / 2, len(table) - 1) * table.sem()


def gains(scores: DataFrame, knob: str, default: Real, column: str = "miou") -> DataFrame:
    """Paired differences: what each value gains over the default on the same scene, as `by_scene`, without the default.

    Raises:
        ValueError: as `by_scene`, and if the default was not tried.
    """
    table = by_scene(scores, knob, column)
    if default not in table:
        raise ValueError(
            f"default={default!r} was not tried; {knob} took {', '.join(f'{value:g}' for value in table)}."
        )
    return table.sub(table[default], axis=0).drop(columns=default)
