"""The explorer: any picture, its segments and its attention, all of it live."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path

import ipywidgets as w

from diffseg.aggregation import side_weights
from diffseg.images import ImageLike
from diffseg.pipeline import DiffSegPipeline
from diffseg.widgets.canvas import Canvas, guard
from diffseg.widgets.controls import layout, make_controls, read_settings, weight_sliders
from diffseg.widgets.engine import Engine, Picture
from diffseg.widgets.frames import Frame, Layer, legend_html, make_frame
from diffseg.widgets.paint import encode
from diffseg.widgets.saving import save_files
from diffseg.widgets.state import (
    History,
    Mark,
    Settings,
    Source,
    State,
    code,
    file_source,
    given_source,
    path_source,
    pictures_in,
    scene_source,
)

WIDTH, HALF, SMALL = 512, 258, 120  # css pixels: the picture, one of two, a map of one resolution
_FIRST_SCENE = 1_000_005


class Explorer(w.VBox):
    """What `explorer` shows.

    Attributes:
        history: the states; `history.now` is the present one.
        canvas: the large picture.
        controls: buttons and sliders.
    """

    def __init__(self, pipe: DiffSegPipeline, source: Source, crop: bool = True):
        self._engine = Engine(pipe)
        settings = Settings(threshold=_three(pipe.threshold), points=pipe.points)
        state = State(source, settings, reach=settings.threshold, crop=crop)
        self.history = History(state)
        self.canvas = Canvas(width=WIDTH, smooth=True)
        self._other = Canvas(width=HALF)
        self._other.layout.display = "none"
        self._small = w.HBox([], layout=w.Layout(flex_flow="row wrap", grid_gap="4px 8px"))
        self._quiet = False
        picture = self._engine.picture(state)
        self.controls = make_controls(settings, state.reach, min(32, *picture.sums.grid))
        pictures = w.HBox([self._other, self.canvas], layout=w.Layout(flex_flow="row wrap", grid_gap="4px 8px"))
        super().__init__([layout(self.controls, pictures, self._small)])
        self._connect()
        self._apply(picture, make_frame(picture, state))

    # ---- what is shown ----

    @property
    def state(self) -> State:
        return self.history.now

    def code(self) -> str:
        """The Python that gives what is shown."""
        return code(self.state, self._engine.pipe._name)

    def go(self, state: State, what: str = "") -> None:
        """Show another state; if it cannot be computed, the error is raised and all stays as it is.

        Args:
            what: the knob that was turned, see `History.push`.
        """
        if state.source is not self.state.source:
            self.canvas.show_message("The model looks at the picture …")
        picture = self._engine.picture(state)
        frame = make_frame(picture, state)
        self.history = self.history.push(state, what)
        self._apply(picture, frame)

    def _back_to(self, history: History) -> None:
        picture = self._engine.picture(history.now)
        frame = make_frame(picture, history.now)
        self.history = history
        self._apply(picture, frame)

    def _apply(self, picture: Picture, frame: Frame) -> None:
        """The browser gets what has changed, in one message to each widget."""
        state, c = self.state, self.controls
        _show(self.canvas, picture, frame.main, frame.said)
        comparing = frame.other is not None
        if comparing:
            _show(self._other, picture, frame.other, "The settings A")
        self.canvas.width = HALF if comparing else WIDTH
        self._other.layout.display = "" if comparing else "none"
        self._show_small(frame)
        c.said.value = f'<div class="diffseg-said">{escape(frame.said)}</div>'
        c.legend.value = legend_html(frame.legend)
        c.shown_code.value = f'<pre class="diffseg-code">{escape(self.code())}</pre>'
        self._set_controls(state, picture)
        if self.canvas.level == "info":
            self.canvas.show_message("")

    def _show_small(self, frame: Frame) -> None:
        """A map for each resolution; the canvases are kept as long as their number is the same."""
        if len(frame.small) != len(self._small.children):
            self._small.children = [
                w.VBox([Canvas(width=SMALL), w.HTML()], layout=w.Layout(width=f"{SMALL + 4}px")) for _ in frame.small
            ]
        for box, (name, values) in zip(self._small.children, frame.small):
            canvas, below = box.children
            canvas.picture, canvas.alt = encode(values), f"Attention of the layers of {name}"
            below.value = f'<div class="diffseg-small-title">{name}</div>'

    def _set_controls(self, state: State, picture: Picture) -> None:
        """The controls say what the state says, without being asked back."""
        c, settings = self.controls, state.settings
        with self._unheard():
            c.tool.value = state.tool
            if _three(c.threshold.value) != settings.threshold:
                c.threshold.value = settings.threshold
            if _three(c.reach.value) != state.reach:
                c.reach.value = state.reach
            c.points.value, c.iterations.value = settings.points, settings.iterations
            typed = settings.words if isinstance(settings.words, str) else ", ".join(settings.words)
            c.words.value = typed
            weights = dict(settings.weights) if settings.weights is not None else side_weights(picture.sums)
            names = [f"R {side} × {side}" for side in weights]
            if [slider.description for slider in c.weights.children] != names:
                c.weights.children = weight_sliders(weights)
                for slider in c.weights.children:
                    slider.observe(self._follow(self._weights_moved), "value")
            for slider, weight in zip(c.weights.children, weights.values()):
                if abs(slider.value - weight) > 0.005:
                    slider.value = weight
            c.undo.disabled, c.redo.disabled = not self.history.past, not self.history.future
            c.keep.description = "Keep as A" if state.kept is None else "Keep the present settings as A"

    # ---- what is done ----

    def _connect(self) -> None:
        c, canvas = self.controls, self.canvas
        canvas.on_click(self._clicked)
        canvas.on_remove(self._take_back)
        canvas.on_file(lambda name, content: self._open(file_source(name, content)))
        self._other.on_click(lambda x, y, kind: None)
        for control in (c.threshold, c.points, c.iterations, c.words):
            control.observe(self._follow(self._settings_moved), "value")
        c.reach.observe(self._follow(self._reach_moved), "value")
        c.tool.observe(self._follow(lambda change: self.go(replace(self.state, tool=change["new"]))), "value")
        c.seed.observe(self._follow(lambda change: self._open(scene_source(change["new"]))), "value")
        c.draw.on_click(self._follow(lambda _: self._open(scene_source(c.seed.value))))
        c.upload.observe(self._follow(self._uploaded), "value")
        c.folder.observe(self._follow(self._folder_named), "value")
        c.files.observe(self._follow(self._file_chosen), "value")
        c.code.observe(self._follow(self._code_toggled), "value")
        for pressed, act in (
            (c.undo, lambda: self._back_to(self.history.undo())),
            (c.redo, lambda: self._back_to(self.history.redo())),
            (c.everything, lambda: self.go(replace(self.state, tool="segments", marks=(), query=None))),
            (c.clear, lambda: self.go(replace(self.state, marks=()))),
            (c.keep, lambda: self.go(replace(self.state, kept=self.state.settings, tool="compare"))),
            (c.paper_weights, lambda: self.go(self._with(replace(self.state.settings, weights=None)))),
            (c.save, self._save),
            (c.page, self._save_page),
        ):
            pressed.on_click(self._follow(lambda _, act=act: act()))

    def _follow(self, callback: Callable) -> Callable:
        """A callback that shows its errors, and does not hear what the explorer does itself."""

        def heard(change):
            if not self._quiet:
                callback(change)

        return guard(self.canvas)(heard)

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Controls that are set in here do not call back."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _with(self, settings: Settings) -> State:
        return replace(self.state, settings=settings)

    def _settings_moved(self, change) -> None:
        self.go(self._with(read_settings(self.controls, self.state.settings)), change["owner"].description)

    def _weights_moved(self, change) -> None:
        settings = read_settings(self.controls, self.state.settings, weights_moved=True)
        self.go(self._with(settings), change["owner"].description)

    def _reach_moved(self, change) -> None:
        self.go(replace(self.state, reach=_three(change["new"])), "reach")

    def _clicked(self, x: float, y: float, kind: str) -> None:
        x, y = round(x, 4), round(y, 4)
        state = self.state
        if state.tool == "object":
            kind = "negative" if "negative" in (kind, self.controls.kind.value) else "positive"
            self.go(replace(state, marks=(*state.marks, Mark(x, y, kind))))
        elif state.tool == "attention":
            self.go(replace(state, query=(x, y)), "query")
        elif state.tool == "segments":
            self.go(replace(state, tool="attention", query=(x, y)))

    def _take_back(self) -> None:
        if self.state.tool == "object" and self.state.marks:
            self.go(replace(self.state, marks=self.state.marks[:-1]))

    def _open(self, source: Source) -> None:
        self.go(self.state.on(source))

    def _uploaded(self, change) -> None:
        if change["new"]:
            (file,) = change["new"]
            with self._unheard():
                self.controls.upload.value = ()  # so that the same file can be chosen again
            self._open(file_source(file["name"], bytes(file["content"])))

    def _folder_named(self, change) -> None:
        found = pictures_in(Path(change["new"])) if change["new"].strip() else []
        files = self.controls.files
        files.layout.display = "" if found else "none"
        with self._unheard():
            files.options = [(path.name, path) for path in found]
            files.index = None
        if found:
            files.index = 0  # opens it

    def _file_chosen(self, change) -> None:
        if change["new"] is not None:
            self._open(path_source(change["new"]))

    def _code_toggled(self, change) -> None:
        self.controls.shown_code.layout.display = "" if change["new"] else "none"

    def _save(self) -> None:
        """Label PNG, overlay and JSON, COCO's annotations, and the object's mask if there is one."""
        picture = self._engine.picture(self.state)
        files = save_files(picture, self.state, Path(self.controls.target.value))
        self.canvas.show_message("Saved " + ", ".join(path.name for path in files) + f" in {files[0].parent}.")

    def _save_page(self) -> None:
        from diffseg.widgets.page import export

        picture = self._engine.picture(self.state)
        path = Path(self.controls.target.value) / "explorer.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        export(picture.segment(self.state.settings), path)
        self.canvas.show_message(f"Saved {path.name} in {path.parent}.")


def explorer(pipe: DiffSegPipeline, image: ImageLike | int | None = None, crop: bool = True) -> Explorer:
    """Explore a picture: its segments, what a place attends to, an object by clicks; every setting is live.

    Args:
        pipe: the model.
        image: a picture, a path, the number of a drawn scene, or None: the first scene. Others can be chosen, dropped
            or pasted later.
        crop: True, the paper: the central square. False: the whole picture in its own shape.

    Returns:
        A widget; show it as the last value of a cell. `explorer.state` is what it shows, `explorer.code()` the Python
        that gives the same.

    Raises:
        TypeError, ValueError, FileNotFoundError: if the image cannot be read.
    """
    image = _FIRST_SCENE if image is None else image
    source = scene_source(image) if isinstance(image, int) else given_source(image)
    return Explorer(pipe, source, crop)


def _three(value: float) -> float:
    """Three digits that count: what the reader sees is what is computed."""
    return float(f"{value:.3g}")


def _show(canvas: Canvas, picture: Picture, layer: Layer, said: str) -> None:
    with canvas.hold_sync():
        canvas.picture = picture.shown
        canvas.overlay = b"" if layer.overlay is None else encode(layer.overlay)
        canvas.show_labels(layer.labels, layer.names)
        canvas.marks = list(layer.marks)
        canvas.alt = said
