"""What differs between diffusion models: how they take a prompt, how they are noised, what one pass needs.

A family is one small file with a class that follows `Backbone`. To add one, write such a file and list it in
`FAMILIES`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from diffseg.backbones.flux import Flux
from diffseg.backbones.sd3 import StableDiffusion3
from diffseg.backbones.sdxl import StableDiffusionXL
from diffseg.backbones.stable_diffusion import StableDiffusion

REMEDY = "Pass 'pocket' or Stable Diffusion, such as 'CompVis/stable-diffusion-v1-4'."


@runtime_checkable
class Backbone(Protocol):
    """A family of models.

    Attributes:
        denoiser: name of the component that is recorded.
        denoiser_class: its class in diffusers.
        parts: names of all components that a pass needs.
    """

    denoiser: str
    denoiser_class: str
    parts: tuple[str, ...]

    def check(self, parts: Mapping[str, Any]) -> None:
        """ValueError, with what is wrong, unless the components fit together."""

    def default_size(self, pipe: Any) -> int:
        """Side of the pictures that the model was made for, pixels."""

    def size_step(self, pipe: Any) -> int:
        """Sides of pictures must be multiples of this, pixels."""

    def pixels_per_position(self, pipe: Any) -> int:
        """Pixels per position of the finest attention, along one side."""

    def tokenizer(self, pipe: Any) -> Any:
        """The tokenizer whose tokens are the keys of cross-attention, the first ones if there are others."""

    def embed(self, pipe: Any, prompts: list[str]) -> dict[str, Tensor]:
        """Prompts as the denoiser takes them."""

    def add_noise(
        self, pipe: Any, latent: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], timestep: int
    ) -> Float[Tensor, "n c h w"]:
        """A latent, diffused to a step."""

    def denoise(
        self, pipe: Any, latent: Float[Tensor, "n c h w"], timestep: int, conditions: dict[str, Tensor]
    ) -> None:
        """One pass, whose result nobody needs."""


FAMILIES: tuple[Backbone, ...] = (StableDiffusionXL(), StableDiffusion(), StableDiffusion3(), Flux())


def find_backbone(parts: Mapping[str, Any]) -> Backbone:
    """The family of some components, each given by itself or by the name of its class; None where there is none.

    Raises:
        ValueError: if they belong to no family, or do not fit together.
    """
    present = {name: part for name, part in parts.items() if part is not None}
    classes = {name: part if isinstance(part, str) else type(part).__name__ for name, part in present.items()}
    complete = [family for family in FAMILIES if set(family.parts) <= set(present)]
    for family in complete:
        if classes[family.denoiser] == family.denoiser_class:
            if all(isinstance(present[name], nn.Module) for name in (family.denoiser, "vae")):
                family.check(present)
            return family
    if complete:
        family = min(complete, key=lambda each: len(each.parts))
        raise ValueError(f"{family.denoiser} is a {classes[family.denoiser]}, not a {family.denoiser_class}. {REMEDY}")
    missing = [name for name in StableDiffusion.parts if name not in present]
    raise ValueError(f"the model comes without {', '.join(missing)}. {REMEDY}")
