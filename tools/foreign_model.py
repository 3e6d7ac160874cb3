"""Write a model that is not the embedded one, small and complete, to try the notebooks on.

    make foreign    # writes it and runs all notebooks on it

Its UNet has other widths, heads and numbers of layers. Where its weights overlap with the embedded model's they are
those, so that its attention is poor but not uniform; the rest is random. Beside it, `hub` holds the embedded captioner
and vision transformer under the names of the real ones, as if they had been downloaded.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from diffseg import DiffSegPipeline
from diffseg.dino import DINO
from diffseg.models.captioner import BLIP
from diffseg.models.paths import data_dir

CHANGES = {
    "block_out_channels": (32, 48, 64, 64),
    "attention_head_dim": (4, 8, 8, 8),  # numbers of heads, in spite of the name
    "layers_per_block": 1,
}
THRESHOLD_FACTOR = 0.5  # its maps are more alike
HUB = {BLIP: "pocket-blip", DINO: "pocket-dino"}


def foreign_unet(pocket: UNet2DConditionModel, seed: int = 0) -> UNet2DConditionModel:
    """A UNet of another shape that has as many of the pocket model's weights as fit."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_config(pocket.config, **CHANGES)
    copy_overlap(pocket, unet)
    return unet


@torch.no_grad()
def copy_overlap(source: nn.Module, target: nn.Module) -> None:
    """The first rows and columns of each weight that both have."""
    known = source.state_dict()
    for name, weight in target.state_dict().items():
        if name in known and known[name].ndim == weight.ndim:
            overlap = tuple(slice(0, min(sides)) for sides in zip(weight.shape, known[name].shape, strict=True))
            weight[overlap] = known[name][overlap]


def write_hub(folder: Path) -> None:
    """A cache as huggingface_hub keeps it."""
    for name, source in HUB.items():
        entry = folder / ("models--" + name.replace("/", "--"))
        shutil.copytree(data_dir() / "models" / source, entry / "snapshots" / "1", dirs_exist_ok=True)
        (entry / "refs").mkdir(exist_ok=True)
        (entry / "refs" / "main").write_text("1")


def write_model(folder: Path) -> None:
    """The model, and the hub beside it."""
    pipe = DiffSegPipeline.from_pretrained("pocket")
    parts = pipe.components | {"unet": foreign_unet(pipe.unet)}
    parts = {name: part for name, part in parts.items() if part is not None}
    DiffSegPipeline(**parts, threshold=THRESHOLD_FACTOR * pipe.threshold).save_pretrained(folder)
    write_hub(folder / "hub")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write it")
    write_model(parser.parse_args().folder)


if __name__ == "__main__":
    main()
