"""Running a submission in a process of its own, watched from outside.

Not in a Jupyter kernel, for all that nbclient does well: the channels of a kernel are the student's as much as ours.
Its key lies in a file that the kernel itself reads, so messages can be forged; the client keeps every output in its
memory; and it needs sockets, which the wall takes away. Here a process is told once what to do, on its standard input,
and what it answers is counted while it is read. The cells are run by IPython's own shell, as in a kernel.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

import diffseg
from diffseg.commands import wire
from diffseg.commands.walls import WALLS

GIB = 2**30
_START = 300  # seconds for Python and torch to be loaded, on a busy machine
_LOOK = 0.1  # seconds between two looks at a process
_MARK = "DIFFSEG_SUBMISSION"  # an environment variable by which its processes are known
_ROOT = str(Path(diffseg.__file__).resolve().parent.parent)
#: What a process of ours may see of the environment; keys and passwords often stand there too.
_KEPT = ("PATH", "SYSTEMROOT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: from the moment when Python and torch are loaded.
        memory: bytes, of each process and of all together.
        files: bytes of its folder, and of a single file.
        answer: bytes of everything that it sends; read as Python objects they take thirty times as much.
        processes: at a time.
    """

    seconds: float = 60.0
    memory: int = 4 * GIB
    files: int = GIB // 4
    answer: int = GIB // 128
    processes: int = 64

    def __str__(self) -> str:
        return f"{self.seconds:g} s, {self.memory / GIB:g} GB"


@dataclass(frozen=True)
class Ended:
    """What a process said, and how it ended.

    Attributes:
        messages: in order; nothing in them is to be trusted.
        how: "done", or "time", "memory", "processes", "output" for the limit that it met, or "died".
    """

    messages: tuple[Mapping[str, Any], ...]
    how: str


def run_contained(job: bytes, limits: Limits, wall: str) -> Ended:
    """Run `diffseg.commands.inside` on a job.

    Raises:
        OSError: if it could not even be started, which is no fault of a submission.
    """
    mark = uuid.uuid4().hex
    with ExitStack() as stack:
        # What a submission left there may refuse to be removed.
        made = tempfile.TemporaryDirectory(prefix="diffseg-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made)).resolve()
        start = f"import sys; sys.path.append({_ROOT!r}); from diffseg.commands.inside import main; main()"
        command = [*WALLS[wall](folder, limits.files), sys.executable, "-I", "-c", start]
        told = stack.enter_context(tempfile.TemporaryFile())
        told.write(job)
        told.seek(0)
        process = subprocess.Popen(
            command, stdin=told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder, env=_environment(folder, mark), start_new_session=True,
        )  # fmt: skip
        with _killed_in_the_end(process, mark, wall):
            heard = _Listener(process.stdout, limits.answer)
            how = _watch(process, heard, limits)
    if heard.began is None:
        raise OSError(f"Python and torch did not start behind the wall {wall!r} within {limits}: {how}.")
    return Ended(tuple(heard.messages), how)


class _Listener:
    """Reads what a process sends, up to a number of bytes, in a thread of its own.

    Attributes:
        messages: so far.
        began: when the first came.
        too_much: whether there was more than may be.
        done: whether it said that it is done.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self.began: float | None = None
        self.too_much = self.done = False
        self._thread = threading.Thread(target=self._listen, args=(stream, most), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """For the end of what is sent."""
        self._thread.join(seconds)

    def _listen(self, stream: IO[bytes], most: int) -> None:
        with suppress(ValueError, OSError):  # the stream was closed
            while not self.done and (line := stream.readline(most + 1)):
                most -= len(line)
                if most < 0:
                    self.too_much = True
                    return
                message = wire.read(line)
                self.began = self.began or time.monotonic()
                self.messages.append(message)
                self.done = message.get("at") == "done"


def _watch(process: subprocess.Popen, heard: _Listener, limits: Limits) -> str:
    """Wait until a process has ended or has met a limit; see `Ended.how`."""
    started = time.monotonic()
    while True:
        heard.wait(_LOOK)
        if heard.done:
            return "done"
        if heard.too_much:
            return "output"
        if process.poll() is not None:
            heard.wait(1.0)
            return "done" if heard.done else "died"
        # Before the time: who has started many processes makes this very look slow.
        family = _family(process.pid)
        if len(family) > limits.processes:
            return "processes"
        since, seconds = (heard.began, limits.seconds) if heard.began else (started, _START)
        if time.monotonic() - since > seconds:
            return "time"
        # Quickly first: what forks share is counted once for each of them.
        if sum(map(_resident, family)) > limits.memory and sum(map(_own, family)) > limits.memory:
            return "memory"


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _own(process: psutil.Process) -> int:
    """Memory of a process, its share of what it has in common with others, or as much of that as the system tells."""
    with suppress(psutil.Error, OSError):
        full = process.memory_full_info()
        return getattr(full, "pss", full.uss)
    return _resident(process)


@contextmanager
def _killed_in_the_end(process: subprocess.Popen, mark: str, wall: str) -> Iterator[None]:
    """Whatever happens, leave nothing of a process behind, nor of those that it started."""
    try:
        yield
    finally:
        family = _family(process.pid)
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        # Behind a wall all end with the first of them. Without, one that has left the family is known by its mark.
        if wall == "none":
            family += [each for each in psutil.process_iter() if _is_marked(each, mark)]
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        process.wait()
        psutil.wait_procs(family, timeout=5)


def _is_marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(_MARK) == mark
    return False


def _environment(folder: Path, mark: str) -> dict[str, str]:
    """Nothing of the grader's but how to find programs; all that is written at home goes to the folder."""
    own = str(folder)
    homes = ("HOME", "USERPROFILE", "APPDATA", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME")
    return {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        **dict.fromkeys(homes, own),
        "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8", "USER": "student", "LOGNAME": "student", _MARK: mark,
    }  # fmt: skip
