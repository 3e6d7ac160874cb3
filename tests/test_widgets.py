"""What is live, without a browser: traits and events, selection against the formula, states, saved files, the code."""

import json
import math
import subprocess
import sys
import zlib
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from helpers_models import tiny_components
from PIL import Image

from diffseg import DiffSegPipeline, widgets
from diffseg.aggregation import aggregate
from diffseg.widgets import page
from diffseg.widgets.canvas import guard, pack_labels
from diffseg.widgets.controls import read_settings
from diffseg.widgets.engine import Kept, differing
from diffseg.widgets.paint import borders
from diffseg.widgets.selecting import distances_from, position, prepare, select
from diffseg.widgets.state import History, Mark, Settings, Source, State, code, file_source, pictures_in, read_words


def opened(content):
    return np.asarray(Image.open(BytesIO(content)))


def send(canvas, event, /, *buffers, **content):
    """An event as the browser sends it; what the canvas answers is lost, since no browser listens."""
    canvas._receive(canvas, {"type": event, "view": "one", **content}, [memoryview(each) for each in buffers])


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_arrive_pixel_by_pixel():
    for mode in ("RGB", "RGBA", "L"):
        values = np.random.default_rng(0).integers(1, 256, (5, 7, len(mode)), dtype=np.uint8).squeeze()
        found = np.asarray(Image.open(BytesIO(widgets.encode(values))).convert(mode))
        assert np.array_equal(found, values)


def test_heat_is_viridis():
    values = np.linspace(0, 2, 200).reshape(10, 20)
    expected = 255 * matplotlib.colormaps["viridis"](values / 2)[..., :3]
    found = widgets.heat(values, opacity=0.5)
    assert np.abs(found[..., :3] - expected).max() < 8 and set(found[..., 3].ravel()) == {128}
    cut = widgets.heat(values, top=1.0, opacity=0.5)
    assert (cut[values >= 1] == found[-1, -1]).all() and (cut[values < 0.9] != found[-1, -1]).any(axis=-1).all()
    assert len(np.unique(widgets.heat(np.zeros((2, 2))).reshape(-1, 4), axis=0)) == 1
    with pytest.raises(ValueError, match="NaN"):
        widgets.heat(np.array([[math.nan]]))


def test_tint_has_one_colour_a_segment_and_white_lines_between():
    labels = np.zeros((8, 9), int)
    labels[2:6, 3:7] = 1
    labels[7, 8] = -1
    palette = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    found = widgets.tint(labels, palette, opacity=0.5)
    edge = borders(labels)
    assert np.array_equal(found[edge], np.full((edge.sum(), 4), 255))
    assert np.array_equal(np.unique(found[~edge & (labels == 0)], axis=0), [[255, 0, 0, 128]])
    assert np.array_equal(np.unique(found[~edge & (labels == 1)], axis=0), [[0, 0, 255, 128]])
    assert (widgets.tint(labels, palette, outlines=False)[7, 8] == 0).all()
    with pytest.raises(ValueError, match="colours has 1"):
        widgets.tint(labels, palette[:1])


def test_borders_are_where_a_neighbour_differs():
    labels = np.random.default_rng(0).integers(0, 3, (6, 7))
    padded = np.pad(labels, 1, mode="edge")
    neighbours = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    assert np.array_equal(borders(labels), np.any([each != labels for each in neighbours], axis=0))


# ---- the canvas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("highest", "kind", "nothing"), [(4, "<u1", 255), (254, "<u1", 255), (255, "<u2", 65535)])
def test_labels_are_packed_for_the_browser(highest, kind, nothing):
    labels = np.random.default_rng(0).integers(0, highest + 1, (30, 40))
    labels[0, :2] = highest, -1
    canvas = widgets.Canvas()
    canvas.show_labels(labels, ["sky"])
    found = np.frombuffer(zlib.decompress(canvas.labels), kind).reshape(canvas.label_size)
    assert canvas.names == ["sky"] and found[0, 1] == nothing
    found, expected = np.delete(found, 1), np.delete(labels, 1)
    assert np.array_equal(found, expected)
    canvas.show_labels(None)
    assert (canvas.labels, canvas.label_size, canvas.names) == (b"", (0, 0), [])
    with pytest.raises(ValueError, match="65534"):
        pack_labels(labels + 65535)


def test_every_trait_reaches_the_browser():
    state = widgets.Canvas(alt="a dog", marks=[{"x": 0.1, "y": 0.2, "kind": "query"}]).get_state()
    wanted = "picture overlay labels label_size names marks cursor width smooth alt message level listens"
    assert set(wanted.split()) < set(state) and "_esm" in state and "_css" in state
    assert "http" not in state["_esm"].replace("http://www.w3.org", "") and "@import" not in state["_css"]


def test_without_anywidget_the_remedy_is_named():
    script = "import sys; sys.modules['anywidget'] = None; from diffseg import widgets; widgets.Canvas"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode and "ImportError: diffseg.widgets needs the package anywidget" in done.stderr
    assert "pip install anywidget" in done.stderr


def test_events_go_to_who_asked_for_them():
    canvas, heard = widgets.Canvas(), []
    assert canvas.listens == []
    canvas.on_click(lambda *given: heard.append(("click", *given)))
    canvas.on_hover(lambda *given: heard.append(("hover", *given)))
    canvas.on_drag(lambda *given: heard.append(("drag", *given)))
    canvas.on_file(lambda *given: heard.append(("file", *given)))
    assert canvas.listens == ["click", "drag", "file", "hover"]
    send(canvas, "click", x=0.1, y=0.2, kind="negative")
    send(canvas, "hover", x=0.3, y=0.4)
    send(canvas, "drag", x=0.5, y=0.6, phase="end")
    send(canvas, "file", b"abc", name="a.png")
    assert heard == [
        ("click", 0.1, 0.2, "negative"), ("hover", 0.3, 0.4), ("drag", 0.5, 0.6, "end"), ("file", "a.png", b"abc"),
    ]  # fmt: skip


def test_delete_takes_the_last_mark_unless_somebody_asked_for_it():
    canvas = widgets.Canvas(marks=[{"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}])
    send(canvas, "remove")
    assert canvas.marks == [{"x": 0.0, "y": 0.0}]
    canvas.on_remove(lambda: canvas.show_message("no"))
    send(canvas, "remove")
    assert len(canvas.marks) == 1 and canvas.message == "no"


def test_errors_are_shown_on_the_picture_and_the_next_success_takes_them_away():
    canvas = widgets.Canvas()
    canvas.on_click(lambda x, y, kind: 1 / x)
    send(canvas, "click", x=0, y=0, kind="positive")
    assert canvas.level == "error" and canvas.message == "ZeroDivisionError: division by zero"
    send(canvas, "click", x=1, y=0, kind="positive")
    assert canvas.message == ""


def test_an_error_of_a_callback_within_a_callback_stays():
    canvas, slider = widgets.Canvas(), ipywidgets.IntSlider()
    slider.observe(guard(canvas)(lambda change: [][change["new"]]), "value")
    canvas.on_click(lambda x, y, kind: setattr(slider, "value", 5))
    send(canvas, "click", x=0, y=0, kind="positive")
    assert "IndexError" in canvas.message


def test_an_output_shows_the_traceback():
    output = ipywidgets.Output()
    divide = guard(output)(lambda x: 1 / x)
    assert divide(0) is None and "ZeroDivisionError" in output.outputs[0]["text"]
    assert divide(2) == 0.5 and output.outputs == ()


# ---- selecting ------------------------------------------------------------------------------------------------------


def random_attention(rows, columns, seed=0):
    logits = 3 * torch.randn(rows * columns, rows * columns, generator=torch.Generator().manual_seed(seed))
    logits += 6 * (torch.arange(rows * columns)[:, None] // 9 == torch.arange(rows * columns) // 9)
    return logits.softmax(-1).view(rows, columns, rows, columns)


def divergence(p, q):
    """D, number by number."""
    return sum(0.5 * a * math.log(a / b) + 0.5 * b * math.log(b / a) for a, b in zip(p.tolist(), q.tolist()))


def test_distances_are_those_of_the_formula():
    attention = random_attention(5, 6)
    maps = attention.view(30, 30).double()
    places = [(0.05, 0.05), (0.99, 0.5)]
    expected = [[divergence(maps[own], each) for each in maps] for own in (0, 2 * 6 + 5)]
    found = distances_from(prepare(attention), places)
    np.testing.assert_allclose(found.flatten(1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negative", [[], [(0.5, 0.9)], [(0.5, 0.9), (0.95, 0.1)]], ids=len)
def test_an_object_is_what_is_near_a_positive_and_farther_from_every_negative_click(negative):
    attention, positive, reach = random_attention(5, 6), [(0.1, 0.1), (0.4, 0.3)], 3.0
    maps = attention.view(30, 30).double()

    def nearest(places, each):
        own = [position(place, (5, 6)) for place in places]
        return min((divergence(maps[row * 6 + column], each) for row, column in own), default=math.inf)

    expected = [nearest(positive, each) < min(reach, nearest(negative, each)) for each in maps]
    found = select(attention, positive, negative, reach)
    assert found.flatten().tolist() == expected and 0 < sum(expected) < 30
    larger = select(attention, positive, negative, reach, size=(50, 60))
    centres = larger.view(5, 10, 6, 10)[:, 4:6, :, 4:6].float().mean((1, 3))
    assert (centres.round().bool() == found).float().mean() > 0.9 and larger.shape == (50, 60)
    assert select(attention, positive, negative, reach, size=40).shape == (40, 40)


def test_positions_and_places():
    assert position((0, 0), (4, 8)) == (0, 0) and position((1, 1), (4, 8)) == (3, 7)
    assert position((0.49, 0.51), (4, 8)) == (2, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"positive": []}, "positive"), ({"positive": [(2, 0)]}, "outside"), ({"positive": [(0, 0)], "reach": 0}, "0")],
)
def test_selecting_says_what_is_wrong(given, message):
    with pytest.raises(ValueError, match=message):
        select(random_attention(2, 3), **given)


def test_differing_pixels_do_not_depend_on_the_numbers_of_the_segments():
    before = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]])
    after = torch.tensor([[3, 3, 0, 0], [3, 3, 0, 1], [2, 2, 2, 2]])
    pixels, matched = differing(before, after)
    assert np.argwhere(pixels).tolist() == [[1, 3]] and matched.tolist() == [1, -1, 2, 0]
    assert not differing(before, before)[0].any()


# ---- states ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def start():
    return State(Source("a.png", Image.new("RGB", (4, 4)), "'a.png'"), Settings(threshold=0.5), reach=0.5)


def test_undo_and_redo_walk_the_states(start):
    other, third = replace(start, tool="object"), replace(start, tool="compare")
    history = History(start).push(other).push(third)
    assert history.undo().now == other and history.undo().undo().now == start
    assert history.undo().undo().undo().now == start  # nothing before it
    assert history.undo().redo() == replace(history, what="") and history.redo() == history
    assert history.undo().push(start).future == ()
    assert history.push(third) is history


def test_turning_one_knob_is_one_step(start):
    history = History(start)
    for tau in (0.4, 0.3, 0.2):
        history = history.push(replace(start, settings=Settings(threshold=tau)), "threshold")
    assert history.now.settings.threshold == 0.2 and history.undo().now == start
    moved = replace(history.now, reach=1.0)
    assert history.push(moved, "reach").undo().now == history.now


def test_words_are_read_as_they_are_typed():
    assert read_words(" dog,grass ,, dog, tall tree") == ("dog", "grass", "tall tree")
    assert read_words("caption") == "caption" and read_words(" ") == () and read_words("caption, dog")[0] == "caption"


def test_the_one_not_used_for_longest_is_forgotten():
    kept, made = Kept(2), []
    for key in "abacab":
        assert kept.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert made == ["a", "b", "c", "b"]


def test_files_that_are_no_picture_are_named():
    with pytest.raises(ValueError, match="notes.png could not be read as a picture"):
        file_source("notes.png", b"shopping list")
    buffer = BytesIO()
    Image.new("L", (3, 2), 7).save(buffer, "PNG")
    source = file_source("grey.png", buffer.getvalue())
    assert source.image.mode == "RGB" and source.image.size == (3, 2) and source.code == "'grey.png'"
    with pytest.raises(ValueError, match="broken.png"):
        file_source("broken.png", buffer.getvalue()[:40])


def test_folders_of_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match="no picture"):
        pictures_in(tmp_path)
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pictures_in(tmp_path / "nowhere")


def test_the_code_says_what_is_not_the_default(start):
    assert code(start) == (
        "from diffseg import DiffSegPipeline\n\npipe = DiffSegPipeline.from_pretrained('pocket')\n"
        "image = 'a.png'\nout = pipe(image, threshold=0.5)"
    )
    settings = Settings(0.5, points=8, iterations=2, weights=((64, 0.5), (8, 0.5)), words=("dog",))
    text = code(replace(start, settings=settings, crop=False), model=None)
    assert text == (
        "image = 'a.png'\nout = pipe(image, threshold=0.5, points=8, iterations=2, weights={64: 0.5, 8: 0.5}, "
        "words=['dog'], crop=False)"
    )


# ---- the explorer, on a small random model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    pipe = DiffSegPipeline(**tiny_components(tmp_path_factory.mktemp("tokenizer")), threshold=0.001)
    pipe.points = 4
    return pipe


@pytest.fixture(scope="module")
def picture():
    blocks = np.random.default_rng(0).integers(0, 256, (6, 8, 3))
    return Image.fromarray(np.kron(blocks, np.ones((20, 20, 1))).astype(np.uint8))


@pytest.fixture
def explorer(pipe, picture):
    return widgets.explorer(pipe, picture)


def run(explorer, picture, pipe):
    """What the shown code gives."""
    names = {"pipe": pipe, "image": picture}
    exec(explorer.code(), names)
    return names


def shown_labels(canvas):
    return np.frombuffer(zlib.decompress(canvas.labels), np.uint8).reshape(canvas.label_size)


def test_everything_moves_and_the_code_gives_the_same(explorer, pipe, picture):
    c = explorer.controls
    first = shown_labels(explorer.canvas)
    assert np.array_equal(first, run(explorer, picture, pipe)["out"].labels)
    c.threshold.value = 0.0012
    c.points.value, c.iterations.value = 3, 1
    c.weights.children[0].value = 0.05
    labels = shown_labels(explorer.canvas)
    assert not np.array_equal(first, labels)
    assert explorer.state.settings.weights[0][1] == 0.05
    assert np.array_equal(labels, run(explorer, picture, pipe)["out"].labels)
    c.paper_weights.click()
    assert explorer.state.settings.weights is None and c.weights.children[0].value > 0.05
    for _ in range(5):
        c.undo.click()
    assert np.array_equal(first, shown_labels(explorer.canvas)) and c.undo.disabled and not c.redo.disabled
    assert c.points.value == 4 and c.iterations.value == 3
    c.redo.click()
    assert c.threshold.value == 0.0012


def test_words_name_the_segments(explorer, pipe, picture):
    explorer.controls.words.value = "b , a"
    out = run(explorer, picture, pipe)["out"]
    assert np.array_equal(shown_labels(explorer.canvas), out.labels)
    assert [name.split(" · ")[0] for name in explorer.canvas.names] == list(out.words)
    assert explorer.controls.words.value == "b, a"


def test_a_click_shows_what_the_place_attends_to(explorer, pipe, picture):
    send(explorer.canvas, "click", x=0.3, y=0.7, kind="positive")
    state = explorer.state
    assert state.tool == explorer.controls.tool.value == "attention" and state.query == (0.3, 0.7)
    own = explorer._engine.picture(state)
    rows, columns = own.sums.grid
    row, column = int(0.7 * rows), int(0.3 * columns)
    found = pipe.attend(picture)[row, column]
    assert torch.equal(own.look(state.settings, (0.3, 0.7)), found)
    layers = pipe.record(picture)
    by_side = own.look_by_side((0.3, 0.7))
    assert list(by_side) == sorted({layer.grid[0] for layer in layers}, reverse=True)
    for side, values in by_side.items():
        alone = aggregate([layer.probs for layer in layers], rows, {side: 1})[row, column]
        np.testing.assert_allclose(values, alone, rtol=1e-4, atol=1e-8)
    assert len(explorer._small.children) == len(by_side)
    before = explorer.canvas.overlay
    send(explorer.canvas, "click", x=0.9, y=0.1, kind="positive")
    assert explorer.canvas.overlay != before
    explorer.controls.everything.click()
    assert explorer.state.tool == "segments" and not explorer._small.children


def test_clicks_select_an_object(explorer, pipe, picture):
    c = explorer.controls
    c.tool.value = "object"
    assert explorer.canvas.overlay == b""
    c.reach.value = 0.01
    send(explorer.canvas, "click", x=0.3, y=0.7, kind="positive")
    send(explorer.canvas, "click", x=0.9, y=0.1, kind="negative")
    assert explorer.state.marks == (Mark(0.3, 0.7), Mark(0.9, 0.1, "negative"))
    mask = run(explorer, picture, pipe)["mask"]
    assert np.array_equal(opened(explorer.canvas.overlay)[..., 3] > 0, borders(mask.numpy().astype(int)) | mask.numpy())
    send(explorer.canvas, "remove")
    assert len(explorer.state.marks) == len(explorer.canvas.marks) == 1
    c.kind.value = "negative"  # for fingers, which have no shift key
    send(explorer.canvas, "click", x=0.9, y=0.1, kind="positive")
    assert explorer.state.marks[1].kind == "negative"
    c.clear.click()
    assert explorer.state.marks == ()


def test_two_settings_are_compared(explorer, pipe, picture):
    c = explorer.controls
    c.keep.click()
    c.threshold.value = 0.002
    assert explorer.state.kept.threshold == 0.001 and explorer._other.layout.display == ""
    names = run(explorer, picture, pipe)
    pixels, _ = differing(names["before"].labels, names["out"].labels)
    assert f"{pixels.mean():.1%} of the pixels" in c.said.value and pixels.any()
    c.tool.value = "segments"
    assert explorer._other.layout.display == "none"


def test_what_went_wrong_is_said_and_all_goes_on(explorer):
    before = explorer.state
    send(explorer.canvas, "file", b"shopping list", name="list.png")
    assert "list.png could not be read" in explorer.canvas.message and explorer.canvas.level == "error"
    assert explorer.state is before
    explorer.controls.points.value = 5
    assert explorer.canvas.message == "" and explorer.state.settings.points == 5
    explorer.controls.words.value = "word " * 100
    assert "Pass fewer or shorter words" in explorer.canvas.message and explorer.state.settings.words == ()
    for slider in explorer.controls.weights.children:
        slider.value = 0
    assert "not all zero" in explorer.canvas.message


def test_pictures_come_from_files_folders_and_numbers(explorer, tmp_path):
    Image.new("RGB", (30, 40), "red").save(tmp_path / "red.png")
    Image.new("RGB", (30, 40), "blue").save(tmp_path / "blue.png")
    c = explorer.controls
    send(explorer.canvas, "file", (tmp_path / "red.png").read_bytes(), name="red.png")
    assert explorer.state.source.name == "red.png" and "image = 'red.png'" in explorer.code()
    c.folder.value = str(tmp_path)
    assert explorer.state.source.name == "blue.png" and len(c.files.options) == 2
    c.files.value = tmp_path / "red.png"
    assert explorer.state.source.name == "red.png" and repr((tmp_path / "red.png").as_posix()) in explorer.code()
    c.seed.value = 1_000_007
    assert "pocket.scene(1000007)" in explorer.code()
    file = {"name": "up.png", "type": "image/png", "size": 9, "last_modified": datetime.now(UTC)}
    c.upload.value = [file | {"content": (tmp_path / "red.png").read_bytes()}]
    assert explorer.state.source.name == "up.png" and c.upload.value == ()
    c.undo.click()
    assert explorer.state.source.name == "scene 1000007"


def test_what_is_saved_is_what_is_shown(explorer, pipe, picture, tmp_path):
    c = explorer.controls
    c.tool.value = "object"
    send(explorer.canvas, "click", x=0.3, y=0.7, kind="positive")
    c.target.value = str(tmp_path / "new")
    c.save.click()
    assert explorer.canvas.message.startswith("Saved ")
    names = {path.name for path in (tmp_path / "new").iterdir()}
    stem = "your picture"
    assert names == {f"{stem}{end}" for end in (".labels.png", ".overlay.png", ".json", ".coco.json", ".object.png")}
    out = run(explorer, picture, pipe)["out"]
    saved = np.asarray(Image.open(tmp_path / "new" / f"{stem}.labels.png"))
    assert np.array_equal(saved.astype(int) - 1, out.at_original())
    mask = np.asarray(Image.open(tmp_path / "new" / f"{stem}.object.png"))
    assert np.array_equal(mask, run(explorer, picture, pipe)["mask"])
    about = json.loads((tmp_path / "new" / f"{stem}.json").read_text(encoding="utf-8"))
    assert about["settings"]["threshold"] == 0.001
    coco = json.loads((tmp_path / "new" / f"{stem}.coco.json").read_text(encoding="utf-8"))
    assert [each["area"] for each in coco] == [int((saved == each["id"]).sum()) for each in coco]


def test_a_whole_picture_in_its_own_shape(pipe, picture):
    explorer = widgets.explorer(pipe, picture, crop=False)
    assert shown_labels(explorer.canvas).shape[0] < shown_labels(explorer.canvas).shape[1]
    send(explorer.canvas, "click", x=0.9, y=0.2, kind="positive")
    assert np.array_equal(
        explorer._engine.picture(explorer.state).segment(explorer.state.settings).labels,
        run(explorer, picture, pipe)["out"].labels,
    )


def test_a_change_is_small(explorer):
    """At most 300 kB go to the browser at a change."""
    sent = sum(len(getattr(explorer.canvas, name)) for name in ("picture", "overlay", "labels"))
    assert 0 < sent < 300_000


def test_settings_are_read_from_the_controls(explorer):
    assert read_settings(explorer.controls, explorer.state.settings) == explorer.state.settings


# ---- the page -------------------------------------------------------------------------------------------------------


def unpacked(page):
    """The data of a page."""
    text = page.read_text(encoding="utf-8").split('<script type="application/json" id="data">')[1]
    return json.loads(text.split("</script>")[0])


def test_a_page_holds_segments_for_each_threshold_and_attention_in_bytes(pipe, picture, tmp_path):
    out = pipe(picture, points=4)
    path = widgets.export(out, tmp_path / "page.html", thresholds=[0.002, 0.0005], title="<Dogs> & more")
    html = path.read_text(encoding="utf-8")
    assert "&lt;Dogs&gt; &amp; more" in html and "<!-- " not in html.split("<style>")[1]
    assert not [each for each in ("http://", "https://", "//cdn", "@import") if each in html]
    data = unpacked(path)
    assert [view["threshold"] for view in data["views"]] == [0.0005, 0.002] and data["start"] == 0
    for view in data["views"]:
        labels = np.frombuffer(zlib.decompress(b64decode(view["labels"])), np.uint8).reshape(view["size"])
        assert np.array_equal(labels, pipe.segment(out.attention, 4, threshold=view["threshold"]).labels)
        assert len(view["names"]) == labels.max() + 1
    values = np.frombuffer(zlib.decompress(b64decode(data["attention"]["bytes"])), np.uint8)
    maps = values.reshape(data["attention"]["shape"]) / 255.0
    whole = out.attention.numpy()
    top = np.quantile(whole[3, 5], 0.995)
    np.testing.assert_allclose(maps[3, 5] ** 2, (whole[3, 5] / top).clip(0, 1), atol=1 / 255)


def test_thresholds_of_a_page_have_its_own_among_them():
    for own in (0.337, 1.0, 0.0421):
        found = page.default_thresholds(own)
        assert own in found and len(found) > 20 and found == sorted(found)
        assert min(found) <= own / 9 and max(found) >= 3 * own


def test_a_page_must_have_a_picture_and_be_small(pipe, picture, tmp_path, monkeypatch):
    out = pipe(picture, points=4)
    monkeypatch.setattr(page, "LARGEST", 1000)
    with pytest.raises(ValueError, match="fewer thresholds"):
        widgets.export(out, tmp_path / "page.html", thresholds=[0.001])
    out.image = None
    with pytest.raises(ValueError, match="out.image is None"):
        widgets.export(out, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
