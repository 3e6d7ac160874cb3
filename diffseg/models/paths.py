"""Where the suite's data, notebooks and models are: an installed copy, a checkout, a folder or the hub."""

import os
import re
from pathlib import Path

MODEL_VARIABLE = "DIFFSEG_MODEL"  # the one switch that moves every notebook to another model
POCKET = "pocket"

_PACKAGE = Path(__file__).resolve().parent.parent
_WEIGHTS = {".safetensors", ".ckpt"}
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def data_dir() -> Path:
    """The folder of sprites and models: inside the installed package, else the checkout's `data/`.

    Raises:
        FileNotFoundError: if neither exists.
    """
    return _shipped("data")


def notebooks_dir() -> Path:
    """The folder of notebooks: inside the installed package, else the checkout's `notebooks/`.

    Raises:
        FileNotFoundError: if neither exists.
    """
    return _shipped("notebooks")


def _shipped(name: str) -> Path:
    """A folder that comes with the package; FileNotFoundError if it does not."""
    candidates = (_PACKAGE / name, _PACKAGE.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"diffseg's folder {name!r} was found neither at {candidates[0]} nor at {candidates[1]}; "
        "reinstall the package, or work in a complete clone of the repository."
    )


def check_config(found: str, remedy: str) -> None:
    """ValueError for a folder, or a file, in which transformers would look for a configuration in vain."""
    if os.path.exists(found) and not os.path.isfile(os.path.join(found, "config.json")):
        raise ValueError(f"name={found!r} has no config.json. {remedy}")


def name_model(name: str | os.PathLike | None = None) -> str:
    """The name of a model; of None, that in DIFFSEG_MODEL, else "pocket"."""
    return str(os.fspath(name)) if name is not None else os.environ.get(MODEL_VARIABLE) or POCKET


def resolve_model(name: str | os.PathLike | None = None, pocket: str = "pocket-sd") -> str:
    """Turn a model's name into what `from_pretrained` of diffusers or transformers takes.

    Args:
        name: "pocket" (the embedded model), a folder, a file of weights, or a hub id such as
            "CompVis/stable-diffusion-v1-4". None: the environment variable DIFFSEG_MODEL, and if
            that is not set either, "pocket".
        pocket: the folder of `data/models/` that "pocket" stands for.

    Returns:
        An existing folder or file, or a hub id.

    Raises:
        FileNotFoundError: if the embedded model is not there.
        TypeError: if the name is no text.
        ValueError: if the name is none of these.
    """
    if not isinstance(name, str | os.PathLike | None):
        raise TypeError(f"name={name!r} must be 'pocket', a folder, a file of weights, a hub id, or None.")
    name = name_model(name)
    if name == POCKET:
        folder = data_dir() / "models" / pocket
        if not folder.is_dir():
            raise FileNotFoundError(
                f"name='pocket': there is no model at {folder}; restore it from the repository "
                "or train it again with `make pocket`."
            )
        return str(folder)
    path = Path(name).expanduser()
    if name and path.is_dir() or (path.is_file() and path.suffix in _WEIGHTS):
        return str(path)
    if _HUB_ID.fullmatch(name):
        return name
    raise ValueError(
        f"name={name!r} is neither 'pocket', nor an existing folder or file of weights, nor a hub id of the form "
        "'owner/model'; check the spelling (and the environment variable "
        f"{MODEL_VARIABLE}, if that is where it came from)."
    )
