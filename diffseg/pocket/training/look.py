"""What is known of one scene: the models' views of it, each computed when it is first asked for."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, StableDiffusionPipeline
from jaxtyping import Float, Integer
from torch import Tensor

from ... import TIMESTEP
from ...aggregation import aggregate
from ...attention import RecordedLayer
from ...baselines import euclidean_distances
from ...dino import DinoSegPipeline
from ...merging import anchor_distances
from ...metrics import image_score
from ...models.captioner import Captioner
from ...models.quiet import quiet_loading
from ...models.settings import read_settings
from ...pipeline import DiffSegPipeline
from ..scenes import Scene, scene
from .measuring import Row

SD, BLIP, DINO = "pocket-sd", "pocket-blip", "pocket-dino"  # the folders of the models


class Models:
    """The models of a folder of model folders, each loaded when it is first used."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device = folder, device

    @cached_property
    def pipe(self) -> DiffSegPipeline:
        return DiffSegPipeline.from_pretrained(self.folder / SD).to(self.device)

    @cached_property
    def dino(self) -> DinoSegPipeline:
        return DinoSegPipeline.from_pretrained(self.folder / DINO).to(self.device)

    @cached_property
    def captioner(self) -> Captioner:
        return Captioner.from_pretrained(self.folder / BLIP).to(self.device)

    @cached_property
    def painter(self) -> StableDiffusionPipeline:
        with quiet_loading():
            painter = StableDiffusionPipeline.from_pretrained(self.folder / SD, safety_checker=None).to(self.device)
        painter.scheduler = DDIMScheduler.from_config(painter.scheduler.config)
        painter.set_progress_bar_config(disable=True)
        return painter

    def threshold(self, name: str) -> float:
        """A model's own."""
        return read_settings(self.folder / name).threshold


class Look:
    """One scene, and what several ways want to know of it, computed when it is first asked for.

    Of each kind of large thing only the last one is kept, so ways that share one should follow each other.
    """

    def __init__(self, models: Models, seed: int) -> None:
        self.models, self.seed = models, seed
        self._last: dict[str, tuple[Any, Any]] = {}  # kind -> which one it is, and the thing itself
        self._scores: dict[tuple, list[Row]] = {}

    @cached_property
    def drawn(self) -> Scene:
        return scene(self.seed)

    def layers(self, timestep: int) -> list[RecordedLayer]:
        """One recorded pass."""
        return self._keep("layers", timestep, lambda: self.models.pipe.record(self.drawn.image, timestep=timestep))

    def attention(self, timestep: int = TIMESTEP, side: int | None = None) -> Float[Tensor, "h w h w"]:
        """All layers aggregated as by default, or those of one side alone."""

        def make() -> Tensor:
            layers = self.layers(timestep)
            weights = "layer" if side is None else {side: 1}
            return aggregate([layer.probs for layer in layers], max(layer.grid for layer in layers), weights)

        return self._keep("attention", (timestep, side), make)

    def euclidean(self) -> Float[np.ndarray, "positions positions"]:
        """Distances for DBSCAN."""
        return self._keep("euclidean", None, lambda: euclidean_distances(self.attention()))

    def diffseg(self, threshold: float, timestep: int = TIMESTEP, side: int | None = None) -> list[Row]:
        """Scores of DiffSeg's masks: one row with accuracy and miou."""
        key = (threshold, timestep, side)
        if key not in self._scores:
            pipe, attention = self.models.pipe, self.attention(timestep, side)
            distances = self._keep("distances", key[1:], lambda: anchor_distances(attention, pipe.points))
            size = len(self.drawn.labels)
            out = pipe.segment(attention, pipe.points, threshold=threshold, size=size, distances=distances)
            self._scores[key] = self.score(out.labels)
        return self._scores[key]

    def score(self, labels: Integer[Tensor, "size size"]) -> list[Row]:
        """One row with the scores of some labels."""
        return [dict(zip(("accuracy", "miou"), image_score(labels, self.drawn.labels), strict=True))]

    def _keep(self, kind: str, which: Any, make: Callable[[], Any]) -> Any:
        if kind not in self._last or self._last[kind][0] != which:
            self._last.pop(kind, None)  # before the next one is made: two at once would take twice the memory
            self._last[kind] = which, make()
        return self._last[kind][1]
