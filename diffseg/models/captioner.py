"""Captions: what an image shows, in one sentence, from BLIP (Sec. 9.8)."""

import os

import torch
from PIL import Image
from transformers import AutoProcessor, BlipForConditionalGeneration

from diffseg.models.paths import POCKET, check_config, resolve_model
from diffseg.models.quiet import quiet_loading

BLIP = "Salesforce/blip-image-captioning-base"
LONGEST = 40  # tokens of a caption


class Captioner:
    """BLIP and its processor; call it with an image.

        Captioner.from_pretrained("pocket")(image)    # "A red car and a dog on a road in front of a forest"

    Args:
        model, processor: of transformers.
    """

    def __init__(self, model: BlipForConditionalGeneration, processor) -> None:
        self.model, self.processor = model.eval(), processor

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike = POCKET, **kwargs) -> "Captioner":
        """Load a captioner by name.

        Args:
            name: "pocket", a folder, or a hub id such as "Salesforce/blip-image-captioning-base".
            **kwargs: of the model's `from_pretrained` (dtype, revision, ...).

        Raises:
            FileNotFoundError, ValueError: if there is no such model.
        """
        folder = resolve_model(name, pocket="pocket-blip")
        check_config(folder, f"Pass 'pocket' or a BLIP, such as {BLIP!r}.")
        with quiet_loading():
            model = BlipForConditionalGeneration.from_pretrained(folder, **{"dtype": torch.float32} | kwargs)
            return cls(model, AutoProcessor.from_pretrained(folder))

    def to(self, *args, **kwargs) -> "Captioner":
        """Move the model, or change its dtype, as `torch.nn.Module.to` does."""
        self.model.to(*args, **kwargs)
        return self

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> str:
        """The most likely sentence, by greedy decoding: the same image gives the same caption.

        Args:
            image: RGB; hand over the square that is segmented, or the caption may name what lies outside it.
        """
        inputs = self.processor(images=image, return_tensors="pt").to(self.model.device, self.model.dtype)
        tokens = self.model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, num_beams=1)
        return self.processor.decode(tokens[0], skip_special_tokens=True).strip()
