"""Train the embedded models again: `python -m diffseg.pocket.train all`.

Every stage is resumable: stop it whenever you like and give the same command again. The defaults take about an hour and
a half on two CPU cores; `--longer 4` trains four times as long. `more` goes on from the weights that are there.
"""

import argparse
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from diffusers import AutoencoderKL

from ..paths import data_dir
from ..pipeline import SETTINGS_FILE, DiffSegPipeline
from .latents import encode_scenes
from .scenes import TUNING_SEED, VALIDATION_SEED, scene
from .text import build_text_encoder, build_tokenizer
from .tune import best_threshold, sweep
from .unet import Denoiser, build_scheduler, build_unet, train_unet
from .vae import train_vae


@dataclass(frozen=True)
class Recipe:
    """Lengths of the stages; "small" is 256 pixels (32x32 latents), "large" 512 pixels (64x64)."""

    vae_steps: int = 340
    vae_batch: int = 16
    small_scenes: int = 8000
    small_steps: int = 3500
    small_batch: int = 8
    large_scenes: int = 1100
    large_steps: int = 1150
    large_batch: int = 2
    large_speed: float = 0.35  # learning rate of the last stage, relative to the first
    tuning_scenes: int = 40
    captions: int = 2000  # from which the tokenizer learns
    workers: int = 2

    def longer(self, factor: float) -> "Recipe":
        """The same recipe with more steps, on correspondingly more scenes."""
        stretched = ("vae_steps", "small_scenes", "small_steps", "large_scenes", "large_steps")
        return replace(self, **{name: round(getattr(self, name) * factor) for name in stretched})


def train_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train all parts of pocket-sd and save them as one diffusers folder.

    Args:
        recipe: lengths of the stages.
        runs: for checkpoints, latents and logs.
        target: the model's folder; receives the weights, `diffseg.json` with the threshold, `tuning.csv`
            and `training.csv`.
        device: where to train.
    """
    vae = train_vae(runs / "vae", recipe.vae_steps, recipe.vae_batch, device)
    tokenizer = build_tokenizer(scene(seed, 64).caption for seed in range(recipe.captions))
    denoiser = _train_denoiser(recipe, runs, vae, tokenizer, device)
    logs = pd.concat([_log(runs, stage) for stage in ("vae", "unet-256", "unet-512")])
    _save(DiffSegPipeline(vae, denoiser.text_encoder, tokenizer, denoiser.unet, build_scheduler()), logs, target)
    tune(target, recipe.tuning_scenes)


def improve_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the UNet and text encoder of an existing model on, on large scenes, and save it in its place.

    Args:
        recipe: `large_*`, `tuning_scenes` and `workers` are used.
        runs: for checkpoint, latents and log; go on with the same folder after a stop.
        target: the model's folder, read and written.
        device: where to train.
    """
    pipe = DiffSegPipeline.from_pretrained(target)
    latents = encode_scenes(pipe.vae, recipe.large_scenes, 512, runs / "latents", recipe.workers)
    denoiser = Denoiser(pipe.unet, pipe.text_encoder).requires_grad_(True)
    denoiser = train_unet(
        denoiser, pipe.tokenizer, latents, runs / "unet-512-more", recipe.large_steps, recipe.large_batch,
        recipe.large_speed, device, seed=513,
    )  # fmt: skip
    logs = pd.concat([pd.read_csv(target / "training.csv"), _log(runs, "unet-512-more")])
    _save(DiffSegPipeline(pipe.vae, denoiser.text_encoder, pipe.tokenizer, denoiser.unet, pipe.scheduler), logs, target)
    tune(target, recipe.tuning_scenes)


def _save(pipe: DiffSegPipeline, logs: pd.DataFrame, target: Path) -> None:
    # Half the size on disk. transformers, unlike diffusers, would also load half precision as such: text stays.
    pipe.to("cpu")
    pipe.unet.half()
    pipe.vae.half()
    pipe.save_pretrained(target)
    _as_stable_diffusion(target)
    logs.to_csv(target / "training.csv", index=False)


def _train_denoiser(recipe: Recipe, runs: Path, vae: AutoencoderKL, tokenizer, device: str) -> Denoiser:
    """First on small scenes, which is quick, then on large ones, where it will be used."""
    torch.manual_seed(0)
    denoiser = Denoiser(build_unet(), build_text_encoder(tokenizer))
    for size, scenes, steps, batch, speed in (
        (256, recipe.small_scenes, recipe.small_steps, recipe.small_batch, 1.0),
        (512, recipe.large_scenes, recipe.large_steps, recipe.large_batch, recipe.large_speed),
    ):
        latents = encode_scenes(vae, scenes, size, runs / "latents", recipe.workers)
        folder = runs / f"unet-{size}"
        denoiser = train_unet(denoiser, tokenizer, latents, folder, steps, batch, speed, device, seed=size)
        denoiser.requires_grad_(True)
    return denoiser.requires_grad_(False)


def _as_stable_diffusion(target: Path) -> None:
    """Let the folder say that it is a StableDiffusionPipeline, so that diffusers alone can load it."""
    index = json.loads((target / "model_index.json").read_text())
    index["_class_name"] = "StableDiffusionPipeline"
    index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    (target / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _log(runs: Path, stage: str) -> pd.DataFrame:
    return pd.read_csv(runs / stage / "log.csv").assign(stage=stage)


def tune(target: Path, scenes: int) -> float:
    """Choose the threshold on tuning seeds and write it into the model's folder."""
    scores = sweep(DiffSegPipeline.from_pretrained(target), range(TUNING_SEED, TUNING_SEED + scenes))
    scores.groupby("threshold")[["accuracy", "miou", "segments"]].mean().round(4).to_csv(target / "tuning.csv")
    threshold = best_threshold(scores)
    (target / SETTINGS_FILE).write_text(json.dumps({"threshold": threshold}, indent=2) + "\n")
    return threshold


def validate(target: Path, scenes: int) -> pd.Series:
    """Mean per-image accuracy and mIoU on the first validation scenes, with the pipeline's defaults."""
    pipe = DiffSegPipeline.from_pretrained(target)
    scores = sweep(pipe, range(VALIDATION_SEED, VALIDATION_SEED + scenes), [pipe.threshold])
    return scores[["threshold", "accuracy", "miou", "segments"]].mean()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m diffseg.pocket.train", description=__doc__)
    parser.add_argument("what", choices=["all", "restart", "more", "tune", "validate"])
    parser.add_argument("--runs", type=Path, default=Path("build/pocket"), help="checkpoints, latents and logs")
    parser.add_argument("--target", type=Path, default=data_dir() / "models" / "pocket-sd", help="the model's folder")
    parser.add_argument("--longer", type=float, default=1.0, metavar="FACTOR", help="train this many times as long")
    parser.add_argument("--scenes", type=int, default=100, help="how many scenes to tune or validate on")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.what == "restart":
        shutil.rmtree(arguments.runs, ignore_errors=True)
    if arguments.what in ("all", "restart"):
        train_pocket_sd(Recipe().longer(arguments.longer), arguments.runs, arguments.target, arguments.device)
    elif arguments.what == "more":
        improve_pocket_sd(Recipe().longer(arguments.longer), arguments.runs, arguments.target, arguments.device)
    elif arguments.what == "tune":
        print("threshold", tune(arguments.target, arguments.scenes))
    if arguments.what != "tune":
        print(validate(arguments.target, arguments.scenes).round(4).to_string())


if __name__ == "__main__":
    main()
