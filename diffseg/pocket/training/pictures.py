"""Training scenes made once and kept on disk: as plain pixels, or as whatever a model takes instead of them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from ..scenes import TUNING_SEED, scene
from .loop import OutOfTime


@runtime_checkable
class Source(Protocol):
    """Pictures that can be stored: a `Dataset` of (image, labels, caption on one line); `Scenes` is one."""

    size: int  # pixels
    name: str  # what they are stored under; others have another one

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]: ...


class Scenes(Dataset):
    """The training seeds 0, 1, ... as (image, labels, caption); `painted` as in `scene`."""

    def __init__(self, number: int, size: int, painted: bool = False) -> None:
        if number > TUNING_SEED:
            raise ValueError(f"number={number} scenes reach into the tuning split: pass at most {TUNING_SEED}")
        self.number, self.size, self.painted = number, size, painted

    @property
    def name(self) -> str:
        """What they are stored under."""
        return f"{self.size}-{self.number}{'-painted' * self.painted}"

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
        drawn = scene(seed, self.size, self.painted)
        return np.array(drawn.image), drawn.labels, drawn.caption


@dataclass(frozen=True)
class Conversion:
    """What is stored of a batch of scenes, and in which form."""

    convert: Callable[
        [UInt8[np.ndarray, "n size size 3"], UInt8[np.ndarray, "n size size"]], tuple[np.ndarray, np.ndarray]
    ]  # images, labels -> inputs of a model, labels on the grid of the inputs
    inputs: tuple[int, ...]  # shape of one scene's
    labels: tuple[int, ...]
    dtype: type  # of the inputs; labels are uint8


def store_scenes(
    scenes: Source, conversion: Conversion, stem: Path, batch: int, workers: int = 2, deadline: float = math.inf
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Inputs, labels and captions of scenes: made once, then read from disk.

    The captions are written last, batch by batch: there are as many of them as scenes that are complete.

    Args:
        scenes: what to draw or read.
        conversion: what to keep of it.
        stem: the files are called `{stem}-inputs.npy`, `{stem}-labels.npy` and `{stem}-captions.txt`.
        batch: how many scenes are converted at a time.
        workers: processes that draw or read.
        deadline: value of `time.monotonic()` after which the making stops, to be resumed.

    Raises:
        OutOfTime: after the first batch past the deadline, unless it is the last one.
    """
    paths = [stem.with_name(f"{stem.name}-{kind}") for kind in ("inputs.npy", "labels.npy", "captions.txt")]
    captions = _read_lines(paths[2])
    if len(captions) < len(scenes):
        stem.parent.mkdir(parents=True, exist_ok=True)
        paths[2].write_text("".join(captions), encoding="utf-8")  # without a line that was cut short
        mode = "r+" if captions else "w+"
        inputs = np.lib.format.open_memmap(paths[0], mode, conversion.dtype, (len(scenes), *conversion.inputs))
        labels = np.lib.format.open_memmap(paths[1], mode, np.uint8, (len(scenes), *conversion.labels))
        missing = Subset(scenes, range(len(captions), len(scenes)))
        loader = DataLoader(missing, batch_size=batch, num_workers=workers)
        bar = tqdm(total=len(scenes), initial=len(captions), desc=f"making {stem.name}", mininterval=5)
        with bar, paths[2].open("a", encoding="utf-8") as file:
            for images, truths, sentences in loader:
                here = slice(len(captions), len(captions) + len(sentences))
                inputs[here], labels[here] = conversion.convert(images.numpy(), truths.numpy())
                inputs.flush()
                labels.flush()
                lines = [f"{sentence}\n" for sentence in sentences]
                file.writelines(lines)
                file.flush()
                captions += lines
                bar.update(len(lines))
                if time.monotonic() >= deadline and len(captions) < len(scenes):
                    raise OutOfTime(f"{stem.name}: {len(captions)} of {len(scenes)} scenes are stored")
    stored = (np.load(path, mmap_mode="r") for path in paths[:2])
    return *stored, [line.rstrip("\n") for line in captions]


def _read_lines(path: Path) -> list[str]:
    """The complete lines of a file, with their ends; none if there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


@dataclass(frozen=True)
class Pictures:
    """Drawn scenes."""

    images: UInt8[np.ndarray, "scenes side side 3"]
    labels: UInt8[np.ndarray, "scenes side side"]
    captions: list[str]

    def sample(self, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Images, labels and captions of random scenes."""
        chosen = np.sort(rng.choice(len(self.images), batch, replace=False))
        return self.images[chosen], self.labels[chosen], [self.captions[index] for index in chosen]


def draw_scenes(number: int, size: int, folder: Path, workers: int = 2, deadline: float = math.inf) -> Pictures:
    """Draw the first `number` training scenes at `size` pixels, or read them if that was done before.

    Raises:
        OutOfTime: see `store_scenes`.
    """
    whole = Conversion(lambda images, labels: (images, labels), (size, size, 3), (size, size), np.uint8)
    scenes = Scenes(number, size)
    return Pictures(*store_scenes(scenes, whole, folder / f"images-{scenes.name}", 32, workers, deadline))
