"""What the explorer shows, as a value: every change makes a new one, and undo goes back to an old one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image

from diffseg import ITERATIONS, POINTS, pocket
from diffseg.images import ImageLike, load_image

TOOLS = ("segments", "attention", "object", "compare")
Tool = Literal["segments", "attention", "object", "compare"]


@dataclass(frozen=True, eq=False)
class Source:
    """A picture, and the Python that gives it.

    Attributes:
        name: what it is called.
        image: RGB, in its own size.
        code: an expression.
    """

    name: str
    image: Image.Image
    code: str


@dataclass(frozen=True)
class Settings:
    """The settings of one segmentation.

    Attributes:
        threshold: tau, nats.
        points: M, anchors along one side.
        iterations: N, passes of merging.
        weights: (side, R of all its layers) for each side; None: the paper's, in proportion to the side of each layer.
        words: what masks may be called, or "caption"; none: no names.
    """

    threshold: float
    points: int = POINTS
    iterations: int = ITERATIONS
    weights: tuple[tuple[int, float], ...] | None = None
    words: tuple[str, ...] | Literal["caption"] = ()

    @property
    def rule(self) -> str | dict[int, float]:
        """The weights as `aggregate` takes them."""
        return "layer" if self.weights is None else dict(self.weights)

    def given(self) -> dict[str, object]:
        """As the arguments of a pipeline, those that are not the defaults; the threshold always."""
        arguments: dict[str, object] = {"threshold": self.threshold}
        if self.points != POINTS:
            arguments["points"] = self.points
        if self.iterations != ITERATIONS:
            arguments["iterations"] = self.iterations
        if self.weights is not None:
            arguments["weights"] = dict(self.weights)
        if self.words:
            arguments["words"] = self.words if isinstance(self.words, str) else list(self.words)
        return arguments


@dataclass(frozen=True)
class Mark:
    """A click that selects; x and y from the upper left corner, 0 to 1."""

    x: float
    y: float
    kind: Literal["positive", "negative"] = "positive"


@dataclass(frozen=True)
class State:
    """Everything that decides what is on the screen.

    Attributes:
        tool: what a click does, and what is drawn over the picture.
        query: where the attention is looked at.
        marks: the clicks that select an object.
        reach: how far maps of the object may be from the clicked ones, nats.
        kept: the settings A that the present ones are compared with.
        crop: whether only the central square is used.
    """

    source: Source
    settings: Settings
    reach: float
    tool: Tool = "segments"
    query: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()
    kept: Settings | None = None
    crop: bool = True

    def places(self, kind: str) -> list[tuple[float, float]]:
        """The clicks of one kind."""
        return [(mark.x, mark.y) for mark in self.marks if mark.kind == kind]

    def on(self, source: Source) -> "State":
        """The same settings on another picture."""
        return replace(self, source=source, query=None, marks=())


@dataclass(frozen=True)
class History:
    """States to go back to, and forth again.

    Attributes:
        now: the present one.
        what: the knob that led to it: turning one knob on makes one step, not many.
    """

    now: State
    past: tuple[State, ...] = ()
    future: tuple[State, ...] = ()
    what: str = ""

    def push(self, state: State, what: str = "") -> "History":
        """A new state; an empty `what` always is a step of its own."""
        if state == self.now:
            return self
        past = self.past if what and what == self.what else (*self.past, self.now)
        return History(state, past, (), what)

    def undo(self) -> "History":
        return History(self.past[-1], self.past[:-1], (self.now, *self.future)) if self.past else self

    def redo(self) -> "History":
        return History(self.future[0], (*self.past, self.now), self.future[1:]) if self.future else self


# ---- where pictures come from ---------------------------------------------------------------------------------------


def scene_source(seed: int) -> Source:
    """A drawn scene."""
    return Source(f"scene {seed}", pocket.scene(seed).image, f"pocket.scene({seed}).image")


def file_source(name: str, content: bytes) -> Source:
    """A file that was uploaded, dropped or pasted.

    Raises:
        ValueError: if it is not a picture.
    """
    try:
        with Image.open(BytesIO(content)) as opened:
            opened.load()
            image = load_image(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} could not be read as a picture ({str(error).split(' <')[0]}). Choose a PNG, JPEG, WebP or GIF."
        ) from error
    return Source(name, image, repr(name))


def path_source(path: Path) -> Source:
    """A file in a folder."""
    return Source(path.name, load_image(path), repr(path.as_posix()))


def given_source(image: ImageLike) -> Source:
    """What a caller handed over; the code names it `image`, except for a path."""
    if isinstance(image, str | Path):
        return path_source(Path(image))
    return Source("your picture", load_image(image), "image")


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, by name.

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"folder={str(folder)!r} is not a folder. Check the path.")
    known = Image.registered_extensions()
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.is_file())
    if not found:
        raise FileNotFoundError(f"folder={str(folder)!r} has no picture in it; choose one with PNG or JPEG files.")
    return found


def read_words(text: str) -> tuple[str, ...] | Literal["caption"]:
    """Words that were typed: separated by commas; "caption" alone asks for a caption."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    return "caption" if words == ("caption",) else words


# ---- the code that gives the same result ----------------------------------------------------------------------------


def code(state: State, model: str | None = "pocket") -> str:
    """The Python that gives what is shown: `out`, with the tool "object" also `mask`, with "compare" also `before`.

    Args:
        model: what `from_pretrained` takes; None: the pipeline is taken as given, under the name `pipe`.
    """
    scene = state.source.code.startswith("pocket.")
    names = ["DiffSegPipeline"] * (model is not None) + ["pocket"] * scene
    lines = [f"from diffseg import {', '.join(names)}"] if names else []
    selecting = state.tool == "object" and state.places("positive")
    if selecting:
        lines.append("from diffseg.widgets.selecting import select")
    lines += [""] * bool(lines)
    if model is not None:
        lines.append(f"pipe = DiffSegPipeline.from_pretrained({model!r})")
    if state.source.code != "image":
        lines.append(f"image = {state.source.code}")
    lines.append(_call("out", state.settings, state.crop))
    if selecting:
        places = {kind: _written(state.places(kind)) for kind in ("positive", "negative")}
        size = "size=tuple(out.labels.shape)"
        lines.append(f"clicks = dict(positive={places['positive']}, negative={places['negative']})")
        lines.append(f"mask = select(out.attention, **clicks, reach={state.reach!r}, {size})")
    if state.tool == "compare" and state.kept is not None:
        lines.append(_call("before", state.kept, state.crop))
    return "\n".join(lines)


def _call(name: str, settings: Settings, crop: bool) -> str:
    arguments = [f"{key}={value!r}" for key, value in settings.given().items()] + ["crop=False"] * (not crop)
    return f"{name} = pipe(image, {', '.join(arguments)})"


def _written(places: Sequence[tuple[float, float]]) -> str:
    return "[" + ", ".join(f"({x!r}, {y!r})" for x, y in places) + "]"
