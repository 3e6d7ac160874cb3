"""Training scenes drawn once and kept on disk as plain pixels, for models that look at pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..scenes import TUNING_SEED, scene


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


class Scenes(Dataset):
    """The training seeds 0, 1, ... as (image, labels, caption); `painted` as in `scene`."""

    def __init__(self, number: int, size: int, painted: bool = False) -> None:
        if number > TUNING_SEED:
            raise ValueError(f"number={number} scenes reach into the tuning split: pass at most {TUNING_SEED}")
        self.number, self.size, self.painted = number, size, painted

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
        drawn = scene(seed, self.size, self.painted)
        return np.array(drawn.image), drawn.labels, drawn.caption


def draw_scenes(number: int, size: int, folder: Path, workers: int = 2) -> Pictures:
    """Draw the first `number` training scenes at `size` pixels, or read them if that was done before."""
    paths = [folder / f"{size}-{number}-{name}" for name in ("images.npy", "labels.npy", "captions.csv")]
    if not paths[2].exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(paths[0], "w+", np.uint8, (number, size, size, 3))
        labels = np.lib.format.open_memmap(paths[1], "w+", np.uint8, (number, size, size))
        said: list[str] = []
        loader = DataLoader(Scenes(number, size), batch_size=32, num_workers=workers)
        for pictures, truths, captions in tqdm(loader, desc=f"drawing at {size}", mininterval=5):
            here = slice(len(said), len(said) + len(captions))
            images[here], labels[here] = pictures.numpy(), truths.numpy()
            said += captions
        images.flush()
        labels.flush()
        pd.Series(said, name="caption").to_csv(paths[2], index=False)  # last: marks the rest as complete
    return Pictures(
        np.load(paths[0], mmap_mode="r"), np.load(paths[1], mmap_mode="r"), pd.read_csv(paths[2]).caption.tolist()
    )
