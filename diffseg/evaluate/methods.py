"""What can be evaluated: names, the models behind them, and the settings that each takes."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from PIL import Image
from torch import Tensor

from .. import POINTS, baselines
from ..datasets import Dataset, Sample, read_truths
from ..dino import DINO, DINO_POINTS, DinoSegPipeline
from ..merging import anchor_distances
from ..models.captioner import BLIP, Captioner
from ..models.loading import find_model
from ..models.paths import POCKET
from ..pipeline import DiffSegPipeline
from ..plus import PLUS, draw_by_draw

Attention = Float[Tensor, "h w h w"]
Segmentations = Iterator[Any]  # for one setting after the other: segment ids [size, size] from 0 on, or `Named`

#: One value of the number that a method is tried with, such as DiffSeg's threshold; None: the method's own choice.
Setting = Real | None


@dataclass(frozen=True)
class Named:
    """Segments with names.

    Attributes:
        labels: segment ids from 0 on.
        words: words[segment id]; empty if there was no word to choose from.
    """

    labels: Integer[Any, "size size"]
    words: Sequence[str]


def whole(model: Any) -> Mapping[str, Any]:
    """The parts of a model that is a diffusion model and nothing else."""
    return {"diffusion": model}


@dataclass(frozen=True)
class Encoder:
    """The costly part that methods can share: a model, and what it makes of an image.

    Attributes:
        load: name of a model ("pocket", a folder or a hub id) and device -> the model. Called once in each process.
        encode: model and sample -> anything. Called once for each image, whatever uses it.
        parts: model -> its parts by their role, whose fingerprints results carry.

    All must be functions of a module, so that the processes of a cluster can find them by name.
    """

    load: Callable[[str, str], Any]
    encode: Callable[[Any, Sample], Any]
    parts: Callable[[Any], Mapping[str, Any]] = whole


def own_choice(data: Dataset) -> tuple[Setting, ...]:
    """The settings of a method that needs none, or knows its own."""
    return (None,)


def no_number(model: Any) -> None:
    """For methods whose own choice is no number."""


@dataclass(frozen=True)
class Method:
    """A way to segment an encoded image.

    Attributes:
        encoder: what it starts from.
        segment: model, encoding, sample and settings -> for each setting the segment ids, as large as the truth. The
            sample is there for its size, and for methods that are told the number of classes.
        settings: the settings to try on a data set if none are given.
        resolve: model -> the number that the setting None stands for, so that results carry the number.
        shared: whether a segment id means the same in all images, as those of methods do that learn one group for each
            class. Where it does not, segments are grouped by their looks before one matching for all images.
    """

    encoder: Encoder
    segment: Callable[[Any, Any, Sample, Sequence[Setting]], Segmentations]
    settings: Callable[[Dataset], tuple[Setting, ...]] = own_choice
    resolve: Callable[[Any], Setting] = no_number
    shared: bool = False


def load_pipeline(model: str, device: str) -> DiffSegPipeline:
    """The model behind ATTENTION."""
    return DiffSegPipeline.from_pretrained(model).to(device)


def attend(pipe: DiffSegPipeline, sample: Sample) -> Attention:
    """Aggregated attention, with the defaults of the pipeline: the paper's t = 300 and an empty prompt."""
    return pipe.attend(sample.image, size=sample.image.width)


def load_dino(model: str, device: str) -> DinoSegPipeline:
    """The model behind DINO_ATTENTION: the one in the box beside the pocket model, the paper's beside all others."""
    return DinoSegPipeline.from_pretrained(POCKET if model == POCKET else DINO).to(device)


def dino_attend(pipe: DinoSegPipeline, sample: Sample) -> Attention:
    """The attention of a vision transformer, at its own size."""
    return pipe.attend(sample.image)


def load_captioned(model: str, device: str) -> DiffSegPipeline:
    """The model behind CAPTIONED, and the captioner that it names."""
    pipe = load_pipeline(model, device)
    pipe.captioner = Captioner.from_pretrained(find_model(model, {})[1].captioner or BLIP).to(device)
    return pipe


def diffusion_and_captioner(pipe: DiffSegPipeline) -> Mapping[str, Any]:
    """Both can change a name."""
    return {"diffusion": pipe, "captioner": pipe.captioner}


def dino_alone(pipe: DinoSegPipeline) -> Mapping[str, Any]:
    """The parts of a vision transformer."""
    return {"dino": pipe}


def no_parts(model: None) -> Mapping[str, Any]:
    """Of what needs no model."""
    return {}


def own_threshold(pipe: DiffSegPipeline | DinoSegPipeline) -> Setting:
    """The threshold that the model's folder names."""
    return float(pipe.threshold)


def threshold_of_plus(pipe: DiffSegPipeline) -> Setting:
    """The threshold that method="plus" takes for a model."""
    return float(pipe.default_threshold(PLUS))


def no_model(model: str, device: str) -> None:
    """For methods that need nothing but the colours."""


def colours(model: Any, sample: Sample) -> Image.Image:
    """The picture itself."""
    return sample.image


def diffseg(pipe: DiffSegPipeline, attention: Attention, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """DiffSeg; the settings are thresholds, None is the model's own."""
    return _merge_at(pipe, attention, sample, settings, POINTS)


def dinoseg(pipe: DinoSegPipeline, attention: Attention, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """DinoSeg; the settings are thresholds, None is the model's own."""
    return _merge_at(pipe, attention, sample, settings, DINO_POINTS)


def with_caption(
    pipe: DiffSegPipeline, image: Image.Image, sample: Sample, settings: Sequence[Setting]
) -> Segmentations:
    """DiffSeg, with the nouns of a caption as names."""
    return _named(pipe, image, settings, "caption")


def with_true_words(
    pipe: DiffSegPipeline, image: Image.Image, sample: Sample, settings: Sequence[Setting]
) -> Segmentations:
    """DiffSeg, with the names of the classes that the truth shows: how well it would name with a perfect caption."""
    shown = np.intersect1d(sample.truth, range(len(sample.words)))
    return _named(pipe, image, settings, list(dict.fromkeys(sample.words[index] for index in shown)))


def plus(pipe: DiffSegPipeline, image: Image.Image, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """DiffSeg with ideas since the paper, see `diffseg.plus`, at several thresholds."""
    size = image.width
    attention = draw_by_draw(partial(pipe.attend, image, size=size))(PLUS.draws)
    for threshold in settings:
        yield pipe.segment(attention, threshold=threshold, size=size, image=image, method=PLUS).labels


def kmeans(pipe: DiffSegPipeline, attention: Attention, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """K-Means on the attention; the settings are numbers of clusters, None is the image's own number of classes."""
    for setting in settings:
        yield baselines.kmeans(attention, _clusters(setting, sample), size=sample.image.width)


def kmeans_rgb(model: None, image: Image.Image, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """K-Means on colours, with settings as `kmeans` has them."""
    for setting in settings:
        yield baselines.kmeans_colours(image, _clusters(setting, sample), size=image.width)


def dbscan(pipe: DiffSegPipeline, attention: Attention, sample: Sample, settings: Sequence[Setting]) -> Segmentations:
    """DBSCAN on the attention; the settings are values of eps. The distances are computed once."""
    distances = baselines.euclidean_distances(attention)
    for eps in settings:
        yield baselines.dbscan(attention, eps, sample.image.width, distances=distances)


def constant_k(data: Dataset) -> tuple[Setting, ...]:
    """The number of classes that the images of a data set show on average; all of their truths are read."""
    return (float(baselines.true_k(read_truths(data))),)


def no_eps(data: Dataset) -> tuple[Setting, ...]:
    """DBSCAN must be given its settings.

    Raises:
        ValueError: always.
    """
    raise ValueError("dbscan has no eps of its own; give values to try, as in dbscan=0.01,0.02.")


#: Aggregated attention of a DiffSegPipeline, for DiffSeg and for whatever else clusters it.
ATTENTION = Encoder(load_pipeline, attend)
DINO_ATTENTION = Encoder(load_dino, dino_attend, dino_alone)
COLOURS = Encoder(no_model, colours, no_parts)
#: The picture itself and a model that names masks, with a captioner or without one.
PICTURE = Encoder(load_pipeline, colours)
CAPTIONED = Encoder(load_captioned, colours, diffusion_and_captioner)

#: Name on the command line -> method. `register` adds to it.
METHODS: dict[str, Method] = {
    "diffseg": Method(ATTENTION, diffseg, resolve=own_threshold),
    "plus": Method(PICTURE, plus, resolve=threshold_of_plus),
    "kmeans-c": Method(ATTENTION, kmeans, constant_k),
    "kmeans-s": Method(ATTENTION, kmeans),
    "dbscan": Method(ATTENTION, dbscan, no_eps),
    "dinoseg": Method(DINO_ATTENTION, dinoseg, resolve=own_threshold),
    "kmeans-rgb": Method(COLOURS, kmeans_rgb),
    "diffseg+caption": Method(CAPTIONED, with_caption, resolve=own_threshold),
    "diffseg+true": Method(PICTURE, with_true_words, resolve=own_threshold),
}


def register(name: str, method: Method) -> None:
    """Make a method known under a name.

    Raises:
        ValueError: if the name is taken, or holds one of the signs that the command line needs.
    """
    if name in METHODS or not name or set(name) & set("=, "):
        raise ValueError(f"name={name!r} must be new (there are {', '.join(METHODS)}) and without '=', ',' and blanks.")
    METHODS[name] = method


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} must be one of {', '.join(METHODS)}.")
    return METHODS[name]


def _merge_at(
    pipe: DiffSegPipeline | DinoSegPipeline,
    attention: Attention,
    sample: Sample,
    settings: Sequence[Setting],
    points: int,
) -> Segmentations:
    """Iterative merging at several thresholds; the distances of pass 1 are computed once."""
    attention = attention.to(pipe.device)
    distances = anchor_distances(attention, points)
    for threshold in settings:
        out = pipe.segment(attention, points, threshold=threshold, size=sample.image.width, distances=distances)
        yield out.labels


def _named(
    pipe: DiffSegPipeline, image: Image.Image, settings: Sequence[Setting], words: str | Sequence[str]
) -> Segmentations:
    """Masks and names at several thresholds; without words all is one segment that has none."""
    for threshold in settings:
        if not words:
            yield Named(np.zeros((image.height, image.width), int), ())
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the caption .* has no noun")
            out = pipe(image, threshold=threshold, size=image.width, words=words)
        yield Named(out.labels, out.words)


def _clusters(setting: Setting, sample: Sample) -> int:
    return baselines.true_k([sample.truth]) if setting is None else round(setting)
