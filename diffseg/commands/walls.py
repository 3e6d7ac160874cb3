"""What stands between a submission and the rest of the machine.

A wall is the beginning of a command line; the command behind it sees the system's programs, Python, this package and an
empty folder of its own that lives in memory. There is no network, no home and no other process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import diffseg
from diffseg.models.paths import data_dir

#: What Python and its libraries read of a system; not /etc as a whole, nor /run, whose sockets lead out.
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/etc/alternatives", "/etc/fonts",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom")

#: Arguments: the new root, the folder of the command, bytes, what is visible, "--", the command. Capabilities go last:
#: with them, what is mounted here could be taken away again.
_NAMESPACES = r"""
set -e
root=$1 work=$2 size=$3; shift 3
mount -t tmpfs -o "mode=755,size=$size" tmpfs "$root"
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p "$root$1"; else mkdir -p "$root${1%/*}"; touch "$root$1"; fi
  mount --rbind "$1" "$root$1"
  case $1 in /dev/*) ;; *) mount -o remount,bind,ro "$root$1" ;; esac
  shift
done
shift
mkdir -p "$root/proc" "$root/dev/shm" "$root$work"
mount -t proc proc "$root/proc"
mount -t tmpfs -o "size=$size" tmpfs "$root/dev/shm"
mount -t tmpfs -o "size=$size" tmpfs "$root$work"
mount -o remount,bind,ro "$root"
exec chroot "$root" /bin/sh -c 'cd "$0" && exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"' \
  "$work" "$@"
"""


def bubblewrap(folder: Path, size: int) -> list[str]:
    """The program `bwrap`, which Flatpak uses for the same purpose."""
    program = shutil.which("bwrap")
    if program is None:
        raise FileNotFoundError("bubblewrap is not installed")
    shown = [word for path in visible() for word in ("--ro-bind", path, path)]
    return [
        program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", *shown,
        "--proc", "/proc", "--dev", "/dev", "--size", str(size), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
        "--size", str(size), "--tmpfs", str(folder), "--remount-ro", "/", "--chdir", str(folder), "--",
    ]  # fmt: skip


def namespaces(folder: Path, size: int) -> list[str]:
    """The same with programs that every Linux has, where the kernel lets an ordinary user make namespaces."""
    program = shutil.which("unshare")
    if program is None or shutil.which("setpriv") is None:
        raise FileNotFoundError("unshare or setpriv, of util-linux, is not installed")
    devices = [f"/dev/{name}" for name in _DEVICES]
    return [
        program, "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child",
        "/bin/sh", "-c", _NAMESPACES, "sh", str(folder), str(folder), str(size), *visible(), *devices, "--",
    ]  # fmt: skip


def nothing(folder: Path, size: int) -> list[str]:
    """No wall: limits of time, memory and processes, and a folder and a home of its own, are all there is."""
    return []


#: The best first.
WALLS = {"bubblewrap": bubblewrap, "namespaces": namespaces, "none": nothing}


@cache
def works(name: str) -> bool:
    """Whether a wall can be built here: it is tried, since many systems forbid it to ordinary users."""
    with tempfile.TemporaryDirectory(prefix="diffseg-") as folder:
        try:
            command = [*WALLS[name](Path(folder), 2**20), sys.executable, "-I", "-c", ""]
            return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


def best_wall() -> str:
    """The best one that works here."""
    return next(name for name in WALLS if name == "none" or works(name))


def visible() -> list[str]:
    """What a submission may read, and nothing that lies in another of them."""
    package = Path(diffseg.__file__).resolve().parent
    wanted = [*_SYSTEM, sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    wanted += [str(package), str(data_dir())]
    wanted += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    there = sorted({os.path.abspath(path) for path in wanted if os.path.exists(path)})
    return [path for path in there if not any(path.startswith(other.rstrip("/") + "/") for other in there)]
