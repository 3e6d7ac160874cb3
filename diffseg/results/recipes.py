"""Which tables there are, and how each is made."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..datasets import Dataset, Item
from . import averaging, beyond, limits, naming, rows, variants
from .rows import Models, Row, own_threshold


@dataclass(frozen=True)
class Recipe:
    """How a table is made.

    Attributes:
        about: what its rows are, in a sentence.
        split: of PocketScenes.
        scenes: how many are taken.
        roles: the models that can change a number.
        rows: models, a scene and settings -> the rows of that scene.
        settings: models and the scenes -> numbers that are found once, before all rows.
        finish: rows and data set -> tables by the ends of their names; None: one table of all rows.
    """

    about: str
    split: str
    scenes: int
    roles: tuple[str, ...]
    rows: Callable[[Models, Item, Mapping[str, Any], int], Iterator[Row]]
    settings: Callable[[Models, Dataset, int], dict[str, Any]] = lambda models, data, size: {}
    finish: Callable[[list[Row], Dataset], dict[str, pd.DataFrame]] | None = None


#: Name -> how the table is made: of 180 tuning or 100 validation scenes, or of fewer where a scene takes long.
RECIPES = {
    "validation": Recipe(
        "All methods on validation scenes.", "val", 100, ("diffusion", "dino", "captioner"), rows.validation,
        rows.validation_settings, rows.validation_tables,
    ),
    "sweep": Recipe(
        "One setting turned, the others at their defaults.", "tune", 180, ("diffusion",), rows.sweep, own_threshold
    ),
    "timesteps": Recipe("Time steps, each at many thresholds.", "tune", 100, ("diffusion",), rows.timesteps),
    "resolutions": Recipe(
        "The layers of one resolution alone, at many thresholds; side 0: all.", "tune", 100, ("diffusion",),
        rows.resolutions,
    ),
    "heads": Recipe("How far the heads of a layer disagree.", "tune", 180, ("diffusion",), rows.heads),
    "averaging": Recipe(
        "Attention of one head of each layer, and the mean of all, at many thresholds.", "tune", 100, ("diffusion",),
        averaging.heads_apart,
    ),
    "noises": Recipe("Other draws of noise; seed -1: none.", "val", 100, ("diffusion",), rows.noises, own_threshold),
    "words": Recipe("Names for masks.", "val", 100, ("diffusion", "captioner"), rows.words, own_threshold),
    "naming": Recipe(
        "Names for masks, part by part, and other ways to name.", "val", 100, ("diffusion", "captioner"),
        naming.name_all, own_threshold,
    ),
    "limits": Recipe("Remedies for small things.", "val", 100, ("diffusion",), limits.remedies, own_threshold),
    "limits-things": Recipe("Pieces of truths by size.", "val", 100, ("diffusion",), limits.things, own_threshold),
    "limits-domains": Recipe("Segments in other domains.", "val", 100, ("diffusion",), limits.domains, own_threshold),
    "variants": Recipe(
        "What the released code does otherwise, and two remedies.", "val", 100, ("diffusion",), variants.compare_all,
        own_threshold,
    ),
    "beyond-tuning": Recipe("Ideas since the paper, tuned.", "tune", 40, ("diffusion",), beyond.tuning),
    "beyond": Recipe(
        "Ideas since the paper, as the tuning scenes choose.", "val", 100, ("diffusion",), beyond.gains, beyond.chosen
    ),
}  # fmt: skip
