"""diffseg: "Diffuse, Attend, and Segment", taken apart so that it can be read and put together.

    image --diffuse--> attention maps --attend--> A [64, 64, 64, 64] --segment--> labels [512, 512]

Importing the package is cheap: a name below loads its module (and torch) when first used. Every
room of the suite is a module: ``diffseg.aggregate.aggregate``, ``diffseg.merge.merge``, ...
"""

from importlib import import_module

__version__ = "0.1.0"

# The paper's settings (Table 3 and Sec. 9.6), the defaults of every function that takes them.
IMAGE_SIZE = 512  # pixels of the centre-cropped square that is segmented
ATTENTION_SIZE = 64  # side of the aggregated attention: 512 pixels / the autoencoder's factor 8
TIMESTEP = 300  # t, of the 1000 steps of the training schedule
POINTS = 16  # M, anchors along one side of the grid
ITERATIONS = 3  # N, passes of merging
THRESHOLD = 1.0  # tau "in the wild", nats; a model folder may carry its own
SEED = 0  # of the noise that is added to the latent

# Public name -> the module it lives in.
_LAZY = {
    "DiffSegPipeline": "pipeline",
    "DiffSegOutput": "pipeline",
    "DinoSegPipeline": "dino",
    "RecordedLayer": "attention",
    "record_attention": "attention",
    "head_divergence": "heads",
    "anchor_distances": "merge",
    "anchor_grid": "merge",
    "symmetric_kl": "merge",
    "binary_masks": "masks",
    "relabel": "masks",
    "suppress": "masks",
    "read_image": "images",
    "SegmentationScore": "metrics",
    "image_score": "metrics",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    """Load a public name, or a module of the package, on first use (PEP 562)."""
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    if not name.startswith("_"):
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
