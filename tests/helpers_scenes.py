"""The rival that every scene must be too hard for."""

from diffseg.baselines import kmeans_colours
from diffseg.metrics import image_score


def miou_of_colours(drawn, n_init):
    """mIoU of K-Means on the colours of a scene at 64x64, told the true number of segments."""
    clusters = kmeans_colours(drawn.image, len(drawn.nouns), size=drawn.image.width, n_init=n_init)
    return image_score(clusters, drawn.labels)[1]
