"""Segments to take away: as transformers' dict, as annotations of COCO, and as files.

Everywhere here a segment has its id, label + 1, and 0 is what was not segmented, as it is in panoptic segmentation.
"""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt
from PIL import Image
from scipy import ndimage

from diffseg.colours import Palette, colours, colours_by_area, overlay
from diffseg.files import portable_name, write_whole
from diffseg.images import at_original
from diffseg.models.versions import versions

LABELS, OVERLAY, ABOUT = ".labels.png", ".overlay.png", ".json"  # what the names of the files end in

Segmented = Any  # a `DiffSegOutput`, whose module imports this one

_BLOCK = 2**22  # pixels that are counted at a time


def segment_ids(out: Segmented, original: bool = True) -> UInt[np.ndarray, "h w"]:
    """The id of each pixel's segment, in the smallest type that holds them.

    Args:
        original: in the pixels of the picture that was given, if there was one; False: in those of `out.labels`.
    """
    count = int(out.labels.max()) + 1
    ids = (out.labels.numpy() + 1).astype(np.min_scalar_type(count))
    return at_original(ids, *out.original_size, out.crop, outside=0) if original and out.original_size else ids


def to_segments(out: Segmented, original: bool = True) -> dict[str, Any]:
    """What `post_process_panoptic_segmentation` of transformers returns; see `DiffSegOutput.to_segments`."""
    ids = segment_ids(out, original)
    infos = []
    for index in np.flatnonzero(_areas(ids)[1:]).tolist():
        named = {"label": out.words[index]} if out.words else {}
        infos.append(
            {
                "id": index + 1,
                "label_id": _label_id(out, index),
                **named,
                "was_fused": bool(out.words),
                "score": _score(out, index),
            }
        )
    return {"segmentation": torch.from_numpy(ids.astype(np.int32)), "segments_info": infos}


def to_coco(out: Segmented, image_id: int = 1, original: bool = True) -> list[dict[str, Any]]:
    """Annotations as COCO has them; see `DiffSegOutput.to_coco`."""
    ids = segment_ids(out, original)
    annotations = []
    for segment in _measure(out, ids):
        category = {"category": segment["word"]} if "word" in segment else {}
        annotations.append(
            {
                "id": segment["id"],
                "image_id": image_id,
                "category_id": segment["label_id"] + 1,
                **category,
                "segmentation": encode_mask(ids == segment["id"]),
                "bbox": segment["bbox"],
                "area": segment["area"],
                "iscrowd": 0,
                "score": segment["score"],
            }
        )
    return annotations


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask: {"size": [height, width], "counts": text}.

    Made by pycocotools where it is installed, else by `run_lengths` and `compress`.
    """
    try:
        from pycocotools.mask import encode
    except ImportError:
        return {"size": list(mask.shape), "counts": compress(run_lengths(mask))}
    encoded = encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """How many pixels are out, in, out, ... of the mask, column after column; the first number may be 0."""
    flat = np.ravel(mask, order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], changes, [flat.size]])
    return [0] * bool(flat[0]) + np.diff(starts).tolist()


def compress(counts: list[int]) -> str:
    """Run lengths as COCO writes them into text (`rleToString` of its maskApi.c).

    From the fourth on, a number is the difference to the one two before. A number is written in groups of five bits,
    the lowest first; bit 5 says that more follow, and 48 is added to each group.
    """
    text = []
    for index, count in enumerate(counts):
        rest, more = count - counts[index - 2] if index > 2 else count, True
        while more:
            group = rest & 31
            rest >>= 5  # keeps the sign
            more = rest != (-1 if group & 16 else 0)
            text.append(chr(group + 32 * more + 48))
    return "".join(text)


def describe(out: Segmented, ids: UInt[np.ndarray, "h w"], about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written beside the pictures: segments, settings and versions.

    Args:
        ids: of `segment_ids`; areas and boxes are in their pixels.
        about: more entries; "model" spares its being described once more.
    """
    height, width = ids.shape
    if "model" not in about:
        captioned = (out.settings or {}).get("words") == "caption"
        about = {**about, "model": out.model and out.model.describe(captioned)}
    return {
        "height": height,
        "width": width,
        "caption": out.caption,
        "segments": _measure(out, ids),
        "settings": out.settings,
        "versions": versions(),
        **about,
    }


def save(
    out: Segmented, folder: Path, name: str, overlay: bool = True, about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write NAME.labels.png, NAME.overlay.png and, when they are there, NAME.json; see `DiffSegOutput.save`.

    Args:
        about: see `describe`.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids, palette = segment_ids(out), palette_of(out)
    contents = {LABELS: as_png(label_picture(ids, palette))}
    if overlay and out.image is not None:
        contents[OVERLAY] = as_png(Image.fromarray(tint(out, palette)))
    contents[ABOUT] = as_json(describe(out, ids, about or {}))
    files = [folder / (portable_name(name) + end) for end in contents]
    for file, content in zip(files, contents.values()):
        write_whole(file, content)
    return files


def label_picture(ids: UInt[np.ndarray, "h w"], palette: np.ndarray) -> Image.Image:
    """Ids as a picture: 8 bits with the palette's colours, black for 0; 16 bits without colours beyond 255 segments."""
    picture = Image.fromarray(ids)
    if ids.dtype == np.uint8:
        picture.putpalette(np.vstack([np.zeros(3), 255 * palette]).round().astype(np.uint8).tobytes())
    return picture


def palette_of(out: Segmented) -> Palette:
    """A colour for each segment: with a list of words that of its word, else by its rank in area."""
    vocabulary = _vocabulary(out)
    if vocabulary is None:
        return colours_by_area(out.labels)
    return colours(len(vocabulary))[[vocabulary.index(word) for word in out.words]]


def tint(out: Segmented, palette: np.ndarray) -> np.ndarray:
    """The picture as it was segmented, in the colours of its segments."""
    return overlay(out.image, out.labels, palette)


def as_png(picture: Image.Image) -> bytes:
    """A picture as PNG, for a file."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def as_json(content: Any) -> bytes:
    """The same text for the same content; names that are no Unicode lose the bytes that are not."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="replace")


# ---- helpers --------------------------------------------------------------------------------------------------------


def _measure(out: Segmented, ids: UInt[np.ndarray, "h w"]) -> list[dict[str, Any]]:
    """Of each segment that can be seen: id, class, word, area in pixels, box [left, top, width, height], score."""
    areas, measured = _areas(ids), []
    for index, box in enumerate(ndimage.find_objects(ids)):
        if box is not None:
            rows, columns = box
            measured.append(
                {
                    "id": index + 1,
                    "label_id": _label_id(out, index),
                    **({"word": out.words[index]} if out.words else {}),
                    "score": _score(out, index),
                    "area": int(areas[index + 1]),
                    "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                }
            )
    return measured


def _areas(ids: UInt[np.ndarray, "h w"]) -> np.ndarray:
    """Pixels of each id. In blocks: `bincount` makes eight bytes of each pixel."""
    flat, count = ids.reshape(-1), int(ids.max()) + 1
    blocks = (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))
    return sum(np.bincount(block, minlength=count) for block in blocks)


def _vocabulary(out: Segmented) -> list[str] | None:
    """The list of words that the segments were named from, if it was the same for other pictures too."""
    words = (out.settings or {}).get("words")
    return [word.strip() for word in words] if out.words and isinstance(words, list | tuple) else None


def _label_id(out: Segmented, index: int) -> int:
    """The word's place in the list that was given; without a list, the segment's own number."""
    vocabulary = _vocabulary(out)
    return vocabulary.index(out.words[index]) if vocabulary else index


def _score(out: Segmented, index: int) -> float:
    return 1.0 if out.confidence is None else round(float(out.confidence[index]), 6)
