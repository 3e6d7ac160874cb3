"""Files that appear whole or not at all, and folders that one command uses at a time."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".diffseg.lock"


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


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Let no other command in while this one works in a folder, which must exist.

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
