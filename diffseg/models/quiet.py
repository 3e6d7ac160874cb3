"""Loading without chatter."""

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No advice to install torchvision, which DiffSeg does not use, and no bar for a load of seconds."""
    level = transformers_logging.get_verbosity()
    shown = [logging for logging in (diffusers_logging, transformers_logging) if logging.is_progress_bar_enabled()]
    transformers_logging.set_verbosity_error()
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        for logging in shown:
            logging.enable_progress_bar()
