"""Everything live: a picture that can be pointed at, the widgets of the lessons, and the explorer.

Logic stands in pure functions (`selecting`, `paint`, `state`); the front end is one small module, canvas.js, and plain
ipywidgets. Nothing here needs a network.
"""

import lazy_loader

try:
    import anywidget  # noqa: F401
except ImportError as error:
    raise ImportError(
        "diffseg.widgets needs the package anywidget, which is not installed. Install it with "
        "`pip install anywidget`, then start the kernel anew."
    ) from error

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["lessons"],
    submod_attrs={
        "canvas": ["Canvas", "guard"],
        "exploring": ["explorer"],
        "page": ["export"],
        "paint": ["encode", "heat", "tint"],
        "lessons.aggregating": ["weigh_resolutions"],
        "lessons.clustering": ["clustering_knobs"],
        "lessons.divergence": ["distributions"],
        "lessons.heads": ["compare_heads"],
        "lessons.hooking": ["look_from_pixel"],
        "lessons.improving": ["after_the_paper"],
        "lessons.limiting": ["small_things"],
        "lessons.masks": ["cursor_line"],
        "lessons.merging": ["merging_steps"],
        "lessons.naming": ["typed_words"],
        "lessons.painting": ["painted_caption"],
        "lessons.scoring": ["matching_toy"],
        "lessons.segmenting": ["click_pixels", "hover_segments"],
        "lessons.tuning": ["hyperparameters"],
    },
)
