"""The recipes of the embedded models: which stages each one is trained in, for how long, and what is saved.

Every recipe can be stopped at any time: the same call goes on from the checkpoints and data sets in its `runs` folder.
With `Recipe.deadline` it stops by itself and raises `OutOfTime`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from transformers import CLIPTokenizer

from ...dino import DinoSegPipeline
from ...models.settings import Settings, write_settings
from ...pipeline import DiffSegPipeline
from ..scenes import scene
from .blip import SIDE, build_processor, train_blip
from .dino import Distillation, build_vit, train_dino
from .dino import build_processor as build_dino_processor
from .latents import encode_scenes
from .pictures import draw_scenes
from .text import build_text_encoder, build_tokenizer
from .unet import Denoiser, build_scheduler, build_unet, train_unet
from .vae import train_vae
from .validation import tune, tune_dino
from .words import teacher_of, train_words


@dataclass(frozen=True)
class Stage:
    """A part of a training, at one size of picture."""

    size: int  # pixels: of the scene, whose latents' side is an eighth of it, or of pocket-dino's global crops
    scenes: int
    steps: int
    batch: int
    lr_scale: float = 1.0  # factor on the learning rates

    def longer(self, factor: float) -> "Stage":
        """More steps, on correspondingly more scenes."""
        return replace(self, scenes=round(self.scenes * factor), steps=round(self.steps * factor))


@dataclass(frozen=True)
class Recipe:
    """Lengths of all stages. UNet and ViT start on small pictures, which are quick, and end on the size of use."""

    vae_steps: int = 600
    vae_batch: int = 16
    unet: tuple[Stage, ...] = (
        Stage(256, 12000, 60000, 8),
        Stage(384, 8000, 8000, 4, 0.7),
        Stage(512, 6000, 6000, 4, 0.5),
    )
    words: Stage = Stage(256, 10000, 9500, 8)
    blip_scenes: int = 16000
    blip_steps: int = 2500
    blip_batch: int = 32
    dino: tuple[Stage, ...] = (Stage(112, 3000, 600, 16, 2.5), Stage(224, 600, 20, 8))
    tuning_scenes: int = 40
    captions: int = 2000  # from which the tokenizer learns
    rich: bool = False  # which world the models learn, see `scene`
    workers: int = 2
    deadline: float = math.inf  # value of `time.monotonic()` after which training stops, to be resumed

    def longer(self, factor: float) -> "Recipe":
        """The same recipe with more steps, on correspondingly more scenes."""
        return replace(
            self,
            vae_steps=round(self.vae_steps * factor),
            blip_scenes=round(self.blip_scenes * factor),
            blip_steps=round(self.blip_steps * factor),
            unet=tuple(stage.longer(factor) for stage in self.unet),
            words=self.words.longer(factor),
            dino=tuple(stage.longer(factor) for stage in self.dino),
        )


def train_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train all parts of pocket-sd and save them as one diffusers folder.

    Args:
        recipe: lengths of the stages.
        runs: for checkpoints, latents and logs.
        target: the model's folder; receives the weights, `diffseg.json` with the threshold, `tuning.csv`
            and `training.csv`.
        device: where to train.

    Raises:
        OutOfTime: after the recipe's deadline, as do all recipes.
    """
    vae = train_vae(runs / "vae", recipe.vae_steps, recipe.vae_batch, device, recipe.deadline, recipe.rich)
    tokenizer = _learn_tokenizer(recipe)
    torch.manual_seed(0)
    pipe = DiffSegPipeline(vae, build_text_encoder(tokenizer), tokenizer, build_unet(), build_scheduler())
    _train_unet_in_stages(pipe, recipe.unet, recipe, runs, device)
    _teach_words(pipe, recipe, runs, device)
    _save(pipe, pd.concat([_log(runs, "vae"), *_unet_logs(runs, recipe.unet), _log(runs, "words")]), target)
    tune(target, recipe.tuning_scenes, recipe.rich)


def improve_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the UNet and text encoder of an existing model on, in all stages but the first, and save it in its place.

    Args:
        recipe: as for training from nothing.
        runs: for checkpoints, latents and logs: the same folder to go on after a stop, a new one for another round.
        target: the model's folder, read and written.
        device: where to train.
    """
    pipe, stages = DiffSegPipeline.from_pretrained(target), recipe.unet[1:]
    _train_unet_in_stages(pipe, stages, recipe, runs / "more", device)
    _teach_words(pipe, recipe, runs / "more", device)
    logs = [pd.read_csv(target / "training.csv"), *_unet_logs(runs / "more", stages), _log(runs / "more", "words")]
    _save(pipe, pd.concat(logs), target)
    tune(target, recipe.tuning_scenes, recipe.rich)


def teach_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the cross-attention and text encoder of an existing model from random weights, and save it in its place.

    Args:
        recipe: `words`, `captions`, `tuning_scenes`, `workers` and `deadline` are used.
        runs, target, device: as in `improve_pocket_sd`.
    """
    pipe = DiffSegPipeline.from_pretrained(target)
    _teach_words(pipe, recipe, runs, device)
    before = pd.read_csv(target / "training.csv").query("stage != 'words'")
    _save(pipe, pd.concat([before, _log(runs, "words")]), target)
    tune(target, recipe.tuning_scenes, recipe.rich)


def train_pocket_blip(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the captioner and save it as a transformers folder with its processor, in half precision.

    Args:
        recipe: `blip_*`, `captions`, `workers` and `deadline` are used.
        runs: for checkpoint, pictures and log.
        target: the model's folder; receives `training.csv` too.
        device: where to train.
    """
    pictures = draw_scenes(recipe.blip_scenes, SIDE, runs / "pictures", recipe.workers, recipe.deadline, recipe.rich)
    processor = build_processor(pictures.captions[: recipe.captions])
    blip = train_blip(pictures, processor, runs / "blip", recipe.blip_steps, recipe.blip_batch, device, recipe.deadline)
    blip.to("cpu").half().save_pretrained(target)
    processor.save_pretrained(target)
    _log(runs, "blip").to_csv(target / "training.csv", index=False)


def train_pocket_dino(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the ViT of DinoSeg and save it as a transformers folder with its processor, in half precision.

    Args:
        recipe: `dino`, `tuning_scenes`, `workers` and `deadline` are used.
        runs: for checkpoints, pictures and logs.
        target: the model's folder; receives `diffseg.json` with the threshold, `tuning.csv` and `training.csv` too.
        device: where to train.
    """
    torch.manual_seed(0)
    distillation = Distillation(build_vit())
    for stage in recipe.dino:
        # Twice as large as the crops: a crop of a part is then seldom enlarged.
        pictures = draw_scenes(
            stage.scenes, 2 * stage.size, runs / "pictures", recipe.workers, recipe.deadline, recipe.rich
        )
        distillation = train_dino(
            distillation, pictures, runs / f"dino-{stage.size}", stage.size, stage.steps, stage.batch, stage.lr_scale,
            device, recipe.deadline,
        )  # fmt: skip
    vit = distillation.teacher.vit.to("cpu").half()
    DinoSegPipeline(vit, build_dino_processor()).save_pretrained(target)
    logs = pd.concat([_log(runs, f"dino-{stage.size}") for stage in recipe.dino])
    logs.to_csv(target / "training.csv", index=False)
    tune_dino(target, recipe.tuning_scenes, recipe.rich)


def _train_unet_in_stages(
    pipe: DiffSegPipeline, stages: Sequence[Stage], recipe: Recipe, runs: Path, device: str
) -> None:
    """Train the pipeline's UNet and text encoder, in place, on one size of scene after the other."""
    for stage in stages:
        latents = encode_scenes(
            pipe.vae, stage.scenes, stage.size, runs / "latents", recipe.workers, deadline=recipe.deadline,
            rich=recipe.rich,
        )  # fmt: skip
        denoiser = Denoiser(pipe.unet, pipe.text_encoder).requires_grad_(True)
        denoiser = train_unet(
            denoiser, pipe.tokenizer, latents, runs / f"unet-{stage.size}", stage.steps, stage.batch,
            stage.lr_scale, device, seed=stage.size, deadline=recipe.deadline,
        )  # fmt: skip
        pipe.register_modules(unet=denoiser.unet, text_encoder=denoiser.text_encoder)


def _teach_words(pipe: DiffSegPipeline, recipe: Recipe, runs: Path, device: str) -> None:
    """Give the pipeline a new tokenizer, text encoder and cross-attention, and train them."""
    stage, tokenizer = recipe.words, _learn_tokenizer(recipe)
    latents = encode_scenes(
        pipe.vae, stage.scenes, stage.size, runs / "latents", recipe.workers, painted=True,
        deadline=recipe.deadline, rich=recipe.rich,
    )  # fmt: skip
    teacher = teacher_of(Denoiser(pipe.unet, pipe.text_encoder), pipe.tokenizer)
    torch.manual_seed(stage.size)
    denoiser = Denoiser(pipe.unet, build_text_encoder(tokenizer))
    denoiser = train_words(
        denoiser, tokenizer, teacher, latents, runs / "words", stage.steps, stage.batch, device,
        deadline=recipe.deadline,
    )  # fmt: skip
    pipe.register_modules(unet=denoiser.unet, text_encoder=denoiser.text_encoder, tokenizer=tokenizer)


def _learn_tokenizer(recipe: Recipe) -> CLIPTokenizer:
    return build_tokenizer(scene(seed, 64).caption for seed in range(recipe.captions))


def _unet_logs(runs: Path, stages: Sequence[Stage]) -> list[pd.DataFrame]:
    return [_log(runs, f"unet-{stage.size}") for stage in stages]


def _save(pipe: DiffSegPipeline, logs: pd.DataFrame, target: Path) -> None:
    # Half the size on disk. transformers, unlike diffusers, would also load half precision as such: text stays.
    pipe.to("cpu")
    pipe.unet.half()
    pipe.vae.half()
    pipe.save_pretrained(target)
    write_settings(target, Settings(pipe.threshold, captioner="../pocket-blip"))
    _declare_stable_diffusion(target)
    logs.to_csv(target / "training.csv", index=False)


def _declare_stable_diffusion(target: Path) -> None:
    """Write into the folder that it is a StableDiffusionPipeline, so that diffusers alone can load it."""
    for file in (target / "model_index.json", *target.glob("*/config.json")):
        settings = json.loads(file.read_text())
        settings.pop("_name_or_path", None)  # where an earlier version was loaded from
        if file.parent == target:
            settings = {name: value for name, value in settings.items() if value != [None, None]}  # of other families
            settings["_class_name"] = "StableDiffusionPipeline"
            settings |= {name: [None, None] for name in ("safety_checker", "feature_extractor")}
            settings["requires_safety_checker"] = False
        file.write_text(json.dumps(settings, indent=2) + "\n")


def _log(runs: Path, stage: str) -> pd.DataFrame:
    return pd.read_csv(runs / stage / "log.csv").assign(stage=stage)
