"""The explorer without Python: one page with the picture, its attention in bytes, and segments for many thresholds."""

import json
import math
import os
import zlib
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from einops import reduce
from jaxtyping import Float, UInt8
from torch import Tensor

from diffseg import ITERATIONS, POINTS, THRESHOLD
from diffseg.colours import BRIGHTEST
from diffseg.files import write_whole
from diffseg.merging import anchor_distances, check_attention, check_settings
from diffseg.output import DiffSegOutput
from diffseg.plus import segment_attention
from diffseg.widgets.canvas import pack_labels
from diffseg.widgets.frames import name_segments
from diffseg.widgets.paint import VIRIDIS, encode, tint

LARGEST = 8_000_000  # bytes of a page
STEPS = 25  # thresholds, if none are given
_FOLDER = Path(__file__).parent


def export(
    out: DiffSegOutput,
    path: str | os.PathLike,
    thresholds: Sequence[Real] | None = None,
    title: str = "What belongs together?",
) -> Path:
    """Write one self-contained page: hover, click and threshold work in any browser, without Python or a network.

        widgets.export(pipe("photo.jpg"), "explorer.html")

    Args:
        out: with its picture.
        path: of the page; it takes the place of an older one.
        thresholds: that the slider has, nats; None: 25 from a tenth to four times that of `out`.
        title: of the page.

    Returns:
        The path.

    Raises:
        ValueError: for an output without a picture, thresholds that make no sense, or a page above 8 MB.
        OSError: if the file could not be written.
    """
    if out.image is None:
        raise ValueError("out.image is None: the output was made from attention. Pass image= to `segment`.")
    settings = dict(out.settings or {})
    own = settings.get("threshold", THRESHOLD)
    own = float(own if isinstance(own, Real) else own[0])
    thresholds = default_thresholds(own) if thresholds is None else sorted(map(float, thresholds))
    data = {
        "picture": _text(encode(out.image, lossy=True)),
        "alt": f"{title} A picture and its segments.",
        "views": segment_views(out, thresholds, settings.get("points", POINTS), settings.get("iterations", ITERATIONS)),
        "start": int(np.argmin([abs(math.log(tau / own)) for tau in thresholds])),
        "attention": pack_attention(out.attention),
        "viridis": VIRIDIS.tolist(),
    }
    page = fill(title, data).encode("utf-8")
    if len(page) > LARGEST:
        raise ValueError(
            f"the page would have {len(page) / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}; pass fewer thresholds= "
            f"than {len(thresholds)}, or a smaller picture."
        )
    path = Path(path).expanduser()
    write_whole(path, page)
    return path


def default_thresholds(own: float) -> list[float]:
    """Evenly spaced on a logarithmic scale, with `own` among them, three digits each."""
    below = round(0.62 * STEPS)
    step = math.log(10) / below
    return sorted({float(f"{own * math.exp(step * (index - below)):.3g}") for index in range(STEPS)})


def segment_views(
    out: DiffSegOutput, thresholds: Sequence[float], points: int, iterations: int
) -> list[dict[str, Any]]:
    """What the page shows for each threshold: labels, their names, and the colours to lay over the picture."""
    size = check_attention(out.attention)
    distances = anchor_distances(out.attention, points)
    views = []
    for tau in thresholds:
        passes = check_settings(size, points, iterations, tau)
        labels, proposals = segment_attention(
            out.attention, tuple(out.labels.shape), points, passes, distances=distances
        )
        found = DiffSegOutput(labels, proposals, out.attention)
        ids = labels.numpy()
        views.append(
            {
                "threshold": tau,
                "labels": _text(pack_labels(ids)),
                "size": list(ids.shape),
                "names": name_segments(found),
                "overlay": _text(encode(tint(ids))),
            }
        )
    return views


def pack_attention(attention: Float[Tensor, "h w h w"]) -> dict[str, Any]:
    """Attention in bytes, a map for each place, coarser than it was: at most 64 places and 32 values along a side.

    A byte b of a map stands for (b / 255)^2 of the map's brightest value, which is the quantile that figures use.
    """
    rows, columns = attention.shape[:2]
    places = math.ceil(max(rows, columns) / 64)
    values = math.ceil(max(rows, columns) / 32)
    middles = attention[places // 2 :: places, places // 2 :: places]
    whole = middles[..., : rows // values * values, : columns // values * values]
    maps = reduce(whole, "i j (h a) (w b) -> i j h w", "mean", a=values, b=values).numpy()
    quantised = quantise(maps)
    return {"bytes": _text(zlib.compress(quantised.tobytes(), 9)), "shape": list(quantised.shape)}


def quantise(maps: Float[np.ndarray, "i j h w"]) -> UInt8[np.ndarray, "i j h w"]:
    """Each map in bytes, see `pack_attention`; the square root keeps what is faint."""
    flat = maps.reshape(*maps.shape[:2], -1)
    top = np.quantile(flat, BRIGHTEST, axis=-1)[..., None, None]
    return (255 * np.sqrt((maps / np.maximum(top, 1e-12)).clip(0, 1))).round().astype(np.uint8)


def fill(title: str, data: dict[str, Any]) -> str:
    """The page: its skeleton with styles, both modules and the data in it."""
    read = {name: (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.html", "page.js", "canvas.css")}
    canvas = b64encode((_FOLDER / "canvas.js").read_bytes()).decode()
    parts = {
        "TITLE": escape(title),
        "STYLE": read["canvas.css"],
        "IMPORTS": json.dumps({"imports": {"canvas": f"data:text/javascript;base64,{canvas}"}}),
        "DATA": json.dumps(data).replace("</", "<\\/"),
        "SCRIPT": read["page.js"],
    }
    page = read["page.html"]
    for name, content in parts.items():
        page = page.replace(f"<!-- {name} -->", content)
    return page


def _text(content: bytes) -> str:
    return b64encode(content).decode("ascii")
