"""The pocket world: scenes with ground truth, drawn from a seed; `training` holds the models that learn from them."""

from .catalogue import CLASSES, class_of
from .scenes import RESERVED_SEED, TUNING_SEED, VALIDATION_SEED, Scene, scene

__all__ = ["CLASSES", "RESERVED_SEED", "TUNING_SEED", "VALIDATION_SEED", "Scene", "class_of", "scene"]
