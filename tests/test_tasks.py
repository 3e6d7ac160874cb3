"""`python tools NAME` and `make NAME`: which commands run, and what becomes of their status and of signals."""

import os
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE = 60  # seconds
#: Says how it was called; ends with the status in $STATUS; sleeps if asked to, and cleans up when it is stopped.
SCRIPT = """import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.default_int_handler)
try:
    print(*sys.argv[1:], *(f"{name}={os.environ.get(name)}" for name in ("HF_HUB_OFFLINE", "COLOUR")), flush=True)
    time.sleep(600 if "--sleep" in sys.argv else 0)
except KeyboardInterrupt:
    time.sleep(1)
    sys.exit("cleaned up")
sys.exit(int(os.environ.get("STATUS", 0)))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A small repository with the tasks of this one, in which a script stands for the notebooks and for exercises."""
    root = tmp_path_factory.mktemp("my repository")  # with a blank
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "__main__.py", root / "tools")
    shutil.copy(ROOT / "Makefile", root)
    for name in ("run_notebooks.py", "make_exercises.py"):
        (root / "tools" / name).write_text(SCRIPT, encoding="utf-8")
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).touch()
    venv.create(root / ".venv", with_pip=False)
    (root / ".venv" / ".ready").touch()
    return root


def start(repository, *words, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "DIFFSEG_MODEL")} | variables
    return subprocess.Popen(
        [sys.executable, "tools", *words],
        cwd=repository, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def result(repository, *words, **variables):
    with start(repository, *words, **variables) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out.splitlines(), err


def test_variables_and_more_words_reach_the_command(repository):
    status, out, err = result(repository, "pages", "COLOUR=dark blue", "--", "one.ipynb", "--two=2")
    assert (status, err) == (0, "")
    assert out == ["--render --html build/html one.ipynb --two=2 HF_HUB_OFFLINE=1 COLOUR=dark blue"]


def test_a_model_of_the_hub_may_use_the_network(repository):
    assert "HF_HUB_OFFLINE=0" in result(repository, "pages", DIFFSEG_MODEL="owner/model")[1][0]


def test_more_words_are_for_the_last_command(repository):
    out = result(repository, "refresh", "exercises", "--", "--check")[1]
    assert [line.partition("HF")[0] for line in out] == ["--inplace ", "", "--check "]


def test_the_first_failure_ends_it(repository):
    status, out, _ = result(repository, "refresh", "pages", STATUS="7")
    assert status == 7 and len(out) == 1


def test_an_unknown_name_is_told_before_anything_runs(repository):
    status, out, err = result(repository, "pages", "pagse")
    assert (status, out) == (2, []) and "there is no pagse" in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_may_clean_up(repository, number):
    with start(repository, "pages", "--", "--sleep") as process:
        assert process.stdout.readline()
        # Ctrl-C of a terminal goes to all of its processes, SIGTERM to the one that is named.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and "cleaned up" in err


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_has_the_same_names(repository):
    for name in ("help", "pages"):  # in a folder that has a file of this name
        (repository / name).touch()
        command = ["make", "--silent", name, f"PYTHON={sys.executable}", "COLOUR=red"]
        printed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
        assert printed.splitlines()[-1] == result(repository, name, "COLOUR=red")[1][-1]
