"""The stock pipelines of diffusers, which know how a model of several text encoders reads a prompt."""

from collections.abc import Sequence
from typing import Any

import diffusers

from diffseg.models.quiet import quiet_loading

ONE_MODEL = "Pass the parts of one text-to-image model."


def stock_pipeline(name: str, pipe: Any, parts: Sequence[str], **options) -> Any:
    """A stock pipeline that shares components with ours.

    Args:
        name: its class in diffusers.
        pipe: where the components are.
        parts: the names of those that it takes.
        options: its other arguments.
    """
    with quiet_loading():  # its module may be imported here for the first time
        kind = getattr(diffusers, name)
    return kind(**{part: getattr(pipe, part) for part in parts}, **options)
