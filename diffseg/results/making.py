"""Making the tables: scene by scene, so that a run of hours can be stopped anywhere and taken up again.

    python -m diffseg.results                        # all tables, with all their scenes: hours
    python -m diffseg.results sweep --scenes 6       # one table, smaller

The rows of each scene are kept in build/results until the models, the world, the settings or the source of the recipe
change; then they are made anew. A table is written when all of its scenes are done, with the command, the date, the
fingerprints and the versions beside it.
"""

import inspect
import json
from collections.abc import Callable
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from .. import IMAGE_SIZE
from ..datasets import open_dataset, world
from ..files import sole_user, write_whole
from ..models.versions import versions
from ..progress import progress
from .recipes import RECIPES, Recipe
from .rows import Models, Row

DIGITS = 6  # of a number in a table


def make(
    name: str,
    out: Path,
    work: Path,
    scenes: int | None = None,
    size: int = IMAGE_SIZE,
    tell: Callable[[str], None] = print,
) -> list[Path]:
    """Make one table, or the tables that belong together; returns their files.

    Args:
        name: of a recipe.
        out: where tables are written.
        work: where the rows of scenes are kept.
        scenes: None: as many as the recipe says.
        size: of the scenes, pixels.
        tell: is told what is used again and what is computed.

    Raises:
        ValueError: for an unknown name.
        BlockingIOError: if another command is making this table.
    """
    if name not in RECIPES:
        raise ValueError(f"name={name!r} must be one of {', '.join(RECIPES)}.")
    recipe, models = RECIPES[name], Models()
    data = open_dataset("pocket", split=recipe.split).head(scenes or recipe.scenes)
    known = {"models": models.fingerprints(recipe.roles), "thresholds": models.thresholds(recipe.roles),
             "world": world(), "size": size, "versions": versions(), "recipe": _source_digest(recipe)}  # fmt: skip
    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    with sole_user(place):
        about = {**known, "settings": _settings(place, recipe, models, data, size, known)}
        rows, reused = [], 0
        for item in progress(data, name):
            file = place / f"{item.name}.json"
            found = _kept(file, about)
            reused += found is not None
            if found is None:
                found = list(recipe.rows(models, item, about["settings"], size))
                write_whole(file, json.dumps({"about": about, "rows": found}).encode())
            rows += found
    tell(f"{name}: {reused} scenes from {place}, {len(data) - reused} computed")
    tables = recipe.finish(rows, data) if recipe.finish else {"": pd.DataFrame(rows)}
    command = f"python -m diffseg.results {name}" + (f" --scenes {len(data)}" if scenes else "")
    command += f" --size {size}" if size != IMAGE_SIZE else ""
    provenance = {"about": recipe.about, "command": command, "date": date.today().isoformat(), "split": recipe.split,
                  "scenes": len(data), **about}  # fmt: skip
    return [_write(out / f"{name}{end}.csv", table, provenance) for end, table in tables.items()]


def outdated(provenance: dict[str, Any], models: Models | None = None) -> list[str]:
    """What has changed since a table was made: models, their thresholds, or the scenes' world; empty if nothing has."""
    models = models or Models()
    roles = list(provenance["models"])
    found, thresholds = models.fingerprints(roles), models.thresholds(roles)
    changed = [role for role, digest in provenance["models"].items() if found[role] != digest]
    changed += [f"threshold of {role}" for role, tau in provenance["thresholds"].items() if thresholds[role] != tau]
    return changed + (["world"] if provenance["world"] != world() else [])


def _source_digest(recipe: Recipe) -> str:
    """Of the module that makes the rows: another range of settings makes other rows."""
    return sha256(inspect.getsource(inspect.getmodule(recipe.rows)).encode()).hexdigest()[:12]


def _settings(
    place: Path, recipe: Recipe, models: Models, data: Any, size: int, known: dict[str, Any]
) -> dict[str, Any]:
    """The settings of a recipe, found once for the scenes."""
    scenes = sha256(" ".join(item.name for item in data).encode()).hexdigest()[:12]
    file, about = place / "settings.json", {**known, "list": scenes}
    kept = _kept(file, about)
    if kept is None:
        kept = json.loads(json.dumps(recipe.settings(models, data, size)))  # lists for tuples, as the files have them
        write_whole(file, json.dumps({"about": about, "rows": kept}).encode())
    return kept


def _kept(file: Path, about: dict[str, Any]) -> Any:
    """What a file keeps; None if there is none, if it is damaged, or if it is about something else."""
    try:
        found = json.loads(file.read_bytes())
        return found["rows"] if found["about"] == about else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, table: pd.DataFrame, provenance: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")
    write_whole(file.with_suffix(".json"), (json.dumps(provenance, indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(file, text.encode())
    return file


def rows_of(name: str, scene: str, settings: dict[str, Any], size: int, models: Models) -> list[Row]:
    """The rows of one scene, computed now."""
    recipe = RECIPES[name]
    (item,) = (item for item in open_dataset("pocket", split=recipe.split) if item.name == scene)
    return list(recipe.rows(models, item, settings, size))
