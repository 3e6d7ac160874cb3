"""A bar for long work, in a terminal and in a notebook."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def silent() -> bool:
    """Whether TQDM_DISABLE is set, as under CI: in a notebook tqdm itself does not look at that variable."""
    return os.environ.get("TQDM_DISABLE", "") not in ("", "0")


def progress(steps: Iterable, about: str) -> Iterable:
    """The steps, with a bar while they are taken, if bars are wanted."""
    return tqdm(steps, desc=about, disable=silent())
