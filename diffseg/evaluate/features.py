"""What segments look like, so that alike ones of different images can be put into one group.

One matching for a whole data set (STEGO, PiCIE) needs groups that mean the same in all images. DiffSeg's
segments mean nothing beyond their image. Here each gets the mean of a vision transformer's features, and K-Means
makes as many groups of them as there are classes, as Deep Spectral Methods do (Melas-Kyriazi et al., 2022, Sec. 3.3).
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from sklearn.cluster import KMeans

from .. import SEED
from ..datasets import Sample, nearest_square
from ..dino import DinoSegPipeline
from ..images import read_image
from .methods import Encoder, dino_alone, load_dino

_STARTS = 10  # of K-Means; that with the smallest squared distances wins


@torch.no_grad()
def patch_features(pipe: DinoSegPipeline, sample: Sample) -> Float[np.ndarray, "side side d"]:
    """The last layer's features of the patches of a picture."""
    pixels = pipe.processor(images=read_image(sample.image, pipe.image_size), return_tensors="pt").pixel_values
    hidden = pipe.model(pixels.to(pipe.device, pipe.model.dtype)).last_hidden_state[0, 1:]  # without the class token
    return hidden.float().cpu().numpy().reshape(pipe.side, pipe.side, -1)


#: What gives each segment its looks.
FEATURES = Encoder(load_dino, patch_features, dino_alone)


def describe(
    features: Float[np.ndarray, "side side d"], labels: Integer[np.ndarray, "size size"]
) -> Float[np.ndarray, "segments d"]:
    """The mean feature of each segment, of length 1; zeros for ids that no pixel has."""
    side, size = features.shape[0], labels.shape[0]
    places = nearest_square(np.arange(side**2).reshape(side, side), size)  # the patch of each pixel
    segments = int(labels.max()) + 1
    shares = np.bincount((labels.astype(np.int64) * side**2 + places).ravel(), minlength=segments * side**2)
    means = shares.reshape(segments, -1) @ features.reshape(side**2, -1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def group(
    descriptors: Float[np.ndarray, "segments d"], areas: Float[np.ndarray, " segments"], groups: int
) -> Int[np.ndarray, " segments"]:
    """The group of each segment, by K-Means with segments weighted by their areas.

    Args:
        descriptors: of the segments of all images.
        areas: in pixels, or in anything that is proportional.
        groups: how many to make; fewer if there are fewer segments.
    """
    found = KMeans(min(groups, len(descriptors)), n_init=_STARTS, random_state=SEED)
    return found.fit_predict(descriptors, sample_weight=areas).astype(np.int64)
