"""The story of a training: how well the miniature groups after so many steps, from the snapshots of its UNet.

Each snapshot sees the same tuning scenes. On them DiffSeg takes the layers of one side alone, and all layers, each with
the threshold that suits it best there; with that of all layers the masks get the scenes' nouns as names.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import pandas as pd
import safetensors.torch

from ...files import write_whole
from ...models.fingerprint import LENGTH, fingerprint
from ...sweeps import best_threshold
from ..scenes import TUNING_SEED
from .behaviour import Settings, counts_of_classes, named_masks, pooled_miou, ways_of_layers, world_digest
from .look import SD, Look, Models
from .loop import OutOfTime, find_snapshots
from .measuring import Store, Trial, Way, measure
from .recipes import Stage, unet_folders
from .text import build_text_encoder
from .unet import Denoiser, build_unet

SCENES = 8  # by default

_WORDS = "words"
_COLUMNS = ["stage", "step", "samples", "part", "miou"]


@dataclass(frozen=True)
class Snapshot:
    """The averaged weights after some steps of a stage, when the model had seen so many samples in all stages."""

    stage: str
    step: int
    samples: int
    file: Path


def story(
    models: Models,
    stages: Sequence[Stage],
    runs: Path,
    settings: Settings | None = None,
    scenes: int = SCENES,
    deadline: float = math.inf,
) -> pd.DataFrame:
    """Measure what is not yet on disk, and print a line for each snapshot.

    Args:
        models: of their pocket-sd the autoencoder and the tokenizer are used; its UNet and its text encoder are
            replaced by those of the snapshots.
        stages: of the UNet, in their order.
        runs: the folder of the training; receives the measurements, so that a stopped call goes on where it was.
        settings: which world, sides and thresholds; None: the defaults.
        scenes: how many tuning scenes.
        deadline: value of `time.monotonic()` after which the measuring stops, to be resumed.

    Returns:
        One row per snapshot and part: stage, step (in the stage), samples (seen in all stages so far), part ("all", the
        side of the layers that are taken alone, or "words"), miou (the mean over scenes; of words that of all pixels
        pooled). After each snapshot it is written to `grouping.csv` in pocket-sd's folder, too.

    Raises:
        FileNotFoundError: without snapshots.
        OutOfTime: after a scene past the deadline, unless it is the last one.
    """
    settings = settings or Settings()
    snapshots, rows, late = list(_find_all(runs, stages)), [], False
    if not snapshots:
        raise FileNotFoundError(
            f"runs={str(runs)!r} holds no snapshots, such as {unet_folders(stages)[0]}/snapshot-000050.safetensors. "
            "Train first, or name the folder of the training."
        )
    pipe = models.pipe
    denoiser = Denoiser(build_unet(), build_text_encoder(pipe.tokenizer)).eval().to(models.device)
    pipe.register_modules(unet=denoiser.unet, text_encoder=denoiser.text_encoder)
    world, seeds = world_digest(), range(TUNING_SEED, TUNING_SEED + scenes)
    ways = ways_of_layers(settings, {side: str(side) for side in settings.sides})
    trials = [(name, threshold) for name, way in ways.items() for threshold in way.settings]
    look = partial(Look, models)
    for number, snapshot in enumerate(snapshots):
        about = f"{snapshot.stage}, step {snapshot.step}"
        _load(denoiser, snapshot.file)
        digest = sha256(f"{world} {fingerprint(pipe)}".encode()).hexdigest()[:LENGTH]
        store = Store(runs / f"story-{digest}.csv")
        missing = any(store.missing(seed, trials) for seed in seeds)
        if missing and late:
            raise OutOfTime(f"{number} of {len(snapshots)} snapshots are measured")
        scores = _score(ways, trials, store, seeds, look, deadline, about)
        print(f"{about}: {', '.join(f'{part} {miou:.2f}' for part, miou in scores.items())}", flush=True)
        rows += [(snapshot.stage, snapshot.step, snapshot.samples, *score) for score in scores.items()]
        table = pd.DataFrame(rows, columns=_COLUMNS)
        write_whole(models.folder / SD / "grouping.csv", table.round(4).to_csv(index=False).encode())
        late = late or (missing and time.monotonic() >= deadline)
    return table


def _find_all(runs: Path, stages: Sequence[Stage]) -> Iterator[Snapshot]:
    """The snapshots of all stages in the order of the training."""
    seen = 0
    for stage, name in zip(stages, unet_folders(stages), strict=True):
        files = find_snapshots(runs / name)
        yield from (Snapshot(name, step, seen + step * stage.batch, file) for step, file in files.items())
        seen += max(files, default=0) * stage.batch


def _load(denoiser: Denoiser, file: Path) -> None:
    """Give a denoiser the weights of a snapshot, in place; the probes beside them are left out."""
    own, weights = "denoiser.", safetensors.torch.load_file(file)
    denoiser.load_state_dict({name.removeprefix(own): value for name, value in weights.items() if name.startswith(own)})


def _score(
    ways: Mapping[str, Way],
    trials: Sequence[Trial],
    store: Store,
    seeds: range,
    look: Callable[[int], Look],
    deadline: float,
    about: str,
) -> dict[str, float]:
    """The mIoU of each way with its best threshold, and of the words with the best one of all layers."""

    def make(ways: Mapping[str, Way], trials: Sequence[Trial]) -> pd.DataFrame:
        measure({about: ways}, {about: store}, {about: trials}, {about: seeds}, look, deadline, about)
        return store.select(seeds, trials)

    tuned = make(ways, trials)
    best = {name: best_threshold(tuned[tuned.way == name], "setting") for name in ways}
    chosen = tuned[tuned.setting == tuned.way.map(best)]
    named = make({_WORDS: Way(named_masks)}, [(_WORDS, best["all"])])
    return {
        **chosen.groupby("way", sort=False).miou.mean().to_dict(),
        _WORDS: pooled_miou(counts_of_classes(named)),
    }
