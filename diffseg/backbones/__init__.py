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
    alike = [family for family in FAMILIES if classes.get(family.denoiser) == family.denoiser_class]
    for family in alike:
        if set(family.parts) <= set(present):
            if all(isinstance(present[name], nn.Module) for name in (family.denoiser, "vae")):
                family.check(present)
            return family
    raise ValueError(f"{_what_is_wrong(classes, alike)} {REMEDY}")


def _what_is_wrong(classes: Mapping[str, str], alike: list[Backbone]) -> str:
    """Why components are of no family, though the denoiser may be one of some family's."""
    for denoiser in ("unet", "transformer"):
        if denoiser in classes and not alike:
            known = {family.denoiser_class: None for family in FAMILIES if family.denoiser == denoiser}
            return f"{denoiser} is a {classes[denoiser]}, not a {' or '.join(known)}."
    nearest = min(alike or [StableDiffusion], key=lambda family: len(family.parts))
    return f"the model comes without {', '.join(name for name in nearest.parts if name not in classes)}."
