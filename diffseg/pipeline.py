"""The thin pipeline that walks an image through the chapters: diffuse, attend, segment."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import FromSingleFileMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diffseg import ITERATIONS, POINTS, SEED, THRESHOLD, TIMESTEP
from diffseg.aggregation import aggregate, check_weights
from diffseg.arguments import check_threshold, check_whole
from diffseg.attention import RecordedLayer, record_attention
from diffseg.backbones import find_backbone
from diffseg.diffuse import check_seed, draw_noise, encode, to_tensor
from diffseg.images import ImageLike, centre_square, fit_whole, load_image
from diffseg.merging import check_attention, check_settings
from diffseg.models.captioner import BLIP, Captioner
from diffseg.models.handle import ModelHandle
from diffseg.models.loading import find_model, load_file
from diffseg.models.paths import name_model
from diffseg.models.quiet import quiet_loading
from diffseg.models.settings import Settings, write_settings
from diffseg.output import DiffSegOutput, plain_settings
from diffseg.plus import PAPER, Method, find_method, segment_attention
from diffseg.progress import silent
from diffseg.semantics import Vocabulary, find_nouns, find_tokens, name_masks, name_words


class DiffSegPipeline(DiffusionPipeline, FromSingleFileMixin):
    """DiffSeg with a Stable Diffusion: v1, v2, XL, or the pocket model; SD3 and FLUX are experimental.

        pipe = DiffSegPipeline.from_pretrained("pocket")
        out = pipe("photo.jpg")
        out.labels    # [512, 512]

    `pipe.to("cuda")`, `dtype=`, offloading, `pipe.components` and the rest come from diffusers. The two
    halves can be called apart, to try many settings on one pass through the model, and `pipe.record` gives the
    layers one by one:

        attention = pipe.attend("photo.jpg")
        out = pipe.segment(attention, threshold=0.8)

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: as in `StableDiffusionPipeline`. The
            scheduler gives the noise schedule only; nothing is sampled.
        threshold: this model's own merging threshold, the default of every call.
        text_encoder_2, tokenizer_2, text_encoder_3, tokenizer_3, transformer: of models that have them.

    Attributes:
        backbone: what is particular to the family of the model, see `diffseg.backbones`.
        captioner: what says words="caption", a `Captioner` or anything from image to sentence. None until it is needed
            or set; then the one that the model's diffseg.json names, or BLIP.

    Raises:
        ValueError: if the components are not those of a model that is known.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->vae->unet->transformer"
    _optional_components = [
        "unet", "scheduler", "transformer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3",
    ]  # fmt: skip

    #: Anchors along one side, the default of `segment`.
    points = POINTS

    def __init__(
        self,
        vae,
        text_encoder,
        tokenizer,
        unet=None,
        scheduler=None,
        threshold: Real = THRESHOLD,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=None,
    ):
        super().__init__()
        parts = {
            "vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet, "scheduler": scheduler,
            "text_encoder_2": text_encoder_2, "tokenizer_2": tokenizer_2, "text_encoder_3": text_encoder_3,
            "tokenizer_3": tokenizer_3, "transformer": transformer,
        }  # fmt: skip
        self.backbone = find_backbone(parts)
        if not hasattr(scheduler.config, "num_train_timesteps"):
            raise ValueError(f"scheduler is a {type(scheduler).__name__} without a training schedule.")
        self.register_modules(**parts)
        self.threshold = check_threshold(threshold)
        self.captioner: Callable[[Image.Image], str] | None = None
        self._captioner_name = BLIP
        self._name: str | None = None

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike | None = None, **kwargs) -> "DiffSegPipeline":
        """Load a model by name.

        Args:
            name: "pocket", a folder, a single file (.safetensors or .ckpt), or a hub id; None: $DIFFSEG_MODEL, else
                "pocket".
            **kwargs: of `DiffusionPipeline.from_pretrained` (dtype or torch_dtype, variant, revision, device_map,
                local_files_only, ...), and `threshold`, which overrides the one in the folder's diffseg.json. Of a
                single file, those of `from_single_file`; `config`, a folder of its family, spares it the network.

        Raises:
            FileNotFoundError, ValueError: if there is no such model, or it is of an unknown kind.
            OSError: if the hub does not give it; the message says what to do.
        """
        load = super().from_pretrained
        with quiet_loading():
            found, settings = find_model(name, kwargs)
            kwargs.setdefault("threshold", settings.threshold)
            pipe = load_file(cls.from_single_file, found, kwargs) if os.path.isfile(found) else load(found, **kwargs)
        pipe._captioner_name = settings.captioner or BLIP
        pipe._name = name_model(name)
        return pipe

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save a folder that the stock pipeline can load too, and diffseg.json in it."""
        super().save_pretrained(save_directory, **kwargs)
        captioner = None if self._captioner_name == BLIP else self._captioner_name
        if captioner and os.path.isdir(captioner):
            captioner = Path(os.path.relpath(captioner, save_directory)).as_posix()
        write_settings(Path(save_directory), Settings(self.threshold, captioner))

    def to(self, *args, **kwargs) -> "DiffSegPipeline":
        """Move all components, and the captioner with them, or change their dtype; see `DiffusionPipeline.to`."""
        super().to(*args, **kwargs)
        if isinstance(self.captioner, Captioner):
            self.captioner.to(self._execution_device)
        return self

    def describe(self, captioned: bool = False) -> dict[str, str | None]:
        """Name and fingerprint, as an output of this model writes them down; see `ModelHandle.describe`."""
        if captioned:
            self._own_captioner()
        return ModelHandle(self._name, self).describe(captioned)

    @torch.no_grad()
    def record(
        self,
        image: ImageLike | Sequence[ImageLike],
        prompt: str = "",
        timestep: int = TIMESTEP,
        seed: int | torch.Generator = SEED,
        noise: bool = True,
        size: int | None = None,
        kinds: Sequence[str] = ("self",),
        heads: str = "mean",
        crop: bool = True,
    ) -> list[RecordedLayer]:
        """The attention of every layer in one pass over the image.

        Args:
            image, prompt, timestep, seed, noise, size, crop: as in `attend`; of a list of images, which must have one
                shape, all in one pass.
            kinds, heads: as in `record_attention`.

        Returns:
            One entry per layer, in the order of the computation, on the model's device.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
        """
        size = self._check_pass(prompt, timestep, seed, size)
        pictures = [self.fit(load_image(each), size, crop) for each in _as_list(image)]
        shapes = {picture.size for picture in pictures}
        if len(shapes) > 1:
            raise ValueError(f"image holds pictures of the sizes {sorted(shapes)}; record those of one size at a time.")
        latent = self._diffused(pictures, timestep, seed, noise)
        layers = self._record(latent, [prompt] * len(pictures), timestep, kinds, heads)
        self.maybe_free_model_hooks()
        return layers

    @torch.no_grad()
    def attend(
        self,
        image: ImageLike,
        prompt: str = "",
        timestep: int = TIMESTEP,
        seed: int | torch.Generator = SEED,
        noise: bool = True,
        weights: str | Mapping[int, Real] = "layer",
        size: int | None = None,
        crop: bool = True,
    ) -> Float[Tensor, "h w h w"]:
        """The first half: one pass over the image, aggregated.

        Args:
            image: a PIL image, a uint8 array [h, w, 3], or a path.
            prompt: the paper segments with the empty one.
            timestep: t, an index of the training schedule.
            seed: of the noise, or a generator to draw it from.
            noise: False leaves the latent clean, as the released code does.
            weights: of the layers, see `aggregate`.
            size: the shorter side of what the model gets, pixels, a multiple of `pipe.size_step`; None: what the model
                was made for, 512 for Stable Diffusion v1.
            crop: True, the paper: the central square. False: the whole picture in its own shape.

        Returns:
            float32 on the CPU; attention[i, j] sums to 1. Its size is that of the finest layer.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
        """
        size = self._check_pass(prompt, timestep, seed, size)
        check_weights(weights)
        picture = self.fit(load_image(image), size, crop)
        layers = self._record(self._diffused([picture], timestep, seed, noise), [prompt], timestep)
        self.maybe_free_model_hooks()
        return _aggregate(layers, weights).cpu()

    @torch.no_grad()
    def segment(
        self,
        attention: Float[Tensor, "h w h w"],
        points: int = POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        remove_merged: bool = True,
        size: int | tuple[int, int] | None = None,
        image: Image.Image | None = None,
        distances: Float[Tensor, "anchors positions"] | None = None,
        method: str | Method = PAPER,
    ) -> DiffSegOutput:
        """The second half: merge the attention into proposals, and let them compete for pixels.

        Args:
            attention: as `attend` returns it.
            points, iterations, remove_merged, distances: see `merge`.
            threshold: None takes the model's own.
            size: side of the labels, or their (height, width), pixels; None: that of the image the attention came from.
            image: handed on to the output; a method that follows the picture's edges needs it.
            method: "paper", "plus", or a `Method`, of which `draws` belong to the first half and do nothing here.

        Raises:
            ValueError: naming the argument, value and remedy.
        """
        method = find_method(method)
        if method.rounds and image is None:
            raise ValueError(
                "image=None, but the method follows the edges of the picture; pass the image, as `fit` gives it."
            )
        threshold = self.default_threshold(method) if threshold is None else threshold
        grid = check_attention(attention)
        size = tuple(side * self.pixels_per_position for side in grid) if size is None else size
        thresholds = check_settings(grid, points, iterations, threshold)
        labels, proposals = segment_attention(
            attention.to(self._execution_device), size, points, thresholds, remove_merged, distances, method, image
        )
        settings = {
            "points": points,
            "iterations": iterations,
            "threshold": threshold,
            "remove_merged": remove_merged,
            "method": method.changes(),
        }
        return DiffSegOutput(
            labels.cpu(),
            proposals.cpu(),
            attention.cpu(),
            image,
            settings=plain_settings(settings),
            model=ModelHandle(self._name, self),
        )

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        prompt: str = "",
        timestep: int = TIMESTEP,
        points: int = POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        seed: int = SEED,
        noise: bool = True,
        weights: str | Mapping[int, Real] = "layer",
        remove_merged: bool = True,
        size: int | None = None,
        words: str | Sequence[str] | None = None,
        prompted_masks: bool = False,
        crop: bool = True,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int = 4,
        return_dict: bool = True,
        method: str | Method = PAPER,
    ) -> DiffSegOutput | tuple | list:
        """Segment an image: `attend`, then `segment`, where the other arguments are described.

        Args:
            image: one, or a list; images of one shape go through the model in one batch.
            words: None: masks only. A list of nouns: each mask gets the one whose cross-attention is strongest in it,
                and masks of one noun become one (Eq. 11). "caption": the nouns of a caption of the image.
            prompted_masks: False: the masks come from a pass with `prompt`, as in the paper; True: with the caption
                or the list of words as the prompt, as in the released code.
            generator: draws the noise in place of `seed`, the same for all images; or a list with one for each image.
            batch_size: how many images go through the model together at most.
            return_dict: False gives tuples, as in diffusers.
            method: "paper"; "plus", which follows the edges of the picture (notebook 12); or a `Method`.

        Returns:
            An output, or a list of them for a list of images.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy;
                before the model runs.
        """
        size = self._check_pass(prompt, timestep, seed, size)
        method = find_method(method)
        draws = method.draws if noise else 1  # without noise they would all be alike
        threshold = self.default_threshold(method) if threshold is None else threshold
        thresholds = check_settings(size // self.pixels_per_position, points, iterations, threshold)
        check_weights(weights)
        check_whole("batch_size", batch_size, "So many images go through the model together.")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1: images that go through the model together.")
        settings = plain_settings(
            {
                "prompt": prompt, "timestep": timestep, "points": points, "iterations": iterations,
                "threshold": threshold, "seed": seed if generator is None else None, "noise": noise, "weights": weights,
                "remove_merged": remove_merged, "size": size, "words": words, "prompted_masks": prompted_masks,
                "crop": crop, "method": method.changes(),
            }
        )  # fmt: skip
        images = _as_list(image)
        sources = _sources(seed, generator, len(images))
        pictures, original_sizes = [], []
        for each in images:  # one at a time: those that were given may be large
            original = load_image(each)
            original_sizes.append((original.height, original.width))
            pictures.append(self.fit(original, size, crop))
        vocabularies = [None if words is None else self.vocabulary(picture, words) for picture in pictures]
        outs: list[DiffSegOutput | None] = [None] * len(pictures)
        for batch in self._with_bar(_batches(pictures, batch_size)):
            encoded = self._encoded([pictures[index] for index in batch])
            noise_of = [sources[index] for index in batch]
            spoken = [vocabularies[index] for index in batch]
            latent = self._noised(encoded, timestep, noise_of, noise)
            passes = self._attend_to_words(latent, spoken, prompt, prompted_masks, timestep)
            attentions = [_aggregate(selfs, weights) for selfs, _ in passes]
            for _ in range(1, draws):
                latent = self._noised(encoded, timestep, noise_of, noise)
                layers = self._record(latent, _mask_prompts(spoken, prompt, prompted_masks), timestep)
                for attention, selfs in zip(attentions, _by_picture(layers, len(batch)), strict=True):
                    attention += _aggregate(selfs, weights)
            for index, attention, (_, crosses) in zip(batch, attentions, passes, strict=True):
                picture = pictures[index]
                attention /= draws
                labels, proposals = segment_attention(
                    attention, (picture.height, picture.width), points, thresholds, remove_merged, method=method,
                    image=picture,
                )  # fmt: skip
                outs[index] = DiffSegOutput(
                    **name_masks(labels, proposals, crosses, vocabularies[index]),
                    attention=attention.cpu(),
                    image=picture,
                    original_size=original_sizes[index],
                    crop=crop,
                    file=_file_name(images[index]),
                    settings=settings,
                    model=ModelHandle(self._name, self),
                )
        self.maybe_free_model_hooks()
        results = outs if return_dict else [out.to_tuple() for out in outs]
        return results if isinstance(image, (list, tuple)) else results[0]

    def default_threshold(self, method: str | Method = PAPER) -> float:
        """The threshold that a call takes if none is given: the model's own, times the method's factor."""
        return self.threshold * find_method(method).factor

    @property
    def vae_scale_factor(self) -> int:
        """Pixels per latent pixel, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def pixels_per_position(self) -> int:
        """Pixels per position of the finest attention, along one side."""
        return self.backbone.pixels_per_position(self)

    @property
    def size_step(self) -> int:
        """Image sizes must be multiples of this."""
        return self.backbone.size_step(self)

    def fit(self, picture: Image.Image, size: int, crop: bool) -> Image.Image:
        """What of a picture the model gets to see; `crop` as in a call of the pipeline."""
        return centre_square(picture, size) if crop else fit_whole(picture, size, self.size_step)

    def vocabulary(self, picture: Image.Image, words: str | Sequence[str]) -> Vocabulary:
        """What the masks of a picture may be called, and where in the prompt the model reads it.

        Args:
            picture: for a caption; as `fit` gives it.
            words: as in a call of the pipeline.

        Raises:
            TypeError, ValueError: for words that make no sense, or more than the model reads.
        """
        if isinstance(words, str) and words != "caption":
            raise ValueError(f"words={words!r} must be 'caption', a list of nouns such as ['car', 'road'], or None.")
        if words == "caption":
            prompt = self._own_captioner()(picture)
            nouns = find_nouns(prompt)
        else:
            prompt, nouns = name_words(words)
        if not nouns:
            warnings.warn(f"the caption {prompt!r} has no noun: the masks stay without names.", stacklevel=3)
        return Vocabulary(prompt, nouns, find_tokens(self.backbone.tokenizer(self), prompt, nouns))

    def _check_pass(self, prompt: str, timestep: int, seed: int | torch.Generator, size: int | None) -> int:
        """What a pass is given, checked; the size, or the model's own for None."""
        size = self.backbone.default_size(self) if size is None else size
        steps = self.scheduler.config.num_train_timesteps
        if not isinstance(prompt, str):
            raise TypeError(f"prompt={prompt!r} must be a text; pass '' for none, as the paper does.")
        check_seed(seed)
        check_whole("timestep", timestep, f"The paper takes {TIMESTEP}.")
        check_whole("size", size, f"In pixels; this model was made for {self.backbone.default_size(self)}.")
        if not 0 <= timestep < steps:
            raise ValueError(
                f"timestep={timestep} is outside the model's schedule, 0 to {steps - 1}; the paper takes {TIMESTEP}."
            )
        if size < self.size_step or size % self.size_step:
            raise ValueError(
                f"size={size} must be a positive multiple of {self.size_step} for this model; "
                f"it was made for {self.backbone.default_size(self)}."
            )
        return int(size)

    def _diffused(
        self,
        pictures: Sequence[Image.Image],
        timestep: int,
        seed: int | torch.Generator | Sequence[torch.Generator],
        noise: bool,
    ) -> Float[Tensor, "n c h w"]:
        """Latents of pictures of one shape, noised if asked for."""
        return self._noised(self._encoded(pictures), timestep, seed, noise)

    def _encoded(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "n c h w"]:
        """Latents of pictures of one shape."""
        return encode(self.vae, torch.cat([to_tensor(picture) for picture in pictures]).to(self._execution_device))

    def _noised(
        self,
        latent: Float[Tensor, "n c h w"],
        timestep: int,
        seed: int | torch.Generator | Sequence[torch.Generator],
        noise: bool,
    ) -> Float[Tensor, "n c h w"]:
        """Latents with noise if asked for; a generator is advanced by one draw."""
        if not noise:
            return latent
        drawn = draw_noise(latent.shape, seed).to(latent.device)
        return self.backbone.add_noise(self, latent, drawn, timestep)

    def _record(
        self,
        latent: Float[Tensor, "n c h w"],
        prompts: Sequence[str],
        timestep: int,
        kinds: Sequence[str] = ("self",),
        heads: str = "mean",
    ) -> list[RecordedLayer]:
        """One recorded pass."""
        conditions = self.backbone.embed(self, list(prompts))
        with record_attention(getattr(self, self.backbone.denoiser), kinds, heads) as layers:
            self.backbone.denoise(self, latent, timestep, conditions)
        return layers

    def _attend_to_words(
        self,
        latent: Float[Tensor, "n c h w"],
        vocabularies: Sequence[Vocabulary | None],
        prompt: str,
        prompted_masks: bool,
        timestep: int,
    ) -> list[tuple[list[RecordedLayer], list[RecordedLayer]]]:
        """Self-attention, for the masks, and cross-attention, for their names, of each picture.

        Where both come from the same prompts, one pass gives both.
        """
        named = _mask_prompts(vocabularies, prompt, prompted_masks=True)
        for_masks = _mask_prompts(vocabularies, prompt, prompted_masks)
        wanted = any(vocabulary and vocabulary.nouns for vocabulary in vocabularies)
        kinds = ("self", "cross") if wanted and named == for_masks else ("self",)
        layers = self._record(latent, for_masks, timestep, kinds)
        if wanted and named != for_masks:
            layers = layers + self._record(latent, named, timestep, ("cross",))
        return [
            tuple([each for each in one if each.kind == kind] for kind in ("self", "cross"))
            for one in _by_picture(layers, len(latent))
        ]

    def _own_captioner(self) -> Callable[[Image.Image], str]:
        """The captioner, loaded when it is first needed."""
        if self.captioner is None:
            self.captioner = Captioner.from_pretrained(self._captioner_name).to(self._execution_device)
        return self.captioner

    def _with_bar(self, batches: list[list[int]]) -> Iterable[list[int]]:
        """The batches, with diffusers' progress bar if there are several."""
        return batches if len(batches) == 1 or silent() else self.progress_bar(batches)


# ---- helpers --------------------------------------------------------------------------------------------------------


def _as_list(image: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    images = list(image) if isinstance(image, (list, tuple)) else [image]
    if not images:
        raise ValueError("image is an empty list; pass one picture or more.")
    return images


def _file_name(image: ImageLike) -> str | None:
    return Path(image).name if isinstance(image, str | os.PathLike) else None


def _sources(
    seed: int | torch.Generator, generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    """A generator of noise for each image. A seed, or a single generator, gives all of them the same noise."""
    if generator is None:
        generator = torch.Generator("cpu").manual_seed(int(seed)) if isinstance(seed, Integral) else seed
    if isinstance(generator, torch.Generator):
        return [generator, *(generator.clone_state() for _ in range(count - 1))]
    if not isinstance(generator, Sequence) or not all(isinstance(each, torch.Generator) for each in generator):
        raise TypeError(f"generator={generator!r} must be a torch.Generator, or a list of them, one for each image.")
    if len(generator) != count:
        raise ValueError(f"generator has {len(generator)} generators for {count} images; pass one for each, or one.")
    return list(generator)


def _batches(pictures: Sequence[Image.Image], size: int) -> list[list[int]]:
    """Indices of pictures that can go through the model together."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_shape.setdefault(picture.size, []).append(index)
    return [alike[start : start + size] for alike in by_shape.values() for start in range(0, len(alike), size)]


def _mask_prompts(vocabularies: Sequence[Vocabulary | None], prompt: str, prompted_masks: bool) -> list[str]:
    """The prompt that the masks of each picture come from: its words' if there are any and they are wanted."""
    return [each.prompt if prompted_masks and each is not None and each.nouns else prompt for each in vocabularies]


def _by_picture(layers: Sequence[RecordedLayer], count: int) -> list[list[RecordedLayer]]:
    """The layers of each picture of a batch."""
    return [list(layers)] if count == 1 else [[layer.picture(index) for layer in layers] for index in range(count)]


def _aggregate(layers: Sequence[RecordedLayer], weights: str | Mapping[int, Real]) -> Float[Tensor, "h w h w"]:
    """All layers of one picture, at the size of the finest."""
    return aggregate([layer.probs for layer in layers], max(layer.grid for layer in layers), weights)
