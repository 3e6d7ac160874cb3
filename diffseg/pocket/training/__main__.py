"""Train the embedded models again: `python -m diffseg.pocket.training all`.

Every stage is resumable: stop it whenever you like and give the same command again. The defaults are made for a GPU:
about an hour on a large one, days on two CPU cores; `--longer 0.1` trains a tenth as long, `--minutes 30` stops by
itself after half an hour.
`behaviour` measures whether the models do what the lessons need: one table of means, 95% intervals and targets.
`story` measures how well pocket-sd grouped after 50, 100, 200, ... steps of its training, from the snapshots that are
kept of them, and writes grouping.csv into its folder.

`own FOLDER --target MODEL` goes on from pocket-sd with pictures of one's own. FOLDER holds them and metadata.csv, with
the columns file_name and text: a picture and its caption in each row. The nouns that four captions or more hold are
learned. MODEL becomes a folder for `DiffSegPipeline.from_pretrained`. It is a matter of minutes on a GPU, of hours on
a CPU.
"""

import argparse
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...exits import DONE, run_command
from ...models.devices import best_device
from ...models.paths import data_dir
from .behaviour import GROUPS, Models, Settings, behaviour
from .look import BLIP, DINO, SD
from .loop import OutOfTime
from .recipes import (
    OWN,
    Recipe,
    train_own,
    train_pocket_blip,
    train_pocket_dino,
    train_pocket_sd,
)
from .story import SCENES, story
from .validation import tune, validate, validate_captions, validate_dino, validate_words

_EVERYTHING = ("all", "restart")
_VERBS = (*_EVERYTHING, "name", "tune", "validate", "blip", "dino", "behaviour", "story", "own")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; None: that of the process."""
    started = time.monotonic()
    given = _parse(arguments)
    recipe = OWN if given.what == "own" else Recipe()
    recipe = replace(recipe.longer(given.longer), workers=given.workers, deadline=started + 60 * given.minutes)
    if given.what == "restart":
        shutil.rmtree(given.runs, ignore_errors=True)
    try:
        _train(given, recipe)
    except OutOfTime as reached:
        again = "`all` instead of `restart` goes on" if given.what == "restart" else "the same command goes on"
        print(f"not finished: {reached}; {again}")
    else:
        _validate(given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    given = parser.parse_intermixed_args(arguments)
    for name, value in {"FOLDER": given.folder, "--target": given.target}.items():
        if (given.what == "own") != (value is not None):
            parser.error(f"`own` needs {name}" if value is None else f"{name} is for `own`, not for `{given.what}`")
    if given.what == "own" and given.start is None:
        given.start = data_dir() / "models" / SD
    given.scenes = given.scenes or (SCENES if given.what == "story" else 100)
    return given


def _parser() -> argparse.ArgumentParser:
    models = data_dir() / "models"
    parser = argparse.ArgumentParser(prog="python -m diffseg.pocket.training", description=__doc__)
    parser.add_argument("what", choices=_VERBS)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of pictures, for `own`")
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
    parser.add_argument(
        "--scenes", type=int, help=f"how many scenes to tune or validate on; without it 100, of `story` {SCENES}"
    )
    parser.add_argument("--device", default=best_device())
    parser.add_argument(
        "--workers",
        type=_count,
        default=_processors(),
        help="processes that draw scenes and prepare steps for a GPU; without it, as many as there are processors",
    )
    parser.add_argument(
        "--from", type=Path, metavar="MODEL", dest="start",
        help="of `own`: the model to go on from, by default the embedded pocket-sd; of `all` and `restart`: the model "
        "whose autoencoder, network of nouns and network of places are taken as they are, by default none",
    )  # fmt: skip
    measured = parser.add_argument_group("behaviour")
    measured.add_argument("--rows", nargs="+", choices=GROUPS, help="parts of the table; without it, all of them")
    measured.add_argument("--guidance", type=float, default=Settings.guidance, help="strength of a painting's prompt")
    measured.add_argument("--steps", type=int, default=Settings.steps, help="passes through the model for a painting")
    own = parser.add_argument_group("own")
    own.add_argument("--target", type=Path, metavar="MODEL", help="the new model's folder")
    return parser


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} must not be negative; 0 draws in the main process")
    return number


def _train(given: argparse.Namespace, recipe: Recipe) -> None:
    text_to_image, captioner, vit = _folders(given.models)
    if given.what in _EVERYTHING:
        train_pocket_sd(recipe, given.runs, text_to_image, given.device, given.start)
    if given.what == "tune":
        print("threshold", tune(text_to_image, given.scenes))
    if given.what == "behaviour":
        settings = Settings(guidance=given.guidance, steps=given.steps)
        models = Models(given.models, given.device)
        table = behaviour(models, settings, given.scenes, given.runs, given.rows, recipe.deadline)
        print(table.round(3).to_string(index=False, na_rep=""))
    if given.what == "story":
        models = Models(given.models, given.device)
        story(models, recipe.unet, given.runs, Settings(), given.scenes, recipe.deadline)
    if given.what == "own":
        _train_own(given, recipe)
    if given.what in (*_EVERYTHING, "blip"):
        train_pocket_blip(recipe, given.runs, captioner, given.device)
    if given.what in (*_EVERYTHING, "dino"):
        train_pocket_dino(recipe, given.runs, vit, given.device)


def _train_own(given: argparse.Namespace, recipe: Recipe) -> None:
    """What is wrong with the pictures is said in a line, and the process ends."""

    def run() -> int:
        train_own(recipe, given.folder, given.start, given.runs, given.target, given.device)
        return DONE

    status = run_command(run, given.runs)
    if status != DONE:
        sys.exit(status)


def _validate(given: argparse.Namespace) -> None:
    text_to_image, captioner, vit = _folders(given.models)
    if given.what in (*_EVERYTHING, "validate"):
        print(validate(text_to_image, given.scenes).round(4).to_string())
    if given.what in (*_EVERYTHING, "name"):
        print(validate_words(text_to_image, given.scenes).round(4).to_string())
    if given.what in (*_EVERYTHING, "blip"):
        print(validate_captions(captioner, given.scenes).round(4).to_string())
    if given.what in (*_EVERYTHING, "dino"):
        print(validate_dino(vit, given.scenes).round(4).to_string())


def _folders(models: Path) -> tuple[Path, Path, Path]:
    """Of the text-to-image model, the captioner and the vision transformer."""
    return models / SD, models / BLIP, models / DINO


if __name__ == "__main__":
    main()
