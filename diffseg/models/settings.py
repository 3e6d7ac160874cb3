"""What a model's folder says about DiffSeg: diffseg.json, beside model_index.json or config.json."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from diffseg import THRESHOLD

SETTINGS_FILE = "diffseg.json"


@dataclass(frozen=True)
class Settings:
    """A model's own choices.

    Attributes:
        threshold: for merging, nats.
        captioner: a hub id, or a folder relative to the model's; None: nothing is said.
    """

    threshold: float = THRESHOLD
    captioner: str | None = None


def read_settings(folder: Path) -> Settings:
    """The settings in a model's folder, or the paper's.

    Raises:
        ValueError: if the file cannot be read.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return Settings()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        threshold, captioner = float(found.get("threshold", THRESHOLD)), found.get("captioner")
        if not 0 < threshold < math.inf or not isinstance(captioner, str | None):
            raise ValueError(f"threshold {threshold}, captioner {captioner!r}")
        return Settings(threshold, captioner)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{file} is not of the form {{"threshold": 1.0, "captioner": "../pocket-blip"}} ({error}). '
            "Mend it or delete it."
        ) from error


def write_settings(folder: Path, settings: Settings) -> None:
    """Write them into a model's folder."""
    known = {name: value for name, value in asdict(settings).items() if value is not None}
    (folder / SETTINGS_FILE).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
