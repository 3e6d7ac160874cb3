"""What comes out for one picture."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from diffseg import export
from diffseg.images import labels_at_original


@dataclass(repr=False)
class DiffSegOutput(BaseOutput):
    """What `DiffSegPipeline` returns for one picture; all tensors are on the CPU.

    Attributes:
        labels: int64 [H, W], the segment of each pixel, 0 to P - 1 without gaps.
        proposals: float32 [P, h, w], the map behind each segment; each sums to 1.
        attention: float32 [h, w, h, w]; attention[i, j] sums to 1.
        image: the picture that was segmented, H x W; None if only attention was given.
        words: words[id] names mask id; None if no names were asked for, empty if there was no noun to choose from.
        confidence: float32 [P], from 1 / nouns (chance) to 1, how far each word stands out in its mask.
        caption: the sentence that the words come from.
        original_size: height and width of the picture that was given, turned upright.
        crop: whether `image` is its central square.
        file: the name of the file that was given; None for a picture that was in memory.
        settings: the arguments of the call, ready for a JSON file. The threshold and the size are those that were used,
            not None; the seed is None if a generator drew the noise.
        model: what made it, see `diffseg.models.handle`.
    """

    labels: Int[Tensor, "height width"]
    proposals: Float[Tensor, "proposals h w"]
    attention: Float[Tensor, "h w h w"]
    image: Image.Image | None = None
    words: tuple[str, ...] | None = None
    confidence: Float[Tensor, " proposals"] | None = None
    caption: str | None = None
    original_size: tuple[int, int] | None = None
    crop: bool = True
    file: str | None = None
    settings: Mapping[str, Any] | None = None
    model: Any = None

    def at_original(self) -> Int[np.ndarray, "height width"]:
        """The labels in the pixels of the picture that was given, turned upright: int64, -1 outside of the crop.

        Raises:
            ValueError: if the output was made from attention alone.
        """
        if self.original_size is None:
            raise ValueError("original_size is None: the output was made from attention. Call the pipeline instead.")
        return labels_at_original(self.labels.numpy(), *self.original_size, self.crop)

    def to_segments(self, original: bool = True) -> dict[str, Any]:
        """The masks as the panoptic models of transformers return theirs, for whatever takes those.

        Args:
            original: in the pixels of the picture that was given, if there was one; False: in those of `labels`.

        Returns:
            "segmentation": int32 tensor [height, width]; label + 1, and 0 outside of the crop.
            "segments_info": for each segment that can be seen "id", its value in the segmentation; "label_id", the
            word's place in `words=[...]`, or else the label; "label", the word, if it has one; "was_fused", whether
            masks of one word were made into one; "score", the confidence, 1 without words.
        """
        return export.to_segments(self, original)

    def to_coco(self, image_id: int = 1, original: bool = True) -> list[dict[str, Any]]:
        """The masks as annotations of COCO, ready for a JSON file.

        Args:
            image_id: the number of the picture in its data set.
            original: in the pixels of the picture that was given, if there was one; False: in those of `labels`.

        Returns:
            For each segment that can be seen "id", label + 1; "image_id"; "category_id", from 1: the word's place in
            `words=[...]`, or else the id; "category", the word, if it has one; "segmentation", compressed run
            lengths {"size": [height, width], "counts": text}; "bbox", [left, top, width, height]; "area", pixels;
            "iscrowd", 0; "score", the confidence, 1 without words. The ids count anew in each picture.
        """
        return export.to_coco(self, image_id, original)

    def save(self, folder: str | os.PathLike, name: str | None = None, overlay: bool = True) -> list[Path]:
        """Write the masks into a folder. Each file appears whole or not at all, and takes the place of an older one.

        NAME.labels.png: label + 1 in each pixel of the picture that was given, 0 outside of the crop; 8 bits with a
        palette, 16 bits from 256 segments on. NAME.overlay.png: what was segmented, in the colours of the masks.
        NAME.json, which comes last: id, word, area and box of each mask, the settings of the call, the model's name
        and fingerprint, and the versions of the packages.

        Args:
            folder: made if it is not there.
            name: None takes that of the picture's file without its ending, or "picture".
            overlay: False leaves the overlay out.

        Returns:
            The files.

        Raises:
            ValueError: for a name that is a path.
            OSError: if a file could not be written; then what was there still is.
        """
        name = Path(self.file or "picture").stem if name is None else name
        if not name.strip(".") or Path(name).name != name:
            raise ValueError(f"name={name!r} must be a file's name without folders; the folder is the first argument.")
        about = {"picture": {"file": self.file}}
        return export.save(self, Path(folder).expanduser(), name, overlay, about)

    def __repr__(self) -> str:
        shares = torch.bincount(self.labels.flatten()) / self.labels.numel()
        largest = ", ".join(f"{share:.0%}" for share in shares.sort(descending=True).values[:5])
        more = ", ..." if len(shares) > 5 else ""
        shapes = ", ".join(
            f"{name} {'x'.join(map(str, getattr(self, name).shape))}" for name in ("labels", "proposals", "attention")
        )
        image = f", image {self.image.width}x{self.image.height}" if self.image else ""
        segments = f"{len(shares)} segment{'s'[: len(shares) != 1]}"
        words = f"; words {', '.join(self.words)}" if self.words else ""
        return f"DiffSegOutput({segments}: {largest}{more}; {shapes}{image}{words})"


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call as JSON can hold them; a generator, or whatever else it cannot, becomes None."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None
