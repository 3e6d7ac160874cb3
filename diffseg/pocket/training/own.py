"""One's own pictures: a folder of pictures with a `metadata.csv` of their captions, as a miniature can learn from them.

The folder has the form of an image folder of Hugging Face's datasets: one row for each picture, with the columns
`file_name` (relative to the folder) and `text`. The nouns to be learned are those that enough captions hold.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from transformers import CLIPTokenizer

from ...images import load_image, read_image
from ...metrics import IGNORE
from ...models.fingerprint import LENGTH
from ...progress import progress
from .vocabulary import Vocabulary, count_nouns

METADATA, COLUMNS = "metadata.csv", ("file_name", "text")

#: A noun is learned if so many captions hold it; fewer pictures than this are too few.
LEAST_CAPTIONS, LEAST_PICTURES = 4, 8

_UNLABELLED = max(IGNORE)  # nobody says what is where in these pictures
_SHOWN = 5  # names in a message
_REMEDY = (
    f"It needs the columns {' and '.join(COLUMNS)}, and a row for each picture: the name of its file in the folder, "
    "and a caption that names what it shows, in quotation marks if there is a comma in it."
)


@dataclass(frozen=True)
class Collection:
    """Pictures that can be learned from.

    Attributes:
        files: of the pictures.
        captions: of each, one line, short enough for the model; each holds a noun of the vocabulary.
        vocabulary: the nouns to be learned, the most frequent one first.
        skipped: pictures that are not among them: file name -> why.
        digest: of all pictures and captions.
    """

    files: tuple[Path, ...]
    captions: tuple[str, ...]
    vocabulary: Vocabulary
    skipped: dict[str, str]
    digest: str


class OwnPictures(Dataset):
    """The first pictures of a collection as (image, labels, caption), without labels; for `encode_pictures`."""

    def __init__(self, collection: Collection, number: int, size: int) -> None:
        self.collection, self.number, self.size = collection, number, size

    @property
    def name(self) -> str:
        """What they are stored under."""
        return f"{self.size}-{self.number}-own-{self.collection.digest}"

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        image = np.array(read_image(self.collection.files[index], self.size))
        return image, np.full(image.shape[:2], _UNLABELLED, np.uint8), self.collection.captions[index]


def read_collection(
    folder: Path,
    tokenizer: CLIPTokenizer,
    least_captions: int = LEAST_CAPTIONS,
    least_pictures: int = LEAST_PICTURES,
) -> Collection:
    """Read a folder of pictures with captions.

    A picture is skipped if it cannot be read, or if its caption holds no noun that is learned. Of a caption that is
    longer than what the model reads, the end is cut off.

    Args:
        folder: with `metadata.csv`.
        tokenizer: of the model that is to learn from them.
        least_captions: how many captions must hold a noun that is learned.
        least_pictures: how many pictures must be left.

    Raises:
        FileNotFoundError: without `metadata.csv`, or if a file that it lists is missing.
        ValueError: if `metadata.csv` is not of this form, if no noun is in enough captions, or for too few pictures.
    """
    listed = _read_metadata(folder)
    read, skipped, digest = [], {}, sha256()
    for name, text in progress(listed, "reading pictures"):
        try:
            load_image(folder / name)
        except (ValueError, Image.DecompressionBombError) as error:
            skipped[name] = f"it cannot be read ({error.__cause__ or error})"
        else:
            read.append((name, shorten_caption(text, tokenizer)))
    vocabulary = _common_nouns([caption for _, caption in read], least_captions, folder)
    files, captions = [], []
    for name, caption in read:
        if vocabulary.nouns_in(caption):
            files.append(folder / name)
            captions.append(caption)
            digest.update(sha256((folder / name).read_bytes()).digest() + f"{caption}\n".encode())
        else:
            skipped[name] = "its caption holds no noun that is learned"
    if len(files) < least_pictures:
        reasons = f" Skipped: {_some(f'{name}: {why}' for name, why in skipped.items())}." if skipped else ""
        raise ValueError(
            f"folder={str(folder)!r}: of {len(listed)} pictures {len(files)} can be learned from; at least "
            f"{least_pictures} are needed, and hundreds are better.{reasons}"
        )
    return Collection(tuple(files), tuple(captions), vocabulary, skipped, digest.hexdigest()[:LENGTH])


def shorten_caption(text: str, tokenizer: CLIPTokenizer) -> str:
    """A caption on one line, without its last words if it has more tokens than the model reads."""
    words = text.split()
    while len(tokenizer(" ".join(words), verbose=False).input_ids) > tokenizer.model_max_length:
        words.pop()
    return " ".join(words)


def _read_metadata(folder: Path) -> list[tuple[str, str]]:
    """File names and captions."""
    file = folder / METADATA
    if not file.is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} has no {METADATA}. {_REMEDY}")
    rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:  # with or without the mark that Excel writes
            table = csv.DictReader(opened, strict=True)
            if not set(COLUMNS) <= set(table.fieldnames or ()):
                raise ValueError(f"its columns are {table.fieldnames or []}")
            for row in table:
                if None in row or None in row.values():  # more values than columns, or fewer
                    raise ValueError(f"line {table.line_num} does not have {len(table.fieldnames)} values")
                rows.append(tuple(row[name] for name in COLUMNS))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file} is not of the right form: {error}. {_REMEDY}") from error
    missing = [name for name, _ in rows if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{file} lists {len(missing)} of {len(rows)} files that are not there: {_some(missing)}. Add them to the "
            "folder, or remove their rows."
        )
    return rows


def _common_nouns(captions: list[str], least: int, folder: Path) -> Vocabulary:
    """The nouns that so many captions hold, the most frequent one first; without captions there are none."""
    counts = count_nouns(captions)
    ranked = sorted(counts, key=lambda noun: (-counts[noun], noun))
    common = tuple(noun for noun in ranked if counts[noun] >= least)
    if captions and not common:
        found = _some(f"{noun} ({counts[noun]})" for noun in ranked) or "there are none at all"
        raise ValueError(
            f"folder={str(folder)!r}: no noun is in {least} captions or more; how many hold the most frequent ones: "
            f"{found}. Call the same things by the same words, or add pictures."
        )
    return Vocabulary(common)


def _some(names: Iterable[str]) -> str:
    """The first ones of some names, in a sentence."""
    first = list(islice(names, _SHOWN + 1))
    return ", ".join(first[:_SHOWN]) + ", ..." * (len(first) > _SHOWN)
