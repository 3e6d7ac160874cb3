"""Whole files, the lock of a folder, and names that every system can have."""

import multiprocessing
import signal
import sys
from contextlib import suppress
from pathlib import PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffseg.files import portable_name, remove_leftovers, sole_user, write_whole

PATIENCE = 60  # seconds for a process to start on a busy machine


def is_reserved(name):
    """What Python itself knows of Windows' names."""
    if sys.version_info >= (3, 13):
        from ntpath import isreserved

        return isreserved(name)
    return PureWindowsPath(name).is_reserved()


class TestWholeFiles:
    def test_content_is_replaced(self, tmp_path):
        for content in (b"one", b"", b"two" * 1000):
            write_whole(tmp_path / "a", content)
            assert (tmp_path / "a").read_bytes() == content
        assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def test_the_longest_name(self, tmp_path):
        write_whole(tmp_path / ("a" * 255), b"x")
        assert (tmp_path / ("a" * 255)).read_bytes() == b"x"

    def test_a_folder_in_its_place(self, tmp_path):
        (tmp_path / "a").mkdir()
        with pytest.raises(OSError, match="a'"):
            write_whole(tmp_path / "a", b"x")
        assert [file.name for file in tmp_path.iterdir()] == ["a"]

    def test_leftovers(self, tmp_path):
        inner = tmp_path / "inner"
        inner.mkdir()
        names = [f".{'0f' * 16}.tmp", ".mine.tmp", "a.png", f"{'0f' * 16}.tmp"]
        for name in names:
            (inner / name).touch()
        remove_leftovers(tmp_path)
        assert sorted(file.name for file in inner.iterdir()) == sorted(names[1:])


class TestNames:
    @given(
        st.text(max_size=8) | st.from_regex(r"(?i)(con|aux|nul|prn|com\d|lpt\d|conout\$)[ .]?(\.\w+)?", fullmatch=True)
    )
    def test_windows_can_have_them(self, name):
        changed = portable_name(name)
        assert not is_reserved(changed)
        assert not set(changed) & set('<>:"/\\|?*\0\n') and not changed.endswith((".", " "))
        assert portable_name(changed) == changed

    @pytest.mark.parametrize(
        "name", ["a.jpg", "contour.png", "über all.jpg", ".hidden", "com.jpg", "写真.png", "a~2.b"]
    )
    def test_others_are_left_alone(self, name):
        assert portable_name(name) == name

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("con", "_con"),
            ("NUL.tar.gz", "_NUL.tar.gz"),
            ("com1.png", "_com1.png"),
            ("a:b?.png", "a_b_.png"),
            ("a.", "a_"),
        ],
    )
    def test_examples(self, name, expected):
        assert portable_name(name) == expected


class TestSoleUser:
    def test_the_second_is_told(self, tmp_path):
        with sole_user(tmp_path), pytest.raises(BlockingIOError, match="another command is at work in"):
            with sole_user(tmp_path):
                pass
        with sole_user(tmp_path):
            pass

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
    def test_a_killed_process_leaves_no_lock(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        inside = context.Event()
        holder = context.Process(target=_hold, args=(tmp_path, inside))
        holder.start()
        try:
            assert inside.wait(PATIENCE)
            with pytest.raises(BlockingIOError):
                sole_user(tmp_path).__enter__()
        finally:
            holder.kill()
            holder.join()
        assert holder.exitcode == -signal.SIGKILL
        with sole_user(tmp_path):
            pass


def _hold(folder, inside):
    with sole_user(folder), suppress(KeyboardInterrupt):
        inside.set()
        signal.pause()
