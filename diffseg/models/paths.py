"""Where the suite's data and models are: an installed copy, a checkout, a folder or the hub."""

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
    candidates = (_PACKAGE / "data", _PACKAGE.parent / "data")
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"diffseg's data folder was found neither at {candidates[0]} nor at {candidates[1]}; "
        "reinstall the package, or work in a complete clone of the repository."
    )


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
        ValueError: if the name is none of these.
    """
    name = os.fspath(name) if name is not None else os.environ.get(MODEL_VARIABLE) or POCKET
    if name == POCKET:
        folder = data_dir() / "models" / pocket
        if not folder.is_dir():
            raise FileNotFoundError(
                f"name='pocket': there is no model at {folder}; restore it from the repository "
                "or train it again with `make pocket`."
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix in _WEIGHTS):
        return str(path)
    if _HUB_ID.fullmatch(name):
        return name
    raise ValueError(
        f"name={name!r} is neither 'pocket', nor an existing folder or file of weights, nor a hub id of the form "
        "'owner/model'; check the spelling (and the environment variable "
        f"{MODEL_VARIABLE}, if that is where it came from)."
    )
