"""What comes out for one picture."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

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

    def at_original(self) -> Int[np.ndarray, "height width"]:
        """The labels in the pixels of the picture that was given, turned upright: int64, -1 outside of the crop.

        Raises:
            ValueError: if the output was made from attention alone.
        """
        if self.original_size is None:
            raise ValueError("original_size is None: the output was made from attention. Call the pipeline instead.")
        return labels_at_original(self.labels.numpy(), *self.original_size, self.crop)

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
