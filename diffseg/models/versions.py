"""Which versions of which packages a number was made with."""

from importlib.metadata import version

from diffseg import __version__

#: The packages whose change can move a number; the others only move files.
_DISTRIBUTIONS = ("torch", "diffusers", "transformers", "numpy", "pillow", "scikit-learn")


def versions() -> dict[str, str]:
    """Name -> version, without the mark of a build such as "+cpu"."""
    found = {name: version(name).partition("+")[0] for name in _DISTRIBUTIONS}
    return {"diffseg": __version__, **found}
