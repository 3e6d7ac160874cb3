"""A picture that is pointed at: hover, click, drag, drop, paste, and all of it by keyboard."""

import zlib
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from traceback import format_exception, format_exception_only
from weakref import WeakKeyDictionary

import anywidget
import numpy as np
import traitlets as tr
from ipywidgets import Output
from jaxtyping import Integer

_FOLDER = Path(__file__).parent
_NOTHING = {np.uint8: 255, np.uint16: 65535}
_failures: WeakKeyDictionary = WeakKeyDictionary()  # widget -> how often a callback has failed on it


class Canvas(anywidget.AnyWidget):
    """A picture with an overlay, segments that light up under the pointer, and points set on it.

    Whoever wants events asks for them, with `on_click` and the like; they come one at a time, and while a callback
    runs the browser keeps only the newest movement. Places are (x, y) from the upper left corner, 0 to 1. Keys: the
    arrows move a cursor (with shift in larger steps), Enter or Space clicks (with shift: a negative click), Delete
    takes the last point back, Escape closes a message. Where dragging is asked for, Space picks up what is under
    the cursor and puts it down, and so does Enter if clicks are not asked for.

    Attributes:
        picture: PNG, WebP or JPEG, of any size; see `paint.encode`.
        overlay: the same with transparency, laid over it; empty: none.
        labels, label_size, names: a label map and what to call each label; set them with `show_labels`.
        marks: points, {"x": 0.5, "y": 0.5, "kind": "positive"}; kinds are positive, negative and query.
        cursor: where the keyboard is, or the last click was.
        width: css pixels; less where the page is narrower.
        smooth: whether pictures are scaled smoothly; False shows their pixels as squares.
        alt: what is seen, in words; it is also spoken when it changes.
        message, level: shown on the picture; levels are info, warning and error.
        listens: the events that are asked for.
    """

    _esm = _FOLDER / "canvas.js"
    _css = _FOLDER / "canvas.css"

    picture = tr.Bytes(b"").tag(sync=True)
    overlay = tr.Bytes(b"").tag(sync=True)
    labels = tr.Bytes(b"").tag(sync=True)
    label_size = tr.Tuple(tr.Int(), tr.Int(), default_value=(0, 0)).tag(sync=True)
    names = tr.List(tr.Unicode()).tag(sync=True)
    marks = tr.List(tr.Dict()).tag(sync=True)
    cursor = tr.Tuple(tr.Float(), tr.Float(), default_value=(0.5, 0.5)).tag(sync=True)
    width = tr.Int(384).tag(sync=True)
    smooth = tr.Bool(True).tag(sync=True)
    alt = tr.Unicode("").tag(sync=True)
    message = tr.Unicode("").tag(sync=True)
    level = tr.Enum(("info", "warning", "error"), "info").tag(sync=True)
    listens = tr.List(tr.Unicode()).tag(sync=True)

    def __init__(self, **traits):
        super().__init__(**traits)
        self._callbacks: dict[str, list[Callable]] = {}
        self.on_msg(self._receive)

    def on_click(self, callback: Callable[[float, float, str], None]) -> None:
        """callback(x, y, kind) at a click; kind is negative with shift, alt or the right button, else positive."""
        self._listen("click", callback)

    def on_hover(self, callback: Callable[[float, float], None]) -> None:
        """callback(x, y) while the pointer moves over the picture."""
        self._listen("hover", callback)

    def on_drag(self, callback: Callable[[float, float, str], None]) -> None:
        """callback(x, y, phase) while something is dragged; phase is start, move or end."""
        self._listen("drag", callback)

    def on_remove(self, callback: Callable[[], None]) -> None:
        """callback() at the Delete key, in place of taking the last of `marks` away."""
        self._listen("remove", callback)

    def on_file(self, callback: Callable[[str, bytes], None]) -> None:
        """callback(name, content) for a file that is dropped or pasted."""
        self._listen("file", callback)

    def show_labels(self, labels: Integer[np.ndarray, "h w"] | None, names: Sequence[str] = ()) -> None:
        """Light up segments under the pointer, with their names.

        Args:
            labels: -1 where there is nothing; None: no segments.
            names: names[label] is shown; labels beyond them have none.
        """
        with self.hold_sync():
            self.labels, self.label_size = (b"", (0, 0)) if labels is None else (pack_labels(labels), labels.shape)
            self.names = list(names)

    def show_error(self, error: BaseException) -> None:
        """Say on the picture what went wrong."""
        with self.hold_sync():
            self.message, self.level = describe(error), "error"

    def show_message(self, message: str, level: str = "info") -> None:
        """Say something on the picture; an empty text takes away what is there."""
        with self.hold_sync():
            self.message, self.level = message, level

    def _listen(self, kind: str, callback: Callable) -> None:
        self._callbacks.setdefault(kind, []).append(guard(self)(callback))
        self.listens = sorted({*self.listens, kind})

    def _receive(self, _, content: dict, buffers: Sequence[memoryview]) -> None:
        """One event of the browser: the callbacks that asked for it, then an answer, that the next may come."""
        kind = content["type"]
        given = [content[key] for key in ("x", "y", "kind", "phase", "name") if key in content]
        try:
            if kind == "remove" and kind not in self._callbacks:
                self.marks = self.marks[:-1]
            for callback in self._callbacks.get(kind, ()):
                callback(*given, *map(bytes, buffers))
        finally:
            self.send({"type": "ack", "view": content.get("view", "")})


def pack_labels(labels: Integer[np.ndarray, "h w"]) -> bytes:
    """Labels as the browser reads them: uint8 or uint16 with the largest value for "nothing" (-1), packed by zlib.

    Raises:
        ValueError: for labels below -1 or above 65534.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < -1 or highest > 65534:
        raise ValueError(f"labels holds {lowest} to {highest}; the canvas shows -1 (nothing) to 65534.")
    kind = np.uint8 if highest < 255 else np.uint16
    return zlib.compress(np.where(labels < 0, _NOTHING[kind], labels).astype(np.dtype(kind).newbyteorder("<")), 1)


def guard(widget: Canvas | Output) -> Callable[[Callable], Callable]:
    """Errors in a callback are shown where the reader looks, since Jupyter would swallow them.

        slider.observe(guard(canvas)(follow), "value")

    Args:
        widget: a `Canvas` says on the picture what went wrong, an `Output` shows the traceback. The next call that
            succeeds takes it away.

    Returns:
        What makes of a callback one that never raises; it returns None after an error.
    """

    def decorate(callback: Callable) -> Callable:
        @wraps(callback)
        def guarded(*args, **kwargs):
            before = _failures.get(widget, 0)
            try:
                result = callback(*args, **kwargs)
            except Exception as error:  # whatever it is, it is shown
                _failures[widget] = _failures.get(widget, 0) + 1
                _show(widget, error)
                return None
            if _failures.get(widget, 0) == before:  # nor has a guarded callback failed that this one caused
                _clear(widget)
            return result

        return guarded

    return decorate


def describe(error: BaseException) -> str:
    """An error in words: its message, after its type where the message alone says little."""
    text = str(error).strip()
    if isinstance(error, ValueError | TypeError | FileNotFoundError) and text:
        return text
    return "".join(format_exception_only(error)).strip()


def _show(widget: Canvas | Output, error: Exception) -> None:
    if isinstance(widget, Canvas):
        widget.show_error(error)
    else:
        widget.outputs = ()
        widget.append_stderr("".join(format_exception(error)))


def _clear(widget: Canvas | Output) -> None:
    if isinstance(widget, Canvas):
        if widget.level == "error":
            widget.show_message("")
    elif any(output.get("name") == "stderr" for output in widget.outputs):
        widget.outputs = ()
