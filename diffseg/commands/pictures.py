"""Which pictures are meant, and what their results are called."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from unicodedata import normalize

from diffseg.files import portable_name

#: Files with these endings are the pictures of a folder. A file that is named itself may have any.
ENDINGS = frozenset(".jpg .jpeg .jpe .jfif .png .tif .tiff .bmp .webp .gif .ppm .pgm .pbm .pnm .avif .jp2 .tga".split())


@dataclass(frozen=True)
class Picture:
    """A picture and where its results belong.

    Attributes:
        path: of its file.
        file: the same, relative to the folder that all pictures are in.
        name: what the names of its results begin with, relative to the folder of results, with "/" between folders.
    """

    path: Path
    file: str
    name: str


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        pictures: in the order of their names.
        left_out: how many files with an ending that is none of a picture.
        unreadable: why folders could not be looked into.
    """

    pictures: tuple[Picture, ...]
    left_out: Counter[str]
    unreadable: tuple[str, ...]


def find_pictures(given: Sequence[Path], out: Path) -> Found:
    """The pictures that are named, and those in the folders that are named and in the folders in these.

    Hidden files and folders are left out, and so is the folder of results.

    Args:
        given: files and folders.
        out: the folder of results; it need not exist.

    Raises:
        FileNotFoundError: if something that is named is not there.
        ValueError: if there is no picture, or the results would be written among the pictures.
    """
    left_out: Counter[str] = Counter()
    unreadable: list[str] = []
    paths: set[Path] = set()
    roots = []
    for each in map(absolute, given):
        if each.is_dir():
            if each == absolute(out):
                raise ValueError(
                    f"out={str(out)!r} is a folder of pictures: results would be taken for pictures the next time. "
                    "Give a folder of its own; it may lie in that of the pictures."
                )
            roots.append(each)
            for path in walk(each, absolute(out), unreadable):
                if path.suffix.lower() in ENDINGS:
                    paths.add(path)
                else:
                    left_out[path.suffix.lower()] += 1
        elif each.is_file():
            roots.append(each.parent)
            paths.add(each)
        else:
            raise FileNotFoundError(f"{str(each)!r} is neither a file nor a folder. Check the path.")
    if not paths and not unreadable:
        raise ValueError(
            f"no pictures in {', '.join(repr(str(each)) for each in given)}; looked for {' '.join(sorted(ENDINGS))}."
        )
    base = common_folder(roots)
    files = sorted((relative(path, base), path) for path in paths)
    names = result_names([file for file, _ in files])
    pictures = tuple(Picture(path, file.as_posix(), name) for (file, path), name in zip(files, names))
    return Found(pictures, left_out, tuple(unreadable))


def result_names(files: Sequence[PurePath]) -> list[str]:
    """A name for the results of each file: its own, unless Windows could not have it or another has it already.

    Two names are the same if they differ in nothing but capital letters or the composition of accents: on many disks
    they would be one file.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        wanted = "/".join(portable_name(part) for part in file.parts)
        name, number = wanted, 1
        while (key := normalize("NFC", name).casefold()) in taken:
            number += 1
            name = f"{wanted}~{number}"
        taken.add(key)
        names.append(name)
    return names


def walk(folder: Path, out: Path, unreadable: list[str]) -> Iterator[Path]:
    """All files in a folder that are not hidden; why folders could not be looked into is added to `unreadable`."""
    for here, folders, files in os.walk(folder, onerror=lambda error: unreadable.append(str(error))):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(here, name) != out]
        yield from (Path(here, name) for name in files if not name.startswith("."))


def common_folder(roots: Sequence[Path]) -> Path | None:
    """The folder that all are in; None on Windows for those of several drives."""
    try:
        return Path(os.path.commonpath(roots))
    except ValueError:
        return None


def relative(path: Path, base: Path | None) -> PurePath:
    """A path from `base` on; without one, the whole path with the drive's letter as its first folder."""
    return PurePath(path.drive.rstrip(":"), *path.parts[1:]) if base is None else path.relative_to(base)


def absolute(path: Path) -> Path:
    """Without links resolved: who names a link means the place it stands in."""
    return Path(os.path.abspath(path.expanduser()))
