"""The thin pipeline that walks an image through the rooms: diffuse, attend, segment."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from diffseg import (
    IMAGE_SIZE,
    ITERATIONS,
    POINTS,
    SEED,
    THRESHOLD,
    TIMESTEP,
)
from diffseg.aggregation import aggregate
from diffseg.attention import RecordedLayer, record_attention
from diffseg.diffuse import add_noise, embed_prompt, encode, to_tensor, unet_pass
from diffseg.images import ImageLike, read_image
from diffseg.masks import relabel, suppress
from diffseg.merging import check_settings, merge
from diffseg.models.captioner import BLIP, Captioner
from diffseg.models.loading import quiet_loading
from diffseg.models.paths import POCKET, resolve_model
from diffseg.semantics import Noun, find_nouns, find_tokens, merge_by_word, name_words, noun_maps

SETTINGS_FILE = "diffseg.json"  # beside model_index.json: {"threshold": tau}
_COMPONENTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
_REMEDY = "Pass 'pocket' or Stable Diffusion v1 or v2, such as 'CompVis/stable-diffusion-v1-4'."


@dataclass(repr=False)
class DiffSegOutput:
    """What `DiffSegPipeline` returns; all tensors are on the CPU.

    Attributes:
        labels: int64 [512, 512], the segment of each pixel, 0 to P - 1 without gaps.
        proposals: float32 [P, 64, 64], the map behind each segment; each sums to 1.
        attention: float32 [64, 64, 64, 64]; attention[i, j] sums to 1.
        image: the 512x512 picture that was segmented; None if only attention was given.
        words: words[id] names mask id; None if no names were asked for, empty if there was no noun to choose from.
        confidence: float32 [P], from 1 / nouns (chance) to 1, how far each word stands out in its mask.
        caption: the sentence that the words come from.
    """

    labels: Int[Tensor, "height width"]
    proposals: Float[Tensor, "proposals h w"]
    attention: Float[Tensor, "h w h w"]
    image: Image.Image | None = None
    words: tuple[str, ...] | None = None
    confidence: Float[Tensor, " proposals"] | None = None
    caption: str | None = None

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


class DiffSegPipeline(DiffusionPipeline):
    """DiffSeg with any Stable Diffusion v1 or v2 model.

        pipe = DiffSegPipeline.from_pretrained("pocket")
        out = pipe("photo.jpg")
        out.labels    # [512, 512]

    `pipe.to("cuda")`, `dtype=`, `pipe.components` and the rest come from diffusers. The two
    halves can be called apart, to try many settings on one UNet pass, and `pipe.record` gives the
    layers one by one:

        attention = pipe.attend("photo.jpg")
        out = pipe.segment(attention, threshold=0.8)

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: as in `StableDiffusionPipeline`. The
            scheduler gives the noise schedule only; nothing is sampled.
        threshold: this model's own merging threshold, the default of every call.

    Attributes:
        captioner: what says words="caption", a `Captioner` or anything from image to sentence. None until it is needed
            or set; then BLIP, or pocket-blip beside the pocket model.

    Raises:
        ValueError: if the components are not those of a Stable Diffusion v1 or v2 model.
    """

    def __init__(self, vae, text_encoder, tokenizer, unet, scheduler, threshold: Real = THRESHOLD):
        super().__init__()
        _check_components(vae, text_encoder, unet, scheduler)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
        )
        self.threshold = float(threshold)
        self.captioner: Callable[[Image.Image], str] | None = None
        self._captioner_name = BLIP

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike | None = None, **kwargs) -> "DiffSegPipeline":
        """Load a model by name.

        Args:
            name: "pocket", a folder, or a hub id; None: $DIFFSEG_MODEL, else "pocket".
            **kwargs: of `DiffusionPipeline.from_pretrained` (dtype, variant, revision,
                ...), and `threshold`, which overrides the one in the folder's diffseg.json.

        Raises:
            FileNotFoundError, ValueError: if there is no such model, or it is not like Stable
                Diffusion v1 or v2.
        """
        folder = resolve_model(name)
        if not os.path.isdir(folder):
            # Its import is slow and chatty, so it waits until a hub model is asked for.
            from diffusers import StableDiffusionPipeline

            # The safety checker and its friends are neither needed nor downloaded.
            unused = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
            hub = {key: kwargs[key] for key in _HUB_ARGUMENTS & kwargs.keys()}
            folder = StableDiffusionPipeline.download(folder, **unused, **hub)
        _check_folder(Path(folder))
        kwargs.setdefault("threshold", read_threshold(Path(folder)))
        with quiet_loading():
            pipe = super().from_pretrained(folder, **kwargs)
        if folder == resolve_model(POCKET):
            pipe._captioner_name = POCKET
        return pipe

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save a folder that `StableDiffusionPipeline` can load too, and diffseg.json in it."""
        super().save_pretrained(save_directory, **kwargs)
        settings = json.dumps({"threshold": self.threshold}, indent=2)
        (Path(save_directory) / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")

    @torch.no_grad()
    def record(
        self,
        image: ImageLike,
        prompt: str = "",
        timestep: int = TIMESTEP,
        seed: int = SEED,
        noise: bool = True,
        size: int = IMAGE_SIZE,
        kinds: Sequence[str] = ("self",),
        heads: str = "mean",
    ) -> list[RecordedLayer]:
        """What every attention layer looks at in one UNet pass over the image.

        Args:
            image, prompt, timestep, seed, noise, size: as in `attend`.
            kinds, heads: as in `record_attention`.

        Returns:
            One entry per layer, in the order of the computation, on the model's device.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
        """
        self._check_pass(timestep, size)
        pixels = to_tensor(read_image(image, size)).to(self._execution_device)
        latent = encode(self.vae, pixels)
        if noise:
            latent = add_noise(latent, self.scheduler, timestep, seed)
        embedding = embed_prompt(self.tokenizer, self.text_encoder, prompt)
        with record_attention(self.unet, kinds, heads) as layers:
            unet_pass(self.unet, latent, timestep, embedding)
        return layers

    @torch.no_grad()
    def attend(
        self,
        image: ImageLike,
        prompt: str = "",
        timestep: int = TIMESTEP,
        seed: int = SEED,
        noise: bool = True,
        weights: str | Mapping[int, Real] = "layer",
        size: int = IMAGE_SIZE,
    ) -> Float[Tensor, "h w h w"]:
        """The first half: one UNet pass over the image, aggregated.

        Args:
            image: a PIL image, a uint8 array [h, w, 3], or a path.
            prompt: the paper segments with the empty one.
            timestep: t, an index of the training schedule.
            seed: of the noise.
            noise: False leaves the latent clean, as the released code does.
            weights: of the layers, see `aggregate`.
            size: the image is cropped to a square and resized to it; a multiple of
                `pipe.size_step`.

        Returns:
            float32 on the CPU; attention[i, j] sums to 1. Its side is that of the latent.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
        """
        maps = [layer.probs for layer in self.record(image, prompt, timestep, seed, noise, size)]
        return aggregate(maps, size=size // self.vae_scale_factor, weights=weights).cpu()

    @torch.no_grad()
    def segment(
        self,
        attention: Float[Tensor, "h w h w"],
        points: int = POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        remove_merged: bool = True,
        size: int | None = None,
        image: Image.Image | None = None,
        distances: Float[Tensor, "anchors positions"] | None = None,
    ) -> DiffSegOutput:
        """The second half: merge the attention into proposals, and let them compete for pixels.

        Args:
            attention: as `attend` returns it.
            points, iterations, remove_merged, distances: see `merge`.
            threshold: None takes the model's own.
            size: side of the labels, pixels; None: that of the image the attention came from.
            image: handed on to the output.

        Raises:
            ValueError: naming the argument, value and remedy.
        """
        threshold = self.threshold if threshold is None else threshold
        size = attention.shape[0] * self.vae_scale_factor if size is None else size
        on_device = attention.to(self._execution_device)
        proposals = merge(on_device, points, iterations, threshold, remove_merged, distances)
        labels, kept = relabel(suppress(proposals, size))
        return DiffSegOutput(labels.cpu(), proposals[kept].cpu(), attention, image)

    def __call__(
        self,
        image: ImageLike,
        prompt: str = "",
        timestep: int = TIMESTEP,
        points: int = POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        seed: int = SEED,
        noise: bool = True,
        weights: str | Mapping[int, Real] = "layer",
        remove_merged: bool = True,
        size: int = IMAGE_SIZE,
        words: str | Sequence[str] | None = None,
        prompted_masks: bool = False,
    ) -> DiffSegOutput:
        """Segment an image: `attend`, then `segment`, where the other arguments are described.

        Args:
            words: None: masks only. A list of nouns: each mask gets the one whose cross-attention is strongest in it,
                and masks of one noun become one (Eq. 11). "caption": the nouns of a caption of the image.
            prompted_masks: False: the masks come from a pass with `prompt`, as in the paper; True: with the caption
                or the list of words as the prompt, as in the released code.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy;
                before the UNet runs.
        """
        self._check_pass(timestep, size)
        tau = self.threshold if threshold is None else threshold
        check_settings(size // self.vae_scale_factor, points, iterations, tau)
        picture = read_image(image, size)
        given, nouns, tokens = ("", [], []) if words is None else self._vocabulary(picture, words)
        prompt = given if prompted_masks and nouns else prompt
        attention = self.attend(picture, prompt, timestep, seed, noise, weights, size)
        out = self.segment(attention, points, iterations, tau, remove_merged, size, picture)
        if words is not None:
            out.words, out.caption = (), given
        if nouns:
            layers = self.record(picture, given, timestep, seed, noise, size, kinds=("cross",))
            named = merge_by_word(out.labels, out.proposals, noun_maps(layers, tokens, size).cpu())
            out.labels, out.proposals, kept, out.confidence = named
            out.words = tuple(nouns[index].word for index in kept)
        return out

    def _vocabulary(self, picture: Image.Image, words: str | Sequence[str]) -> tuple[str, list[Noun], list[list[int]]]:
        """The prompt, its nouns, and the tokens of each noun."""
        if isinstance(words, str) and words != "caption":
            raise ValueError(f"words={words!r} must be 'caption', a list of nouns such as ['car', 'road'], or None.")
        if words == "caption":
            if self.captioner is None:
                self.captioner = Captioner.from_pretrained(self._captioner_name)
            prompt = self.captioner(picture)
            nouns = find_nouns(prompt)
        else:
            prompt, nouns = name_words(words)
        if not nouns:
            warnings.warn(f"the caption {prompt!r} has no noun: the masks stay without names.", stacklevel=3)
        return prompt, nouns, find_tokens(self.tokenizer, prompt, nouns)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent pixel, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_step(self) -> int:
        """Image sizes must be multiples of this, so that the UNet can halve the latent evenly."""
        return self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def _check_pass(self, timestep: int, size: int) -> None:
        steps = self.scheduler.config.num_train_timesteps
        if not 0 <= timestep < steps:
            raise ValueError(
                f"timestep={timestep} is outside the model's schedule, 0 to {steps - 1}; the paper takes {TIMESTEP}."
            )
        if size < self.size_step or size % self.size_step:
            raise ValueError(
                f"size={size} must be a positive multiple of {self.size_step} for this model; "
                f"the paper takes {IMAGE_SIZE}."
            )


_HUB_ARGUMENTS = {
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "token",
    "use_safetensors",
    "variant",
}


def _check_folder(folder: Path) -> None:
    """Before loading anything large: is this a Stable Diffusion folder?"""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ValueError(f"name={str(folder)!r} has no model_index.json. {_REMEDY}")
    index = json.loads(index_file.read_text(encoding="utf-8"))
    missing = [part for part in _COMPONENTS if not (index.get(part) or [None])[0]]
    if missing:
        raise ValueError(
            f"name={str(folder)!r} is a {index.get('_class_name', 'model')} without {', '.join(missing)}. {_REMEDY}"
        )
    unet = index["unet"][1]
    if unet != "UNet2DConditionModel":
        raise ValueError(f"name={str(folder)!r} has a {unet} as its unet. {_REMEDY}")


def read_threshold(folder: Path) -> float:
    """The merging threshold in a model's folder, or the paper's."""
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return THRESHOLD
    return float(json.loads(file.read_text(encoding="utf-8"))["threshold"])


def _check_components(vae, text_encoder, unet, scheduler) -> None:
    """Stable Diffusion v1 and v2: a text-conditioned UNet over the latents of an autoencoder."""
    if not hasattr(unet, "attn_processors") or not hasattr(unet.config, "cross_attention_dim"):
        raise ValueError(f"unet is a {type(unet).__name__}, not a UNet2DConditionModel. {_REMEDY}")
    extras = [
        name
        for name in ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type")
        if getattr(unet.config, name, None) is not None
    ]
    if extras:
        raise ValueError(
            f"unet needs inputs besides an image and a prompt ({', '.join(extras)}), "
            f"like Stable Diffusion XL's. {_REMEDY}"
        )
    if unet.config.in_channels != vae.config.latent_channels:
        raise ValueError(
            f"unet takes {unet.config.in_channels} channels and vae makes "
            f"{vae.config.latent_channels}, as in a model for inpainting. {_REMEDY}"
        )
    if unet.config.cross_attention_dim != text_encoder.config.hidden_size:
        raise ValueError(
            f"unet reads text of width {unet.config.cross_attention_dim} and text_encoder writes "
            f"{text_encoder.config.hidden_size}. {_REMEDY}"
        )
    if not hasattr(scheduler.config, "num_train_timesteps"):
        raise ValueError(f"scheduler is a {type(scheduler).__name__} without a training schedule. {_REMEDY}")
