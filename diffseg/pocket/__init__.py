"""The pocket world: scenes with ground truth, and the recipes of the models trained on them."""

from .catalogue import CLASSES
from .scenes import RESERVED_SEED, TUNING_SEED, VALIDATION_SEED, Scene, scene

__all__ = ["CLASSES", "RESERVED_SEED", "TUNING_SEED", "VALIDATION_SEED", "Scene", "scene"]
