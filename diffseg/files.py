"""Files that appear whole or not at all, and folders that one command uses at a time."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".diffseg.lock"

_HIDDEN = re.compile(r"\.[0-9a-f]{32}\.tmp")  # what `write_whole` writes to first
#: What no file of Windows may be called, whatever stands after the first dot, and signs that no name of one may hold.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\.|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def write_whole(file: Path, content: bytes) -> None:
    """Write a file in one step: who looks sees what was there before, or all of the new content.

    The content goes to a hidden file first, which then takes its place. A process that is killed in between leaves
    nothing but the hidden file, which ends in ".tmp".

    Raises:
        OSError: if it could not be written; then what was there still is.
    """
    hidden = file.with_name(f".{uuid.uuid4().hex}.tmp")  # short: the file's own name may be as long as names can be
    try:
        with open(hidden, "xb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        os.replace(hidden, file)
    except OSError as error:
        # The name of the file that was wanted, not of the hidden one.
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed in `write_whole` left anywhere in a folder, where nobody else writes."""
    for hidden in folder.rglob(".*.tmp"):
        if _HIDDEN.fullmatch(hidden.name):
            hidden.unlink(missing_ok=True)


def portable_name(name: str) -> str:
    """The name of a file or folder, changed where Windows could not have it: "_con.jpg" for "con.jpg"."""
    name = _FORBIDDEN.sub("_", name)
    name = re.sub(r"[. ]$", "_", name)
    return f"_{name}" if _RESERVED.match(name) else name


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Let no other command in while this one works in a folder, which is made if it is not there.

    The operating system gives the lock back when a process ends, however it ends.

    Raises:
        BlockingIOError: if another command is at work in the folder.
        OSError: if the folder cannot be written to.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BlockingIOError(
            f"another command is at work in {str(folder)!r}. Wait until it has ended, or give another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
