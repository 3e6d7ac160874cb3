"""What the explorer computes, each step once: a new threshold must not cost a new pass through the model."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from PIL import Image
from torch import Tensor

from diffseg.aggregation import SideSums, sum_sides, weigh_sides
from diffseg.merging import anchor_distances
from diffseg.metrics import match_segments
from diffseg.output import DiffSegOutput, plain_settings
from diffseg.pipeline import DiffSegPipeline
from diffseg.semantics import merge_by_word, noun_maps
from diffseg.widgets.paint import encode
from diffseg.widgets.selecting import Maps, Place, position, prepare, select
from diffseg.widgets.state import Settings, Source, State

Weights = tuple[tuple[int, float], ...] | None
Words = tuple[str, ...] | Literal["caption"]


class Kept:
    """The latest results of a function, by its arguments."""

    def __init__(self, size: int):
        self.size = size
        self._results: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result for a key: the one that is kept, or a new one, in place of the one not used for longest."""
        result = self._results.pop(key) if key in self._results else compute()
        self._results[key] = result
        while len(self._results) > self.size:
            self._results.pop(next(iter(self._results)))
        return result


class Picture:
    """One picture in a model: its attention, and all that is made from it.

    Args:
        pipe: the model.
        source: the picture.
        crop: whether only its central square is used.
    """

    def __init__(self, pipe: DiffSegPipeline, source: Source, crop: bool = True):
        self._pipe, self._source, self._crop = pipe, source, crop
        size = pipe.backbone.default_size(pipe)
        original = source.image
        self.image: Image.Image = pipe.fit(original, size, crop)
        self.shown = encode(self.image, lossy=True)  # as the browser gets it
        layers = pipe.record(original, crop=crop)
        self.sums: SideSums = sum_sides([layer.probs for layer in layers], max(layer.grid for layer in layers))
        # Large results: attention and its logarithms are each as large as the finest layer.
        self._attention, self._maps, self._distances = Kept(2), Kept(1), Kept(4)
        self._outs, self._nouns = Kept(2), Kept(4)  # outputs hold their attention, so those of few weights

    def attention(self, settings: Settings) -> Float[Tensor, "h w h w"]:
        """The aggregated attention, on the model's device."""
        return self._attention.get(settings.weights, lambda: weigh_sides(self.sums, settings.rule))

    def segment(self, settings: Settings) -> DiffSegOutput:
        """What the pipeline gives for these settings."""
        same_weights: Kept = self._outs.get(settings.weights, lambda: Kept(16))
        return same_weights.get(settings, lambda: self._segment(settings))

    def _segment(self, settings: Settings) -> DiffSegOutput:
        if settings.words:
            return self._named(self.segment(replace(settings, words=())), settings.words)
        attention = self.attention(settings)
        distances = self._distances.get(
            (settings.weights, settings.points), lambda: anchor_distances(attention, settings.points)
        )
        out = self._pipe.segment(
            attention, settings.points, settings.iterations, settings.threshold, image=self.image, distances=distances
        )
        out.original_size = (self._source.image.height, self._source.image.width)
        out.crop, out.file = self._crop, self._source.name
        out.settings = {**(out.settings or {}), **plain_settings(settings.given())}
        return out

    def _named(self, out: DiffSegOutput, words: Words) -> DiffSegOutput:
        """The same masks with names, as the pipeline gives them."""
        prompt, nouns, maps = self._nouns.get(words, lambda: self._noun_maps(words, tuple(out.labels.shape)))
        if not nouns:
            return replace(out, words=(), caption=prompt)
        labels, proposals, kept, confidence = merge_by_word(out.labels, out.proposals, maps)
        named = tuple(nouns[index] for index in kept)
        given = words if isinstance(words, str) else list(words)
        return replace(
            out, labels=labels, proposals=proposals, words=named, confidence=confidence, caption=prompt,
            settings={**out.settings, "words": given},
        )  # fmt: skip

    def _noun_maps(self, words: Words, size: tuple[int, int]) -> tuple[str, tuple[str, ...], Tensor | None]:
        """The prompt, its nouns, and the attention to each."""
        vocabulary = self._pipe.vocabulary(self.image, words if words == "caption" else list(words))
        prompt = vocabulary.prompt
        if not vocabulary.nouns:
            return prompt, (), None
        layers = self._pipe.record(self._source.image, prompt=prompt, kinds=("cross",), crop=self._crop)
        maps = noun_maps(layers, vocabulary.tokens, size).cpu()
        return prompt, tuple(noun.word for noun in vocabulary.nouns), maps

    def look(self, settings: Settings, place: Place) -> Float[Tensor, "h w"]:
        """What a place attends to, aggregated."""
        row, column = position(place, self.sums.grid)
        return self.attention(settings)[row, column].cpu()

    def look_by_side(self, place: Place) -> dict[int, Float[Tensor, "h w"]]:
        """What a place attends to in the mean of the layers of each side, upsampled; the maps sum to 1."""
        rows, columns = self.sums.grid
        found = {}
        for factor in sorted(self.sums.sums):
            row, column = position(place, (rows // factor, columns // factor))
            own = self.sums.sums[factor][row * (columns // factor) + column] / self.sums.counts[factor]
            found[min(rows, columns) // factor] = own.view(rows, columns).cpu()
        return found

    def select(self, state: State) -> Bool[Tensor, "height width"]:
        """The object that was clicked."""
        maps: Maps = self._maps.get(state.settings.weights, lambda: prepare(self.attention(state.settings)))
        size = (self.image.height, self.image.width)
        return select(maps, state.places("positive"), state.places("negative"), state.reach, size).cpu()


class Engine:
    """Pictures that were looked at last, in one model."""

    def __init__(self, pipe: DiffSegPipeline):
        self.pipe = pipe
        self._pictures = Kept(2)

    @torch.no_grad()
    def picture(self, state: State) -> Picture:
        return self._pictures.get((state.source, state.crop), lambda: Picture(self.pipe, state.source, state.crop))


def differing(
    before: Integer[Tensor, "h w"], after: Integer[Tensor, "h w"]
) -> tuple[Bool[ndarray, "h w"], Integer[ndarray, " segments"]]:
    """Pixels on which two segmentations disagree.

    Segments of the second are matched one to one to those of the first, so that the most pixels agree; a pixel differs
    if the segments it is in are not matched.

    Returns:
        The pixels, and matched[segment of the second] = segment of the first, or -1.
    """
    matched = match_segments(after, before, int(before.max()) + 1, ignore=(), protocol="clean")
    return matched[after.numpy()] != before.numpy(), matched
