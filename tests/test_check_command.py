"""`diffseg check` on real submissions: right, wrong and hostile ones; each costs nobody else anything."""

import csv
import json
import os
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from helpers_submissions import LESSONS, hand_in, solutions

from diffseg import check
from diffseg.__main__ import main as diffseg
from diffseg.commands import wire
from diffseg.commands.check import COLUMNS, main
from diffseg.commands.needed import needed
from diffseg.commands.submissions import chapters, exercises_of, find_submissions, read_submission
from diffseg.commands.walls import WALLS, works
from diffseg.exits import DONE, FAILED, WRONG

MERGING, MASKS, SCORING = "04_merging_attention.ipynb", "05_masks.ipynb", "09_evaluation.ipynb"
SECONDS = 30  # that a submission may take here, the start of Python on a busy machine included
GIGABYTES = 1.5
WALLED = [name for name in WALLS if name != "none"]
SECRET = "the-secret-of-this-home"


def table(out):
    """(submission, exercise) -> row."""
    with open(out, encoding="utf-8-sig", newline="") as file:
        return {(row["submission"], row["exercise"]): row for row in csv.DictReader(file)}


def results(rows, submission):
    return {exercise: row["result"] for (name, exercise), row in rows.items() if name == submission}


@pytest.fixture(scope="module", autouse=True)
def temporary(tmp_path_factory):
    """Where the folders of submissions are made here, so that those of another command are not taken for ours."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def left_running(temporary):
    """Processes of our submissions that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME", "").startswith(str(temporary)):
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def listening():
    """A port of this machine, and the list of those who came."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        stop = threading.Event()

        def serve():
            while not stop.is_set():
                try:
                    came.append(server.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            stop.set()
            thread.join()


def function(head, *body):
    """The cell of an exercise: a function with this body."""
    name = head.split("(")[0]
    lines = "\n".join(f"    {line}" for line in "\n".join(body).splitlines())
    return f"import os, time\nimport numpy as np\nimport torch\n\ndef {head}:\n{lines}\n\n\ncheck.{name}({name})"


KL, UNSEEN, GROUPS = "symmetric_kl(p, q)", "unseen(labels, points)", "linked_groups(near)"
SIZES, SLEEP = "merge_by_size(proposals, sizes, threshold)", "        time.sleep(600)"

# ---- reading ---------------------------------------------------------------------------------------------------------


def test_chapters_are_those_of_the_notebooks():
    made = {tuple(solutions(path.name)) for path in LESSONS}
    assert {frozenset(names) for names in made} == {frozenset(names) for names in chapters()}


def test_submissions_are_found_by_name_and_read(tmp_path):
    one = hand_in(MASKS, tmp_path / "class" / "bo" / "masks.ipynb", {})
    hand_in(MASKS, tmp_path / "class" / "bo" / ".ipynb_checkpoints" / "masks.ipynb", {})
    two = hand_in(MERGING, tmp_path / "class" / "al.ipynb", {})
    found = find_submissions([tmp_path / "class"])
    assert [(each.name, each.path) for each in found] == [("al.ipynb", two), ("bo/masks.ipynb", one)]
    assert {*exercises_of(read_submission(found[0]))} == {*solutions(MERGING)}
    assert {*exercises_of(read_submission(found[1]))} == {*solutions(MASKS)}


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{}", b'{"cells": 7}', b"[" * 10**6, b'{"cells": [{"source": 1}]}']
)
def test_a_file_that_is_no_notebook_costs_a_row(content, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.ipynb").write_bytes(content)
    assert main([str(tmp_path / "in"), "--out", str(tmp_path / "s.csv")]) == FAILED
    (row,) = table(tmp_path / "s.csv").values()
    assert (row["result"], row["right"], row["exercise"]) == ("unreadable", "0", "")
    assert "0 of 1 submissions" in capsys.readouterr().out


def test_what_the_exercises_need():
    before = [
        "import torch, math\nfrom numpy import array as a, zeros\nplots.style()",
        "x = math.pi\nx = 2\ny = x + 1\nz = y",
        "def helper():\n    return y\n",
        "not python at all",
    ]
    last = ["w = 1\ndef mine(v):\n    local = v\n    return torch.exp(local) * helper() * w * a(1)"]
    assert needed(before, last) == [
        "import torch", "from numpy import array as a", "x = 2", "y = x + 1", "def helper():\n    return y",
    ]  # fmt: skip


# ---- values from a process that lies ---------------------------------------------------------------------------------

VALUES = [
    None, True, 3, -2.5, float("inf"), "text", [1, (2, [3.5])], (), torch.arange(6).view(2, 3), torch.ones(2, 0),
    torch.tensor([True, False]), np.float32(1.5), np.arange(3, dtype=np.uint8), torch.nn.Parameter(torch.ones(2)),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_through(value):
    got = wire.unpack(json.loads(json.dumps(wire.pack(value))))
    if isinstance(value, torch.Tensor):
        assert torch.equal(got, value.detach()) and got.dtype == value.dtype
    elif isinstance(value, np.ndarray):
        np.testing.assert_array_equal(got, value)
    else:
        assert got == value and isinstance(got, type(value)) or isinstance(value, np.generic)


class Liar:
    """Says that it is equal to everything."""

    def __eq__(self, other):
        return True

    def __repr__(self):
        return "right on all inputs"


@pytest.mark.parametrize(
    ("value", "name"), [(Liar(), "Liar"), ({1: 2}, "dict"), (1j, "complex"), (10**400, "int"), (lambda: 0, "function")]
)
def test_what_is_no_data_is_only_named(value, name):
    got = wire.unpack(json.loads(json.dumps(wire.pack(value))))
    assert type(got).__name__ == name and got != 1


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"not json", b"[" * 10**5, b'{"kind": "tensor"}', b'{"kind": "list", "entries": 3}', b"1" * 5000,
        b'{"kind": "array", "dtype": "object", "shape": [1], "data": ""}', b'{"kind": "float", "value": "1p99999"}',
        b'{"kind": "array", "dtype": "int8", "shape": [1000000000000], "data": "AAAA"}', b'{"kind": []}',
        b'{"kind": "array", "dtype": "int64", "shape": [-1], "data": "AAAA"}', b'{"kind": "other", "x": 1}',
    ],
)  # fmt: skip
def test_nonsense_is_refused(line):
    with pytest.raises((ValueError, KeyError, TypeError, RecursionError, OverflowError)):
        wire.unpack(wire.read(line))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ["nowhere"], [".", "--timeout", "0"], [".", "--memory", "x"], [".", "--pass", "2"],
        [".", "--exercises", "kl,none"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_told(wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = diffseg(["check", *wrong])
    except SystemExit as ended:  # argparse
        status = ended.code
    assert status == WRONG and wrong[-1].split(",")[-1] in capsys.readouterr().err


def test_another_table_is_not_overwritten(tmp_path, capsys):
    hand_in(MASKS, tmp_path / "a.ipynb", {})
    (tmp_path / "marks.csv").write_text("name,mark\nAnna,1\n")
    assert main([str(tmp_path), "--out", str(tmp_path / "marks.csv")]) == WRONG
    assert "is no table of `diffseg check`" in capsys.readouterr().err
    assert (tmp_path / "marks.csv").read_text() == "name,mark\nAnna,1\n"


#: Three of four functions do harm; the fourth is right.
HOSTILE = {
    "stopped": {
        "unseen": function(UNSEEN, "while True:", "    try: time.sleep(1)", "    except BaseException: pass"),
        "linked_groups": function(GROUPS, "os._exit(0)"),
        "merge_by_size": function(
            SIZES, "for _ in range(80):", "    if not os.fork():", "        os.setsid()", SLEEP, SLEEP[8:]
        ),
    },
    "greedy": {
        "unseen": function(UNSEEN, "return [np.ones(10**8) for _ in range(10**4)]"),
        "linked_groups": function(GROUPS, "print('right on all inputs\\n' * 10**5)", "return torch.ones(10**7)"),
        "merge_by_size": function(SIZES, "print('right on all inputs\\n' * 10**6)", "raise SystemExit(0)"),
    },
}
RESULTS = {
    "stopped": {"unseen": "time", "linked_groups": "ended", "merge_by_size": "processes"},
    "greedy": {"unseen": "memory", "linked_groups": "output", "merge_by_size": "error"},
}
#: What a pass of symmetric_kl could be faked with; all of it runs before the exercises.
FAKE = """
import gc, json, os, sys, types
import numpy as np
import torch
import diffseg
from diffseg import check as real_looking

for each in (sys.modules["diffseg.check"], diffseg.check):
    each.symmetric_kl = lambda mine: print("symmetric_kl: right on all 4 inputs")
for module in [m for n, m in sys.modules.items() if n.startswith("diffseg.check.")]:
    module.Check.judge = module.Check.__call__ = module.Check._difference = lambda *given: ""
for one in gc.get_objects():
    if type(one).__name__ == "Check":
        one.cases, one.reference = (), lambda *given: None
np.isclose = np.allclose = torch.allclose = torch.equal = lambda *given, **named: np.array(True)
for descriptor in range(3, 64):
    for line in ({"at": "result", "name": "symmetric_kl", "case": n, "result": True, "right": 1} for n in range(9)):
        try:
            os.write(descriptor, b"\\n" + json.dumps(line).encode() + b"\\n")
        except OSError:
            break

class Equal(float):
    __eq__ = __ne__ = lambda *given: True
"""
ANSWERED = {
    "symmetric_kl": "def symmetric_kl(p, q):\n    return Equal(0)\n\ncheck.symmetric_kl(symmetric_kl)\n"
    "print('symmetric_kl: right on all 4 inputs')",
    "unseen": "def unseen(labels, points):\n    return Equal(0)\n\nunseen.right = True\ncheck.unseen(unseen)",
    "linked_groups": "linked_groups = check.linked_groups.reference\ncheck.linked_groups(linked_groups)",
    "merge_by_size": "from diffseg import merge as merge_by_size\n\ncheck.merge_by_size(merge_by_size)",
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A whole class in one call: its rows, the folder, the status of the first and of a second call."""
    folder = tmp_path_factory.mktemp("class")
    solved = solutions(MERGING)
    sent, out = folder / "sent", folder / "scores" / "scores.csv"
    hand_in(MERGING, sent / "solved.ipynb", solved)
    hand_in(SCORING, sent / "anna" / "=scoring.ipynb", {**solutions(SCORING), **typical()}, lesson=False)
    hand_in(MERGING, sent / "fakes.ipynb", ANSWERED, before=FAKE, lesson=False)
    with_outputs(sent / "fakes.ipynb", "symmetric_kl: right on all 4 inputs")
    for name, answers in HOSTILE.items():
        hand_in(MERGING, sent / f"{name}.ipynb", {**solved, **answers}, lesson=False)
    given = [str(sent), "--out", str(out), "--timeout", str(SECONDS), "--memory", str(GIGABYTES)]
    status = main(given)
    return table(out), folder, status, given


def typical():
    """Mistakes that the checks of notebook 09 know, and a cell whose check was taken out."""
    return {
        "mean_iou": function("mean_iou(hits, predicted, actual)", "return (hits / np.maximum(actual, 1)).mean()"),
        "best_accuracy": function("best_accuracy(overlap)", "return overlap.nothing"),
        "pooled_iou": "# I did not get to this one",
    }


def with_outputs(path, text):
    """Claim in the stored outputs that all is right."""
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": [text]}]
    path.write_text(json.dumps(notebook))


@pytest.mark.slow
class TestClass:
    def test_every_exercise_has_a_row(self, graded):
        rows, folder, status, _ = graded
        assert status == FAILED
        assert len(rows) == 4 * (3 + len(HOSTILE))
        assert all(tuple(row) == COLUMNS for row in rows.values())
        assert all((row["right"] == "1") == (row["result"] == "right") for row in rows.values())

    def test_the_solution_is_right(self, graded):
        assert {*results(graded[0], "solved.ipynb").values()} == {"right"}

    def test_typical_mistakes_are_diagnosed(self, graded):
        rows, name = graded[0], "'=scoring.ipynb"
        assert "anna/=scoring.ipynb" in {one for one, _ in rows}, name
        got = {exercise: row for (one, exercise), row in rows.items() if one.startswith("anna")}
        assert {exercise: row["result"] for exercise, row in got.items()} == {
            "shared_pixels": "right", "best_accuracy": "error", "mean_iou": "wrong", "pooled_iou": "missing",
        }  # fmt: skip
        assert "That is the recall." in got["mean_iou"]["diagnosis"]
        assert "AttributeError" in got["best_accuracy"]["diagnosis"]

    def test_no_fake_passes(self, graded):
        got = results(graded[0], "fakes.ipynb")
        assert "right" not in got.values() and len(got) == 4, got

    @pytest.mark.parametrize("name", HOSTILE)
    def test_what_does_harm_costs_its_own_row(self, graded, name):
        assert results(graded[0], f"{name}.ipynb") == {"symmetric_kl": "right", **RESULTS[name]}

    def test_nothing_is_left_running(self, graded, temporary):
        assert not left_running(temporary)

    def test_the_same_call_keeps_what_was_done_and_grades_what_is_new(self, graded, capsys):
        rows, folder, _, given = graded
        hand_in(MERGING, folder / "sent" / "greedy.ipynb", {}, lesson=False)  # handed in again
        before = (folder / "scores" / "scores.csv").read_bytes()
        assert main(given) == FAILED
        after = table(folder / "scores" / "scores.csv")
        assert {*results(after, "greedy.ipynb").values()} == {"open"}
        changed = {name for name, row in after.items() if row != rows[name]}
        assert {name for name, _ in changed} == {"greedy.ipynb"}
        assert before != (folder / "scores" / "scores.csv").read_bytes()
        assert "1 of 5 submissions have 100%" in capsys.readouterr().out

    def test_the_status_is_about_this_call(self, graded):
        _, folder, _, given = graded
        kept = (folder / "scores" / "scores.csv").read_bytes()
        assert main([str(folder / "sent" / "solved.ipynb"), *given[1:]]) == DONE
        assert main([str(folder / "sent" / "stopped.ipynb"), *given[1:], "--pass", "0.25"]) == DONE
        assert main([str(folder / "sent" / "stopped.ipynb"), *given[1:], "--pass", "0.3"]) == FAILED
        assert table(folder / "scores" / "scores.csv").keys() == graded[0].keys()
        assert kept == (folder / "scores" / "scores.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("wall", WALLED)
def test_behind_a_wall_there_is_no_home_no_network_and_nobody_else(wall, tmp_path, monkeypatch, temporary):
    if not works(wall):
        pytest.skip(f"{wall} does not work here")
    home, sent = tmp_path / "home", tmp_path / "sent"
    home.mkdir()
    (home / "key").write_text(SECRET)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MY_TOKEN", SECRET)
    out = tmp_path / "scores.csv"
    other = hand_in(MERGING, sent / "other.ipynb", {})
    spared = [home / "key", other, Path(check.__file__), Path(__file__)]
    before = [path.read_bytes() for path in spared]
    with listening() as (port, came):
        attack = [
            "import shutil, signal, socket, subprocess, psutil",
            f"places = {[str(tmp_path), str(home), str(Path(check.__file__).parent), str(Path(__file__).parent)]!r}",
            "seen = [files for place in places[:2] for _, _, files in os.walk(place)]",
            "for place in places: shutil.rmtree(place, ignore_errors=True)",
            f"for name in {list(map(str, spared))!r}:",
            "    try: open(name, 'w').write('gone')",
            "    except OSError: pass",
            "for pid in range(2, 5000):",
            f"    if pid == {os.getpid()} or pid == os.getppid():",
            "        try: os.kill(pid, signal.SIGTERM)",
            "        except OSError: pass",
            "try:",
            f"    socket.create_connection(('127.0.0.1', {port}), timeout=2)",
            "except OSError: pass",
            "subprocess.Popen(['sleep', '600'], start_new_session=True)",
            f"raise ValueError(seen, {SECRET!r} in str(os.environ), len(psutil.pids()) < 9)",
        ]
        hand_in(MERGING, sent / "attack.ipynb", {"unseen": function(UNSEEN, *attack)}, lesson=False)
        status = main([str(sent / "attack.ipynb"), "--out", str(out), "--wall", wall, "--exercises", "unseen"])
    row = table(out)["attack.ipynb", "unseen"]
    assert status == FAILED and "ValueError: ([], False, True)" in row["diagnosis"], row
    assert [path.read_bytes() for path in spared] == before
    assert not came and not left_running(temporary)


@pytest.mark.slow
def test_without_a_wall_limits_hold_and_nothing_is_left_running(tmp_path, capsys, monkeypatch, temporary):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    home = os.path.expanduser("~")
    answers = {
        "symmetric_kl": function(KL, f"raise ValueError(os.path.expanduser('~') == {home!r}, os.environ)"),
        "unseen": function(UNSEEN, "if not os.fork():", "    os.setsid()", "    time.sleep(600)", "time.sleep(600)"),
    }
    path = hand_in(MERGING, tmp_path / "sent" / "a.ipynb", {**solutions(MERGING), **answers}, lesson=False)
    out = tmp_path / "s.csv"
    assert main([str(path), "--out", str(out), "--wall", "none", "--timeout", str(SECONDS)]) == FAILED
    rows = table(out)
    assert results(rows, "a.ipynb") == {
        "symmetric_kl": "error", "unseen": "time", "linked_groups": "right", "merge_by_size": "right",
    }  # fmt: skip
    said = rows["a.ipynb", "symmetric_kl"]["diagnosis"]
    assert "(False, environ(" in said and SECRET not in said
    assert "there is no wall" in capsys.readouterr().err
    assert not left_running(temporary)
