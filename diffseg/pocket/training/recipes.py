"""The recipes of the embedded models: which stages each one is trained in, for how long, and what is saved.

Every recipe can be stopped at any time: the same call goes on from the checkpoints and data sets in its `runs` folder.
With `Recipe.deadline` it stops by itself and raises `OutOfTime`.

`train_own` is the last part of the same recipe for one's own pictures: it goes on from a miniature that is there.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pandas as pd
import torch
from transformers import CLIPTokenizer

from ...dino import DinoSegPipeline
from ...models.fingerprint import LENGTH, fingerprint
from ...models.settings import Settings, write_settings
from ...pipeline import DiffSegPipeline
from ..scenes import scene
from .blip import SIDE, build_processor, train_blip
from .dino import Distillation, build_vit, train_dino
from .dino import build_processor as build_dino_processor
from .latents import Latents, encode_pictures, encode_scenes
from .loop import write_weights
from .own import OwnPictures, read_collection
from .pictures import draw_scenes
from .place_net import PLACES_FILE, PlaceNet, load_place_net, store_places, train_place_net
from .places import NOUNS_FILE, NounNet, load_noun_net, train_noun_net
from .text import build_text_encoder, build_tokenizer
from .unet import Denoiser, Lessons, build_scheduler, build_unet, train_unet
from .vae import train_vae
from .validation import tune, tune_dino
from .vocabulary import POCKET_WORLD, Vocabulary


@dataclass(frozen=True)
class Stage:
    """A part of a training, at one size of picture."""

    size: int  # pixels: of the scene, whose latents' side is an eighth of it, or of pocket-dino's global crops
    scenes: int
    steps: int
    batch: int
    lr_scale: float = 1.0  # factor on the learning rates
    also: int = 0  # pixels of a second size, on which `unet.OTHER_SIZE_CHANCE` of the steps are made; 0: none

    def longer(self, factor: float) -> "Stage":
        """More steps, on correspondingly more scenes."""
        return replace(self, scenes=round(self.scenes * factor), steps=round(self.steps * factor))

    def of_at_most(self, pictures: int) -> "Stage":
        """The same stage where there are no more pictures than that."""
        return replace(self, scenes=min(self.scenes, pictures), batch=min(self.batch, pictures))


@dataclass(frozen=True)
class Generation:
    """The training of a network of places on what the one before it answers, the first one on those of nouns."""

    size: int  # pixels
    steps: int
    shared: float  # of its own answers, see `place_net.SHARED`
    scenes: int | None = None  # the first ones of `Recipe.nouns`; None: all

    def longer(self, factor: float) -> "Generation":
        """More steps, on correspondingly more scenes."""
        scenes = None if self.scenes is None else round(self.scenes * factor)
        return replace(self, steps=round(self.steps * factor), scenes=scenes)


@dataclass(frozen=True)
class Recipe:
    """Lengths of all stages, for a GPU: an H200 with 16 processor cores took 27 minutes for pocket-sd, without its
    autoencoder, and pocket-dino, side by side. On two processor cores it is a matter of days.

    The UNet starts on small pictures, which are quick, and ends on the size of use; there the small ones stay in the
    mixture, so that it does not forget them. The second stage begins with new optimisers and new probes, at full speed
    again.
    """

    vae_steps: int = 600
    vae_batch: int = 16
    nouns: Stage = Stage(256, 16000, 8000, 64)  # at least as many scenes as any stage of the UNet
    places: tuple[Generation, ...] = (  # in batches of the same size
        Generation(256, 3000, 0.5),
        Generation(256, 3000, 0.25),
        Generation(512, 1500, 0.0),
        Generation(512, 2000, 0.0),
    )
    unet: tuple[Stage, ...] = (Stage(256, 16000, 400, 128), Stage(512, 16000, 2211, 64, also=256))
    blip_scenes: int = 16000
    blip_steps: int = 2500
    blip_batch: int = 32
    dino: tuple[Stage, ...] = (Stage(224, 6000, 7500, 32),)
    tuning_scenes: int = 40
    captions: int = 2000  # from which the tokenizer learns
    workers: int = 2
    deadline: float = math.inf  # value of `time.monotonic()` after which training stops, to be resumed

    def step_workers(self, device: str) -> int:
        """Processes that prepare steps: none where they would take the processor from the training itself."""
        return 0 if torch.device(device).type == "cpu" else self.workers

    def most_scenes(self) -> dict[int, int]:
        """Pixels -> how many scenes of that size the teachers and the UNet want at most."""
        wanted = [(self.nouns.size, self.nouns.scenes)]
        wanted += [(each.size, each.scenes or self.nouns.scenes) for each in self.places]
        wanted += [(size, stage.scenes) for stage in self.unet for size in (stage.size, stage.also) if size]
        wanted.append((self.places[-1].size, max(stage.scenes for stage in self.unet)))  # the teacher looks at them
        return {size: max(scenes for other, scenes in wanted if other == size) for size, _ in wanted}

    def longer(self, factor: float) -> "Recipe":
        """The same recipe with more steps, on correspondingly more scenes."""
        return replace(
            self,
            vae_steps=round(self.vae_steps * factor),
            blip_scenes=round(self.blip_scenes * factor),
            blip_steps=round(self.blip_steps * factor),
            unet=tuple(stage.longer(factor) for stage in self.unet),
            nouns=self.nouns.longer(factor),
            places=tuple(generation.longer(factor) for generation in self.places),
            dino=tuple(stage.longer(factor) for stage in self.dino),
        )


def unet_folders(stages: Sequence[Stage]) -> list[str]:
    """The folders of the UNet's stages, such as unet-1-256: their places in the recipe, and their sizes."""
    return [f"unet-{number}-{stage.size}" for number, stage in enumerate(stages, 1)]


#: For one's own pictures: shorter, since the weights are there, and with slower steps, which keep what they know.
OWN = Recipe(
    nouns=Stage(256, 12000, 2000, 32),
    places=(Generation(256, 500, 0.5),),
    unet=(Stage(256, 12000, 1500, 8, 0.5), Stage(512, 4000, 300, 4, 0.5)),
)


@dataclass(frozen=True)
class Teachers:
    """The networks that say where the nouns of a caption belong; None: to be trained."""

    nouns: NounNet | None = None
    places: PlaceNet | None = None

    @classmethod
    def load(cls, folder: Path) -> "Teachers":
        """Those that a model's folder holds."""
        nouns, places = folder / NOUNS_FILE, folder / PLACES_FILE
        return cls(
            load_noun_net(nouns) if nouns.exists() else None, load_place_net(places) if places.exists() else None
        )

    def save(self, folder: Path) -> None:
        """Write the networks, both of which must be there, into a model's folder."""
        write_weights(folder / NOUNS_FILE, self.nouns)
        write_weights(folder / PLACES_FILE, self.places)


def train_pocket_sd(recipe: Recipe, runs: Path, target: Path, device: str = "cpu", start: Path | None = None) -> None:
    """Train all parts of pocket-sd and save them as one diffusers folder.

    Args:
        recipe: lengths of the stages.
        runs: for checkpoints, latents and logs.
        target: the model's folder; receives the weights, `diffseg.json` with the threshold, `tuning.csv`
            and `training.csv`.
        device: where to train.
        start: the folder of a model whose autoencoder and teachers are taken as they are, as far as it has them; its
            network of places must have been trained as the recipe's last generation is. None: they are trained, too.

    Raises:
        OutOfTime: after the recipe's deadline, as do all recipes.
    """
    if start is None:
        workers = recipe.step_workers(device)
        vae = train_vae(runs / "vae", recipe.vae_steps, recipe.vae_batch, device, recipe.deadline, workers)
    else:
        vae = DiffSegPipeline.from_pretrained(start).vae.to(device)
    tokenizer = _learn_tokenizer(recipe)
    torch.manual_seed(0)
    pipe = DiffSegPipeline(vae, build_text_encoder(tokenizer), tokenizer, build_unet(), build_scheduler())

    def encode(scenes: int, size: int) -> Latents:
        return encode_scenes(pipe.vae, scenes, size, runs / "latents", recipe.workers, deadline=recipe.deadline)

    teachers = Teachers() if start is None else Teachers.load(start)
    teachers, logs = _train_unet_in_stages(pipe, encode, POCKET_WORLD, recipe, runs, device, teachers)
    if start is None:
        logs = pd.concat([_log(runs, "vae"), logs])
    _save(pipe, teachers, logs, target, captioner="../pocket-blip")
    tune(target, recipe.tuning_scenes)


def train_own(recipe: Recipe, folder: Path, start: Path, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train a miniature's UNet and text encoder on with one's own pictures, and save it as one diffusers folder.

    Its autoencoder and its tokenizer stay as they are, and so does its threshold: without a truth there is nothing to
    choose another one by. Which nouns are learned, and what was skipped, is printed.

    Args:
        recipe: such as `OWN`; `nouns`, `places`, `unet`, `workers` and `deadline` are used.
        folder: the pictures, see `read_collection`.
        start: the folder of the model to go on from; one with the topology of pocket-sd.
        runs: for checkpoints, latents and logs; pictures or a start that change are trained anew, beside the others.
        target: the new model's folder; receives the weights, `diffseg.json` with the threshold, and `training.csv`.
        device: where to train.

    Raises:
        FileNotFoundError: if there is no such model; and as `read_collection`.
        ValueError: if the model is of another kind, or the target is the start; and as `read_collection`.
        OutOfTime: after the recipe's deadline.
    """
    if target.resolve() == start.resolve():
        raise ValueError(f"target={str(target)!r} is the model to go on from, which must stay: name another folder.")
    pipe = DiffSegPipeline.from_pretrained(start).to(device)
    if pipe.unet is None or len(pipe.unet.config.block_out_channels) != len(build_unet().config.block_out_channels):
        raise ValueError(f"start={str(start)!r} has another kind of denoiser than pocket-sd; name a folder like its.")
    pictures = read_collection(folder, pipe.tokenizer)
    for name, why in pictures.skipped.items():
        print(f"skipped {name}: {why}")
    print(f"{len(pictures.files)} pictures; the nouns: {', '.join(pictures.vocabulary.names)}")
    recipe = replace(
        recipe,
        nouns=recipe.nouns.of_at_most(len(pictures.files)),
        unet=tuple(stage.of_at_most(len(pictures.files)) for stage in recipe.unet),
    )
    own_runs = runs / f"own-{sha256(f'{pictures.digest} {fingerprint(pipe)}'.encode()).hexdigest()[:LENGTH]}"

    def encode(scenes: int, size: int) -> Latents:
        chosen = OwnPictures(pictures, scenes, size)
        return encode_pictures(pipe.vae, chosen, runs / "latents", recipe.workers, recipe.deadline)

    torch.manual_seed(0)
    teachers, logs = _train_unet_in_stages(pipe, encode, pictures.vocabulary, recipe, own_runs, device, Teachers())
    _save(pipe, teachers, logs, target)


def train_pocket_blip(recipe: Recipe, runs: Path, target: Path, device: str = "cpu") -> None:
    """Train the captioner and save it as a transformers folder with its processor, in half precision.

    Args:
        recipe: `blip_*`, `captions`, `workers` and `deadline` are used.
        runs: for checkpoint, pictures and log.
        target: the model's folder; receives `training.csv` too.
        device: where to train.
    """
    pictures = draw_scenes(recipe.blip_scenes, SIDE, runs / "pictures", recipe.workers, recipe.deadline)
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
        pictures = draw_scenes(stage.scenes, 2 * stage.size, runs / "pictures", recipe.workers, recipe.deadline)
        distillation = train_dino(
            distillation, pictures, runs / f"dino-{stage.size}", stage.size, stage.steps, stage.batch, stage.lr_scale,
            device, recipe.deadline,
        )  # fmt: skip
    vit = distillation.teacher.vit.to("cpu").half()
    DinoSegPipeline(vit, build_dino_processor()).save_pretrained(target)
    logs = pd.concat([_log(runs, f"dino-{stage.size}") for stage in recipe.dino])
    logs.to_csv(target / "training.csv", index=False)
    tune_dino(target, recipe.tuning_scenes)


#: How many scenes, how many pixels -> their latents.
Encode = Callable[[int, int], Latents]


def _train_unet_in_stages(
    pipe: DiffSegPipeline,
    encode: Encode,
    vocabulary: Vocabulary,
    recipe: Recipe,
    runs: Path,
    device: str,
    teachers: Teachers,
) -> tuple[Teachers, pd.DataFrame]:
    """Train the pipeline's UNet and text encoder, in place, stage by stage.

    Returns:
        The teachers, with those that were missing, and the logs.
    """
    most = recipe.most_scenes()

    def encode_first(scenes: int, size: int) -> Latents:
        return encode(most[size], size).first(scenes)

    teachers, stages = _complete(teachers, encode_first, vocabulary, recipe, runs, device)
    last, folders = recipe.places[-1], unet_folders(recipe.unet)
    for number, (stage, folder) in enumerate(zip(recipe.unet, folders, strict=True)):
        lessons = Lessons(
            encode_first(stage.scenes, stage.size), encode_first(stage.scenes, last.size), teachers.places,
            pipe.tokenizer, vocabulary, encode_first(stage.scenes, stage.also) if stage.also else None, last.shared,
        )  # fmt: skip
        denoiser = Denoiser(pipe.unet, pipe.text_encoder).requires_grad_(True)
        denoiser = train_unet(
            denoiser, lessons, runs / folder, stage.steps, stage.batch, stage.lr_scale, device,
            seed=stage.size + number, deadline=recipe.deadline, workers=recipe.step_workers(device),
        )  # fmt: skip
        pipe.register_modules(unet=denoiser.unet, text_encoder=denoiser.text_encoder)
    return teachers, pd.concat([_log(runs, stage) for stage in [*stages, *folders]])


def _complete(
    teachers: Teachers, encode: Encode, vocabulary: Vocabulary, recipe: Recipe, runs: Path, device: str
) -> tuple[Teachers, list[str]]:
    """Train the teachers that are missing: all of them, and the names of the stages in which they were trained."""
    stages = []
    if teachers.nouns is None:
        nouns = train_noun_net(
            encode(recipe.nouns.scenes, recipe.nouns.size), runs / "nouns", recipe.nouns.steps, recipe.nouns.batch,
            device, deadline=recipe.deadline, vocabulary=vocabulary,
        )  # fmt: skip
        teachers = Teachers(nouns)  # a network of places is a pupil of the nouns it was trained with
        stages.append("nouns")
    if teachers.places is None:
        places, own = _train_places(teachers.nouns.to(device), encode, vocabulary, recipe, runs, device)
        teachers, stages = replace(teachers, places=places), stages + own
    return teachers, stages


def _train_places(
    nouns: NounNet, encode: Encode, vocabulary: Vocabulary, recipe: Recipe, runs: Path, device: str
) -> tuple[PlaceNet, list[str]]:
    """Train one generation after the other: the last network, and the names of the stages."""
    teacher, size, shared, stages = nouns, recipe.nouns.size, 0.0, []
    for number, generation in enumerate(recipe.places, 1):
        folder, scenes = f"places-{number}-{generation.size}", generation.scenes or recipe.nouns.scenes
        small, latents = encode(scenes, size), encode(scenes, generation.size)
        answers = store_places(latents, teacher, runs / folder, recipe.deadline, vocabulary, small, shared)
        teacher = train_place_net(
            latents, answers, runs / folder, generation.steps, recipe.nouns.batch, device, deadline=recipe.deadline
        )
        size, shared = generation.size, generation.shared
        stages.append(folder)
    return teacher, stages


def _learn_tokenizer(recipe: Recipe) -> CLIPTokenizer:
    return build_tokenizer(scene(seed, 64).caption for seed in range(recipe.captions))


def _save(
    pipe: DiffSegPipeline, teachers: Teachers, logs: pd.DataFrame, target: Path, captioner: str | None = None
) -> None:
    # Half the size on disk. transformers, unlike diffusers, would also load half precision as such: text stays.
    pipe.to("cpu")
    pipe.unet.half()
    pipe.vae.half()
    pipe.save_pretrained(target)
    teachers.save(target)
    write_settings(target, Settings(pipe.threshold, captioner))
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
