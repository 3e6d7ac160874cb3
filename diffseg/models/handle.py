"""What an output remembers of the model that made it."""

from typing import Any
from weakref import ref

from diffseg.models.fingerprint import fingerprint


class ModelHandle:
    """A model by its name and, as long as it is loaded, by its fingerprint.

    It does not keep the model alive. The fingerprint is taken when it is asked for, since all weights are read for it.
    Copies and pickles know the name alone.

    Args:
        name: as the model was loaded; None if it was put together from parts.
        pipe: a pipeline, with or without a captioner.
    """

    def __init__(self, name: str | None, pipe: Any = None) -> None:
        self.name = name
        self._pipe = None if pipe is None else ref(pipe)

    def describe(self, captioned: bool = False) -> dict[str, str | None]:
        """Name and fingerprint, ready for a JSON file; None for what is not known.

        Args:
            captioned: whether the captioner had a part in the result; then its fingerprint is there, too.
        """
        pipe = self._pipe and self._pipe()
        captioner = {"captioner": _fingerprint(getattr(pipe, "captioner", None))} if captioned else {}
        return {"name": self.name, "fingerprint": _fingerprint(pipe), **captioner}

    def __reduce__(self) -> tuple:
        return ModelHandle, (self.name,)


def _fingerprint(model: Any) -> str | None:
    """None where there is nothing to read: no model, one whose weights are elsewhere, or a plain function."""
    try:
        return fingerprint(model)
    except (TypeError, NotImplementedError):
        return None
