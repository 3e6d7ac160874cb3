"""Notebook 09: a toy of three classes and four segments whose borders can be dragged."""

from dataclasses import dataclass, replace
from numbers import Real

import ipywidgets
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from diffseg.colours import Palette, colours
from diffseg.metrics import PROTOCOLS, UNMATCHED, Score, SegmentationScore, count_overlap, match_segments
from diffseg.widgets.canvas import Canvas
from diffseg.widgets.lessons.shared import Panel, column, deepest, row
from diffseg.widgets.paint import encode

NAMES = ("sky", "tree", "road", "car", "boat")  # the picture shows the first three
ROWS, COLUMNS = 18, 24
_PIXEL = 30  # drawn pixels for each of the toy's
_WIDTH = 360  # css pixels
_SEGMENTS = 4
_HANDLE, _INK = (32, 33, 36), (32, 33, 36)


@dataclass(frozen=True)
class Borders:
    """Where segments meet, in pixels of the toy.

    Attributes:
        sky: column between segments 1 (left) and 0, above the horizon.
        horizon: row between those two and segments 2 and 3.
        road: column between segments 2 (left) and 3, below the horizon.
    """

    sky: int = 6
    horizon: int = 12
    road: int = 16


def draw_truth() -> Int[np.ndarray, "rows columns"]:
    """A tree before the sky, on a road."""
    truth = np.zeros((ROWS, COLUMNS), dtype=int)
    truth[12:] = NAMES.index("road")
    truth[4:14, 9:15] = NAMES.index("tree")
    return truth


def segments_of(borders: Borders) -> Int[np.ndarray, "rows columns"]:
    """The segment of each pixel."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    above = np.where(columns < borders.sky, 1, 0)
    below = np.where(columns < borders.road, 2, 3)
    return np.where(rows < borders.horizon, above, below)


def nearest_border(borders: Borders, x: Real, y: Real) -> str:
    """The name of the border that is nearest to a point from 0 to 1."""
    across, down = x * COLUMNS, y * ROWS
    away = {"horizon": abs(down - borders.horizon)}
    upright = "sky" if down < borders.horizon else "road"
    away[upright] = abs(across - getattr(borders, upright))
    return min(away, key=away.get)


def move_border(borders: Borders, name: str, x: Real, y: Real) -> Borders:
    """One border moved to a point; it stays within the picture, where it may leave a segment without a pixel."""
    place = round(y * ROWS) if name == "horizon" else round(x * COLUMNS)
    return replace(borders, **{name: int(place)})


@dataclass(frozen=True)
class Marks:
    """What the scorers say of one segmentation.

    Attributes:
        overlap: pixels that each class shares with each segment.
        matched: of each protocol, the class of each segment, or -1.
        scores: of each protocol.
    """

    overlap: Int[np.ndarray, "classes segments"]
    matched: dict[str, Int[np.ndarray, " segments"]]
    scores: dict[str, Score]


def mark(segments: Int[np.ndarray, "rows columns"], truth: Int[np.ndarray, "rows columns"]) -> Marks:
    """Score segments by both protocols."""
    scores, matched = {}, {}
    for protocol in PROTOCOLS:
        scorer = SegmentationScore(len(NAMES), protocol)
        scorer.update(segments, truth)
        scores[protocol] = scorer.compute()
        matched[protocol] = match_segments(segments, truth, len(NAMES), protocol=protocol)
    return Marks(count_overlap(segments, truth, len(NAMES)), matched, scores)


def greedy_agreement(overlap: Int[np.ndarray, "classes segments"]) -> int:
    """Pixels in agreement if the largest number of the table is taken first, then the largest of the rest, ..."""
    left, agreed = overlap.copy(), 0
    while left.max() > 0:
        label, segment = np.unravel_index(left.argmax(), left.shape)
        agreed += int(left[label, segment])
        left[label, :] = left[:, segment] = 0
    return agreed


def describe_marks(marks: Marks) -> str:
    """The matching and the scores in words."""
    clean, paper = marks.scores["clean"], marks.scores["paper"]
    pairs = [f"segment {s} is {NAMES[c]}" for s, c in enumerate(marks.matched["clean"]) if c != UNMATCHED]
    left = ", ".join(str(s) for s, c in enumerate(marks.matched["clean"]) if c == UNMATCHED)
    best, total = round(clean.accuracy * marks.overlap.sum()), int(marks.overlap.sum())
    greedy = greedy_agreement(marks.overlap)
    text = (
        f"The best matching: {', '.join(pairs)}{'; left over: ' * bool(left)}{left}. Accuracy {best} of {total} pixels "
        f"= {clean.accuracy:.2f}. mIoU {clean.miou:.2f} by protocol clean, {paper.miou:.2f} by paper."
    )
    return text + (f" Greed would agree on {greedy} pixels only." if greedy < best else " Greed finds it, too.")


def table_of(marks: Marks) -> str:
    """Counts, matching and IoU of each class as a table in HTML; a frame marks the chosen cells."""
    segments = marks.overlap.shape[1]
    heads = ["pixels", *(f"segment {s}" for s in range(segments)), *(f"IoU, {protocol}" for protocol in PROTOCOLS)]
    lines = ["<tr>" + "".join(f'<th scope="col">{head}</th>' for head in heads) + "</tr>"]
    for label, name in enumerate(NAMES):
        cells = [
            _cell(str(pixels), "2px solid" if marks.matched["clean"][s] == label else _charged(marks, s, label))
            for s, pixels in enumerate(marks.overlap[label])
        ]
        cells += [_cell(_number(marks.scores[protocol].iou[label])) for protocol in PROTOCOLS]
        lines.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    means = "".join(_cell(f"<b>{_number(marks.scores[protocol].miou)}</b>") for protocol in PROTOCOLS)
    lines.append(f'<tr><th scope="row">mIoU</th>{_cell("") * segments}{means}</tr>')
    note = "Frame: the best matching. Dashed: what protocol paper adds."
    return f'<table class="diffseg-table" style="text-align: right">{"".join(lines)}</table><small>{note}</small>'


def _charged(marks: Marks, segment: int, label: int) -> str:
    """The frame of a cell that only the protocol of the paper chooses."""
    return "2px dashed" if marks.matched["paper"][segment] == label else "2px solid transparent"


def _cell(text: str, border: str = "2px solid transparent") -> str:
    return f'<td style="border: {border}; padding: 2px 8px">{text}</td>'


def _number(value: Real) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def toy_colours() -> Palette:
    """Colours of the classes, then of the segments, all different."""
    return colours(len(NAMES) + _SEGMENTS)[[0, 2, 1, 7, 8, 3, 4, 5, 6]]


def draw_toy(
    labels: Int[np.ndarray, "rows columns"], palette: Palette, names: tuple[str, ...], borders: Borders | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Labels as large pixels with their names, and with handles on the borders where these can be dragged."""
    sheet = Image.fromarray((255 * palette[labels]).round().astype(np.uint8))
    sheet = sheet.resize((COLUMNS * _PIXEL, ROWS * _PIXEL), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(28)
    for label in np.unique(labels):
        x, y = deepest(labels == label)
        middle = (x + 0.5) * _PIXEL, (y + 0.5) * _PIXEL
        draw.text(middle, names[label], fill="black", stroke_fill="white", stroke_width=3, font=font, anchor="mm")
    if borders is not None:
        level = borders.horizon * _PIXEL
        lines = {
            "horizon": (0, level, sheet.width, level),
            "sky": (borders.sky * _PIXEL, 0, borders.sky * _PIXEL, level),
            "road": (borders.road * _PIXEL, level, borders.road * _PIXEL, sheet.height),
        }
        for x0, y0, x1, y1 in lines.values():
            draw.line((x0, y0, x1, y1), fill="white", width=8)
            draw.line((x0, y0, x1, y1), fill=_HANDLE, width=3)
        for x0, y0, x1, y1 in lines.values():
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill="white", outline=_HANDLE, width=4)
    return np.asarray(sheet)


def matching_toy() -> Panel:
    """Drag the borders of four segments: the matching, accuracy and the IoU of both protocols follow."""
    truth, palette = draw_truth(), toy_colours()
    answer = Canvas(width=_WIDTH, picture=encode(draw_toy(truth, palette[: len(NAMES)], NAMES)))
    answer.alt = "The truth: a tree before the sky, on a road."
    found, table = Canvas(width=_WIDTH), ipywidgets.HTML()
    limits = {"sky": COLUMNS, "horizon": ROWS, "road": COLUMNS}
    sliders = {
        name: ipywidgets.IntSlider(value=getattr(Borders(), name), min=0, max=limit, description=name)
        for name, limit in limits.items()
    }
    panel = Panel(
        found,
        [row(answer, found, column(*sliders.values())), table],
        found=found, truth=answer, table=table, sliders=sliders,
    )  # fmt: skip
    grabbed = "sky"

    def borders() -> Borders:
        return Borders(**{name: slider.value for name, slider in sliders.items()})

    def draw() -> None:
        segments, numbers = segments_of(borders()), tuple(map(str, range(_SEGMENTS)))
        found.picture = encode(draw_toy(segments, palette[len(NAMES) :], numbers, borders()))
        marks = mark(segments, truth)
        table.value = table_of(marks)
        panel.say(describe_marks(marks))

    def drag(x: Real, y: Real, phase: str) -> None:
        nonlocal grabbed
        if phase == "start":
            grabbed = nearest_border(borders(), x, y)
        sliders[grabbed].value = getattr(move_border(borders(), grabbed, x, y), grabbed)

    found.on_drag(drag)
    panel.when(*sliders.values(), do=draw)
    draw()
    return panel
