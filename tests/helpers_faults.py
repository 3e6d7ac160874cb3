"""Faults of the machine, caused by the operating system itself."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest


@contextmanager
def files_no_larger_than(count):
    """The operating system refuses to write more bytes than that to a file."""
    resource = pytest.importorskip("resource", reason="Windows sets no limits on files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def small_disk(folder, size, options=""):
    """A disk of so many bytes at a folder; skipped where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a disk needs Linux and its superuser")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
