"""Tables of the long runs that the lessons lean on, each with what it was made with.

    results.load("sweep").groupby(["knob", "value"]).miou.mean()
    results.load("sweep").attrs["models"]    # fingerprints; also: command, date, versions, settings, scenes

`python -m diffseg.results` makes them, see `diffseg.results.making`.
"""

import json
from pathlib import Path

import pandas as pd

from diffseg.models.paths import data_dir

__all__ = ["load", "names"]


def folder() -> Path:
    """Where the tables are kept."""
    return data_dir() / "results"


def names() -> list[str]:
    """The tables that there are."""
    return sorted(file.stem for file in folder().glob("*.csv"))


def load(name: str) -> pd.DataFrame:
    """A table by name; `attrs` of it says what it was made with.

    Raises:
        ValueError: if there is no such table.
    """
    file = folder() / f"{name}.csv"
    if not file.is_file():
        raise ValueError(f"name={name!r} must be one of {', '.join(names())}; `make results` makes the tables.")
    table = pd.read_csv(file, dtype={"scene": "string"})
    table.attrs = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return table
