"""Results on disk: one small Parquet file per image, which says what it depends on."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import portable_name, remove_leftovers, sole_user, write_whole
from .counting import Key, Row, schema

FORMAT = 2  # of the files; results of another one are not read

_ABOUT = b"diffseg"  # where the file says what it is about
_LONGEST = 100  # characters of an image's name that its file takes over as they are


class Results:
    """A folder of results that survives a crash at any moment.

    The rows of an image are written in one step: a file that can be seen is complete. `pandas.read_parquet(folder)`
    reads all of them as one table.

    Args:
        folder: made if it is not there.
        about: what the results depend on: data set, split, size, and so on. Every file carries it; a file that
            differs in any of it is refused.
        models: fingerprints of the models by their role, such as "diffusion". A file that was made with another model
            in a role is refused; a role that is new is added.
        versions: of the packages. A file that was made with others gives a warning.

    Raises:
        ValueError: if there is a file in the folder's place.
        ImportError: if there is no pyarrow.
        OSError: if the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        about: Mapping[str, Any],
        models: Mapping[str, str],
        versions: Mapping[str, str],
    ):
        self.folder = Path(folder).expanduser()
        self.about, self.models, self.versions = {"format": FORMAT, **about}, dict(models), dict(versions)
        self.schema = schema()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"out={str(self.folder)!r} is a file; results are a folder. Give another name.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    @property
    def writable(self) -> bool:
        """Whether something can be added."""
        return os.access(self.folder, os.W_OK)

    @contextmanager
    def sole_use(self) -> Iterator[None]:
        """No other command may add to the folder meanwhile; one that can only be read needs no such care.

        Raises:
            BlockingIOError: if another command is at work in it.
            OSError: if it cannot be written to.
        """
        with ExitStack() as stack:
            if self.writable:
                try:
                    stack.enter_context(sole_user(self.folder))
                except BlockingIOError:
                    raise
                except OSError as error:
                    raise self._cannot_write(error) from error
                remove_leftovers(self.folder)
            yield

    def read(self) -> pd.DataFrame:
        """All rows, in the order of their files.

        Raises:
            ValueError: if a file is damaged, or about something else.
        """
        import pyarrow as pa

        read = [self._read(file) for file in sorted(self.folder.glob("[!.]*.parquet"))]
        self._compare_versions([versions for _, _, versions in read])
        return pa.concat_tables([self.schema.empty_table(), *(table for table, _, _ in read)]).to_pandas()

    def add(self, image: str, rows: Sequence[Row]) -> None:
        """Keep the rows of one image, beside those that are there with other methods and settings.

        Raises:
            OSError: if they could not be written; then what was there still is.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder / file_name(image)
        older, models, versions = self._read(file) if file.exists() else (self.schema.empty_table(), {}, {})
        new = {key_of(row) for row in rows}
        kept = [row for row in older.to_pylist() if key_of(row) not in new]
        known = {"about": self.about, "models": models | self.models, "versions": versions | self.versions}
        table = pa.Table.from_pylist([*kept, *rows], schema=self.schema.with_metadata({_ABOUT: json.dumps(known)}))
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        try:
            write_whole(file, buffer.getvalue().to_pybytes())
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}. Make room (or out= another place); the images that were done are kept",
                str(file),
            ) from error

    def _read(self, file: Path) -> tuple[Any, dict[str, str], dict[str, str]]:
        """The rows of a file, and the models and versions that they were made with."""
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as opened:
                table = opened.read()
            known = json.loads(table.schema.metadata[_ABOUT])
            about, models, versions = known["about"], known["models"], known["versions"]
        except (OSError, ValueError, KeyError, TypeError) as error:  # what pyarrow raises; no metadata, or not ours
            raise ValueError(
                f"{file} is damaged or not a result of this version ({error}). Delete it: that image is then scored "
                "again."
            ) from error
        self._compare(file, about, self.about, "was made with")
        self._compare(file, models, self.models, "was made with the model", common=True)
        return table.replace_schema_metadata(), models, versions

    def _compare(self, file: Path, found: dict, wanted: dict, said: str, common: bool = False) -> None:
        """Refuse a file that depends on something else."""
        names = found.keys() & wanted.keys() if common else found.keys() | wanted.keys()
        differing = sorted(name for name in names if found.get(name) != wanted.get(name))
        if differing:
            parts = (f"{name} {found.get(name)} (this run has {wanted.get(name)})" for name in differing)
            raise ValueError(
                f"{file} {said} {', '.join(parts)}: results of both must not be mixed. Give another out=, or delete "
                "the old results."
            )

    def _compare_versions(self, found: Sequence[Mapping[str, str]]) -> None:
        """Warn, once, of results that other versions made."""
        others = {
            f"{name} {versions[name]} (now {self.versions[name]})": None
            for versions in found
            for name in sorted(versions.keys() & self.versions.keys())
            if versions[name] != self.versions[name]
        }
        if others:
            warnings.warn(
                f"some results in {self.folder} were made with {', '.join(others)}: numbers may differ a little from "
                "those that are computed now. For one version throughout give another out=.",
                stacklevel=4,
            )

    def _cannot_write(self, error: OSError) -> OSError:
        return OSError(
            error.errno,
            f"{error.strerror}. Results cannot be kept there; give an out= that can be written to",
            str(self.folder),
        )


def key_of(row: Row) -> Key:
    """Method and setting of a row, of which pandas makes NaN if there is none."""
    return row["method"], None if pd.isna(row["setting"]) else float(row["setting"])


def file_name(image: str) -> str:
    """The file of an image: its name where every system can have a file of that name, else one that is made from it.

    Names that differ in capitals only are one file on some systems, so those have a mark of their own.
    """
    plain = portable_name(image.replace(".", "_") if image.startswith(".") else image)
    if plain == image and image == image.lower() and image.isascii() and len(image) <= _LONGEST:
        return f"{image}.parquet"
    mark = sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: _LONGEST // 3]}-{mark}.parquet"
