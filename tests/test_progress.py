"""Bars are drawn for people, and not where TQDM_DISABLE says so: neither in a terminal nor in a notebook."""

import pytest
import tqdm.notebook
import tqdm.std

from diffseg import progress


@pytest.mark.parametrize("kind", [tqdm.std.tqdm, tqdm.notebook.tqdm])
@pytest.mark.parametrize(("setting", "silent"), [("1", True), ("0", False), ("", False)])
def test_variable_silences_both_kinds_of_bar(monkeypatch, kind, setting, silent):
    monkeypatch.setenv("TQDM_DISABLE", setting)
    monkeypatch.setattr(progress, "tqdm", kind)
    bar = progress.progress([1, 2, 3], "counting")
    assert bar.disable is silent
    assert list(bar) == [1, 2, 3]
