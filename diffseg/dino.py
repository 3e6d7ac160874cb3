"""DinoSeg: DiffSeg's merging on the attention of a vision transformer, DINO's (Sec. 9.5)."""

import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from diffseg import IMAGE_SIZE, ITERATIONS, THRESHOLD
from diffseg.arguments import check_threshold
from diffseg.images import ImageLike, centre_square, load_image, read_image
from diffseg.merging import check_attention, check_settings
from diffseg.models.paths import MODEL_VARIABLE, POCKET, check_config, resolve_model
from diffseg.models.quiet import quiet_loading
from diffseg.models.settings import Settings, read_settings, write_settings
from diffseg.output import DiffSegOutput
from diffseg.plus import segment_attention

DINO = "facebook/dino-vitb8"  # the paper's: patches of 8 pixels, 224 pixels, 12 layers of 12 heads

#: Anchors along one side. Of 28 positions these 14 are every second, 0 to 26; the paper's 16 would be neighbours,
#: 6 to 21, and leave out all that lies near the border.
DINO_POINTS = 14

HEAD_MEAN = "head_mean"  # name of `head_mean_attention` in transformers
_REMEDY = f"Pass 'pocket' or a ViT trained by DINO, such as {DINO!r}."


def head_mean_attention(
    module: nn.Module,
    query: Float[Tensor, "n heads q d"],
    key: Float[Tensor, "n heads k d"],
    value: Float[Tensor, "n heads k d"],
    attention_mask: None = None,
    scaling: float | None = None,
    **unused,
) -> tuple[Float[Tensor, "n q heads d"], Float[Tensor, "n q k"]]:
    """Attention that hands out its probabilities averaged over heads; for inference, without mask and dropout.

    transformers' own "eager" attention hands them out per head: for ViT-B/8 12 x 12 maps of 785 x 785, 355 MB, all
    alive until the last layer is done. Averaged where they are made, they take 30 MB for the heads of one layer at a
    time, and 30 MB for the means of the 12 layers.
    """
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    probs = scores.softmax(dim=-1, dtype=torch.float32)
    return (probs.to(value.dtype) @ value).transpose(1, 2).contiguous(), probs.mean(dim=1)


AttentionInterface.register(HEAD_MEAN, head_mean_attention)


class DinoSegPipeline:
    """DinoSeg with any ViT of transformers that has square patches and one class token.

        pipe = DinoSegPipeline.from_pretrained("pocket")
        out = pipe("photo.jpg")
        out.labels    # [512, 512]

    As with `DiffSegPipeline`, the two halves can be called apart, `attend` and `segment`.

    Args:
        model: in place: it is switched to evaluation and to `head_mean_attention`.
        processor: of the model; resizes and normalises.
        threshold: this model's own merging threshold, the default of every call. The paper does not say which one it
            took for DINO.

    Raises:
        ValueError: for a model of another kind.
    """

    #: Anchors along one side, the default of `segment`.
    points = DINO_POINTS

    def __init__(self, model: ViTModel, processor, threshold: Real = THRESHOLD) -> None:
        _check_config(getattr(model, "config", None), f"model, a {type(model).__name__},")
        self.model, self.processor, self.threshold = model.eval(), processor, check_threshold(threshold)
        self.model.set_attn_implementation(HEAD_MEAN)

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike | None = None, threshold: Real | None = None, **kwargs
    ) -> "DinoSegPipeline":
        """Load a model by name.

        Args:
            name: "pocket", a folder, or a hub id. None: "pocket" if $DIFFSEG_MODEL is unset or "pocket"; if it names
                another Stable Diffusion, the paper's DINO.
            threshold: None: that of the folder's diffseg.json, or 1.0.
            **kwargs: of `ViTModel.from_pretrained` (dtype, revision, cache_dir, ...).

        Raises:
            FileNotFoundError, ValueError, OSError: if there is no such model, or it is not a ViT.
        """
        folder = resolve_model(_default_name() if name is None else name, pocket="pocket-dino")
        check_config(folder, _REMEDY)
        if threshold is None:
            threshold = read_settings(Path(folder)).threshold
        with quiet_loading():
            _check_config(AutoConfig.from_pretrained(folder, **kwargs), f"name={folder!r}")
            options = {"dtype": torch.float32} | kwargs
            model = ViTModel.from_pretrained(folder, add_pooling_layer=False, **options)
            processor = ViTImageProcessorPil.from_pretrained(folder, **kwargs)
        return cls(model, processor, threshold)

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Save a folder that transformers alone can load too, and diffseg.json in it."""
        self.model.save_pretrained(save_directory)
        self.processor.save_pretrained(save_directory)
        write_settings(Path(save_directory), Settings(self.threshold))

    def to(self, *args, **kwargs) -> "DinoSegPipeline":
        """Move the model, or change its dtype, as `torch.nn.Module.to` does."""
        self.model.to(*args, **kwargs)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def image_size(self) -> int:
        """Side of the image that the model takes, pixels."""
        return self.model.config.image_size

    @property
    def side(self) -> int:
        """Patches along one side."""
        return self.image_size // self.model.config.patch_size

    @torch.no_grad()
    def attend(self, image: ImageLike) -> Float[Tensor, "h w h w"]:
        """The first half: the attention among the patches, the plain mean over all layers and heads.

        The class token is left out, as a query and as a key; then the rows are normalised.

        Args:
            image: a PIL image, a uint8 array [h, w, 3], or a path; cropped to a square and resized to the model's size.

        Returns:
            float32 on the CPU; attention[i, j] sums to 1.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy.
        """
        return self._attend(read_image(image, self.image_size))

    def _attend(self, picture: Image.Image) -> Float[Tensor, "h w h w"]:
        pixels = self.processor(images=picture, return_tensors="pt").pixel_values
        layers = self.model(pixels.to(self.device, self.model.dtype), output_attentions=True).attentions
        mean = torch.stack([probs[0] for probs in layers]).mean(dim=0)  # [1 + patches, 1 + patches]
        patches = mean[1:, 1:]
        patches = patches / patches.sum(dim=-1, keepdim=True)
        return rearrange(patches, "(i j) (k l) -> i j k l", i=self.side, k=self.side).cpu()

    @torch.no_grad()
    def segment(
        self,
        attention: Float[Tensor, "h w h w"],
        points: int = DINO_POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        remove_merged: bool = True,
        size: int = IMAGE_SIZE,
        image: Image.Image | None = None,
        distances: Float[Tensor, "anchors positions"] | None = None,
    ) -> DiffSegOutput:
        """The second half: merge the attention into proposals, and let them compete for pixels.

        Args:
            attention: as `attend` returns it.
            points, iterations, remove_merged, distances: see `merge`.
            threshold: None takes the model's own.
            size: side of the labels, pixels.
            image: handed on to the output.

        Raises:
            ValueError: naming the argument, value and remedy.
        """
        threshold = self.threshold if threshold is None else threshold
        thresholds = check_settings(check_attention(attention), points, iterations, threshold)
        labels, proposals = segment_attention(
            attention.to(self.device), size, points, thresholds, remove_merged, distances
        )
        return DiffSegOutput(labels.cpu(), proposals.cpu(), attention, image)

    def __call__(
        self,
        image: ImageLike,
        points: int = DINO_POINTS,
        iterations: int = ITERATIONS,
        threshold: Real | Sequence[Real] | None = None,
        remove_merged: bool = True,
        size: int = IMAGE_SIZE,
    ) -> DiffSegOutput:
        """Segment an image: `attend`, then `segment`, where the arguments are described.

        Args:
            size: side of the labels and of the output's image. The model takes the image in its own size.

        Raises:
            TypeError, ValueError, FileNotFoundError: naming the argument, value and remedy; before the model runs.
        """
        threshold = self.threshold if threshold is None else threshold
        thresholds = check_settings(self.side, points, iterations, threshold)
        original = load_image(image)
        shown = centre_square(original, size)
        attention = self._attend(centre_square(original, self.image_size))
        labels, proposals = segment_attention(attention.to(self.device), size, points, thresholds, remove_merged)
        return DiffSegOutput(
            labels.cpu(),
            proposals.cpu(),
            attention,
            shown,
            original_size=(original.height, original.width),
        )


def _default_name() -> str:
    """The DINO that goes with the model of the notebooks."""
    return POCKET if (os.environ.get(MODEL_VARIABLE) or POCKET) == POCKET else DINO


def _check_config(config, name: str) -> None:
    """A plain vision transformer on square images, cut into square patches."""
    kind = getattr(config, "model_type", None)
    if kind != "vit":
        raise ValueError(f"{name} has the model type {kind!r}, not 'vit'. {_REMEDY}")
    if not (isinstance(config.image_size, int) and isinstance(config.patch_size, int)):
        raise ValueError(
            f"{name} takes images of {config.image_size} in patches of {config.patch_size} pixels; both must be "
            f"squares, given by one number. {_REMEDY}"
        )
