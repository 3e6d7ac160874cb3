"""diffseg: "Diffuse, Attend, and Segment", taken apart so that it can be read and put together.

    image --diffuse--> attention maps --attend--> A [64, 64, 64, 64] --segment--> labels [512, 512]

A chapter is a module: what notebook 03 explains is in ``diffseg.aggregation``, and ``from diffseg import aggregate`` is
its function. Importing the package is cheap: a name loads its module (and torch) when it is first used.
"""

import lazy_loader

__version__ = "0.1.0"

# The paper's settings (Table 3 and Sec. 9.6), the defaults of every function that takes them.
IMAGE_SIZE = 512  # pixels of the centre-cropped square that is segmented
ATTENTION_SIZE = 64  # side of the aggregated attention: 512 pixels / the autoencoder's factor 8
TIMESTEP = 300  # t, of the 1000 steps of the training schedule
POINTS = 16  # M, anchors along one side of the grid
ITERATIONS = 3  # N, passes of merging
THRESHOLD = 1.0  # tau "in the wild", nats; a model folder may carry its own
SEED = 0  # of the noise that is added to the latent

# Module -> its public names; a name loads its module (and torch) when it is first used.
_PUBLIC = {
    "aggregation": ["aggregate"],
    "attention": ["RecordedLayer", "record_attention"],
    "dino": ["DinoSegPipeline"],
    "heads": ["head_divergence"],
    "images": ["read_image"],
    "masks": ["binary_masks", "relabel", "suppress"],
    "merging": ["anchor_distances", "anchor_grid", "merge", "symmetric_kl"],
    "metrics": ["SegmentationScore", "image_score"],
    "output": ["DiffSegOutput"],
    "pipeline": ["DiffSegPipeline"],
}
_MODULES = {
    *_PUBLIC, "backbones", "baselines", "boundaries", "check", "colours", "datasets", "diffuse", "evaluate", "figures",
    "models", "pocket", "progress", "results", "semantics", "sweeps", "widgets",
}  # fmt: skip

__getattr__, __dir__, _ = lazy_loader.attach(__name__, _MODULES, _PUBLIC)
__all__ = ["__version__", *sorted(name for names in _PUBLIC.values() for name in names)]
