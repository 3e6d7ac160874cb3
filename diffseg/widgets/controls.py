"""The explorer's buttons and sliders, plain ipywidgets, laid out; what they do stands in `explorer`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import ipywidgets as w

from diffseg.widgets.state import Settings, read_words

_TOOLS = (("Segments", "segments"), ("Attention", "attention"), ("Object", "object"), ("Compare", "compare"))
_STYLE = {"description_width": "92px"}
_FULL = "auto"  # as wide as the column

CSS = """<style>
.diffseg-explorer { max-width: 1080px; }
.diffseg-explorer .widget-label, .diffseg-explorer .diffseg-title { font-size: 13px; }
.diffseg-explorer .diffseg-title { font-weight: 600; margin: 10px 0 2px; line-height: 20px; }
.diffseg-explorer .diffseg-said { font-size: 14px; line-height: 20px; min-height: 20px; }
.diffseg-explorer .diffseg-legend { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 13px; line-height: 18px; }
.diffseg-explorer .diffseg-chip i {
  display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin-right: 6px; vertical-align: -1px;
}
.diffseg-explorer pre.diffseg-code {
  margin: 4px 0; padding: 10px 12px; border-radius: 6px; background: var(--jp-layout-color2, #f3f4f6);
  color: var(--jp-content-font-color1, #202124); font: 12.5px/18px var(--jp-code-font-family, monospace);
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.diffseg-explorer .diffseg-small-title { font-size: 12px; line-height: 16px; text-align: center; }
</style>"""


def _slider(kind: type, label: str, hint: str, **options) -> w.Widget:
    return kind(description=label, tooltip=hint, style=_STYLE, layout=w.Layout(width=_FULL), **options)


def _threshold_slider(label: str, hint: str, value: float) -> w.FloatLogSlider:
    """From a hundredth of a value to its twentyfold; the value is one of its steps, so that nothing rounds it."""
    middle, step = math.log10(value), 0.02
    span = {"base": 10, "min": middle - 100 * step, "max": middle + 65 * step, "step": step}
    return _slider(w.FloatLogSlider, label, hint, value=value, readout_format=".3g", **span)


def title(text: str) -> w.HTML:
    return w.HTML(f'<div class="diffseg-title">{text}</div>')


@dataclass(frozen=True)
class Controls:
    """Every control of the explorer; `layout` puts them in their places."""

    tool: w.ToggleButtons
    undo: w.Button
    redo: w.Button
    everything: w.Button
    seed: w.BoundedIntText
    draw: w.Button
    upload: w.FileUpload
    folder: w.Text
    files: w.Dropdown
    threshold: w.FloatLogSlider
    points: w.IntSlider
    iterations: w.IntSlider
    weights: w.VBox
    paper_weights: w.Button
    words: w.Text
    reach: w.FloatLogSlider
    kind: w.ToggleButtons
    clear: w.Button
    keep: w.Button
    target: w.Text
    save: w.Button
    page: w.Button
    code: w.ToggleButton
    shown_code: w.HTML
    said: w.HTML
    legend: w.HTML


def make_controls(settings: Settings, reach: float, largest_points: int) -> Controls:
    """The controls, set to some settings."""

    def button(text: str, hint: str, icon: str = "") -> w.Button:
        return w.Button(description=text, tooltip=hint, icon=icon, layout=w.Layout(width="auto"))

    return Controls(
        tool=w.ToggleButtons(options=_TOOLS, style={"button_width": "auto"}),
        undo=button("Undo", "Back to what was shown before", "undo"),
        redo=button("Redo", "Forward again", "repeat"),
        everything=button("Segment everything", "All segments at once, as at the start", "th-large"),
        seed=w.BoundedIntText(
            description="scene", value=1_000_005, max=1_999_999, style={"description_width": "44px"},
            tooltip="A drawn scene for each number", layout=w.Layout(width="160px"), continuous_update=False,
        ),
        draw=button("Draw", "Draw the scene of this number"),
        upload=w.FileUpload(accept="image/*", description="Upload a picture", layout=w.Layout(width="auto")),
        folder=w.Text(
            description="folder", placeholder="a folder of pictures", continuous_update=False,
            style={"description_width": "44px"}, layout=w.Layout(width="250px"),
        ),
        files=w.Dropdown(options=[], layout=w.Layout(width="190px", display="none")),
        threshold=_threshold_slider("threshold τ", "Maps nearer than this are merged, nats", settings.threshold),
        points=_slider(
            w.IntSlider, "points M", "Anchors along one side", min=2, max=largest_points, value=settings.points
        ),
        iterations=_slider(w.IntSlider, "passes N", "Passes of merging", min=1, max=8, value=settings.iterations),
        weights=w.VBox([]),
        paper_weights=button("As in the paper", "Weights in proportion to the side of each layer"),
        words=w.Text(
            description="words", placeholder="dog, grass, sky, or: caption", continuous_update=False, style=_STYLE,
            layout=w.Layout(width=_FULL),
        ),
        reach=_threshold_slider("reach", "How far the object's maps may be from the clicked ones, nats", reach),
        kind=w.ToggleButtons(
            options=[("+ on the object", "positive"), ("− not on it", "negative")], style={"button_width": "auto"}
        ),
        clear=button("Clear the clicks", "Take all clicks back", "times"),
        keep=button("Keep as A", "Compare what follows with the settings as they are now", "thumb-tack"),
        target=w.Text(
            description="save into", value="explored", style={"description_width": "64px"},
            layout=w.Layout(width="220px"),
        ),
        save=button("Save", "Label PNG, overlay and JSON, and COCO's run lengths", "save"),
        page=button("Save as a page", "One HTML file that works without Python", "file"),
        code=w.ToggleButton(description="Show me the code", icon="code", layout=w.Layout(width="auto")),
        shown_code=w.HTML(layout=w.Layout(display="none")),
        said=w.HTML(),
        legend=w.HTML(),
    )  # fmt: skip


def weight_sliders(weights: Mapping[int, float]) -> list[w.FloatSlider]:
    """A slider for R of each side."""
    return [
        _slider(
            w.FloatSlider, f"R {side} × {side}", "Weight of all layers of this side", min=0, max=1, step=0.01,
            value=round(weight, 2), readout_format=".2f",
        )
        for side, weight in weights.items()
    ]  # fmt: skip


def read_settings(controls: Controls, settings: Settings, weights_moved: bool = False) -> Settings:
    """The settings as the controls stand. The weights are the old ones unless their sliders were moved."""
    sides = [int(slider.description.split()[1]) for slider in controls.weights.children]
    moved = tuple((side, round(slider.value, 4)) for side, slider in zip(sides, controls.weights.children))
    return Settings(
        threshold=float(f"{controls.threshold.value:.3g}"),
        points=controls.points.value,
        iterations=controls.iterations.value,
        weights=moved if weights_moved else settings.weights,
        words=read_words(controls.words.value),
    )


def layout(controls: Controls, pictures: w.Widget, small: w.Widget) -> w.VBox:
    """Everything in its place: what is chosen above, the picture to the left, settings to the right."""
    wrap = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 8px"}
    c = controls
    sources = w.HBox([c.seed, c.draw, c.upload, c.folder, c.files], layout=w.Layout(**wrap))
    tools = w.HBox([c.tool, c.undo, c.redo, c.everything], layout=w.Layout(**wrap))
    left = w.VBox(
        [pictures, small, c.said, c.legend], layout=w.Layout(width="532px", max_width="100%", flex="0 1 auto")
    )
    selecting = w.VBox([title("Object"), c.kind, c.reach, w.HBox([c.clear])])
    comparing = w.VBox([title("Compare"), w.HBox([c.keep])])
    paper = w.HBox([c.paper_weights], layout=w.Layout(padding="2px 0 0 98px"))
    right = w.VBox(
        [
            selecting, comparing,
            title("Settings"), c.threshold, c.points, c.iterations,
            title("Weights of the resolutions"), c.weights, paper,
            title("Words"), c.words,
        ],
        layout=w.Layout(flex="1 1 320px", min_width="300px", max_width="500px"),
    )  # fmt: skip
    body = w.HBox([left, right], layout=w.Layout(flex_flow="row wrap", grid_gap="8px 24px", align_items="flex-start"))
    saving = w.HBox([c.target, c.save, c.page, c.code], layout=w.Layout(margin="8px 0 0", **wrap))

    def follow_tool(change: dict) -> None:
        selecting.layout.display = "flex" if change["new"] == "object" else "none"
        comparing.layout.display = "flex" if change["new"] == "compare" else "none"

    c.tool.observe(follow_tool, "value")
    follow_tool({"new": c.tool.value})
    box = w.VBox([w.HTML(CSS), sources, tools, body, saving, c.shown_code])
    box.add_class("diffseg-explorer")
    return box
