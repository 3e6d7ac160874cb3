"""Train the embedded models again: `python -m diffseg.pocket.training all`.

Every stage is resumable: stop it whenever you like and give the same command again. The defaults take about a day
on two CPU cores; `--longer 4` trains four times as long, `--minutes 30` stops by itself after half an hour.
`behaviour` measures whether the models do what the lessons need: one table of means, 95% intervals and targets.
"""

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...models.devices import best_device
from ...models.paths import data_dir
from .behaviour import GROUPS, Models, Settings, behaviour
from .loop import OutOfTime
from .recipes import (
    Recipe,
    train_pocket_blip,
    train_pocket_dino,
    train_pocket_sd,
)
from .validation import tune, validate, validate_captions, validate_dino, validate_words

_EVERYTHING = ("all", "restart")
_VERBS = (*_EVERYTHING, "name", "tune", "validate", "blip", "dino", "behaviour")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; None: that of the process."""
    started = time.monotonic()
    given = _parser().parse_args(arguments)
    recipe = replace(Recipe().longer(given.longer), deadline=started + 60 * given.minutes, rich=given.rich)
    if given.what == "restart":
        shutil.rmtree(given.runs, ignore_errors=True)
    try:
        _train(given, recipe)
    except OutOfTime as reached:
        again = "`all` instead of `restart` goes on" if given.what == "restart" else "the same command goes on"
        print(f"not finished: {reached}; {again}")
    else:
        _validate(given)


def _parser() -> argparse.ArgumentParser:
    models = data_dir() / "models"
    parser = argparse.ArgumentParser(prog="python -m diffseg.pocket.training", description=__doc__)
    parser.add_argument("what", choices=_VERBS)
    parser.add_argument("--runs", type=Path, default=Path("build/pocket"), help="checkpoints, latents and logs")
    parser.add_argument("--models", type=Path, default=models, help="the folder of the models' folders")
    parser.add_argument("--longer", type=float, default=1.0, metavar="FACTOR", help="train this many times as long")
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        metavar="M",
        help="stop after about this time; give it again to go on",
    )
    parser.add_argument("--scenes", type=int, default=100, help="how many scenes to tune or validate on")
    parser.add_argument("--device", default=best_device())
    parser.add_argument("--rich", action="store_true", help="train and measure on scenes of the rich world")
    measured = parser.add_argument_group("behaviour")
    measured.add_argument("--rows", nargs="+", choices=GROUPS, help="parts of the table; without it, all of them")
    measured.add_argument("--guidance", type=float, default=Settings.guidance, help="strength of a painting's prompt")
    measured.add_argument("--steps", type=int, default=Settings.steps, help="passes through the model for a painting")
    return parser


def _train(given: argparse.Namespace, recipe: Recipe) -> None:
    text_to_image, captioner, vit = _folders(given.models)
    if given.what in _EVERYTHING:
        train_pocket_sd(recipe, given.runs, text_to_image, given.device)
    if given.what == "tune":
        print("threshold", tune(text_to_image, given.scenes, given.rich))
    if given.what == "behaviour":
        settings = Settings(rich=given.rich, guidance=given.guidance, steps=given.steps)
        models = Models(given.models, given.device)
        table = behaviour(models, settings, given.scenes, given.runs, given.rows, recipe.deadline)
        print(table.round(3).to_string(index=False, na_rep=""))
    if given.what in (*_EVERYTHING, "blip"):
        train_pocket_blip(recipe, given.runs, captioner, given.device)
    if given.what in (*_EVERYTHING, "dino"):
        train_pocket_dino(recipe, given.runs, vit, given.device)


def _validate(given: argparse.Namespace) -> None:
    text_to_image, captioner, vit = _folders(given.models)
    if given.what in (*_EVERYTHING, "validate"):
        print(validate(text_to_image, given.scenes, given.rich).round(4).to_string())
    if given.what in (*_EVERYTHING, "name"):
        print(validate_words(text_to_image, given.scenes, given.rich).round(4).to_string())
    if given.what in (*_EVERYTHING, "blip"):
        print(validate_captions(captioner, given.scenes, given.rich).round(4).to_string())
    if given.what in (*_EVERYTHING, "dino"):
        print(validate_dino(vit, given.scenes, given.rich).round(4).to_string())


def _folders(models: Path) -> tuple[Path, Path, Path]:
    """Of the text-to-image model, the captioner and the vision transformer."""
    return models / "pocket-sd", models / "pocket-blip", models / "pocket-dino"


if __name__ == "__main__":
    main()
