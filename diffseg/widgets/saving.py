"""What the explorer writes: labels, overlay, what is known of the segments, run lengths, the clicked object."""

from pathlib import Path

from PIL import Image

from diffseg.export import as_json, as_png
from diffseg.files import write_whole
from diffseg.widgets.engine import Picture
from diffseg.widgets.state import State


def save_files(picture: Picture, state: State, folder: Path) -> list[Path]:
    """The files of `DiffSegOutput.save`, NAME.coco.json with the annotations of `to_coco`, and NAME.object.png.

    Args:
        folder: made if it is not there.

    Returns:
        The files. The mask of the object is there if one is selected: white on black, in the pixels of the picture as
        it was segmented.
    """
    out = picture.segment(state.settings)
    files = out.save(folder)
    stem = files[0].name.removesuffix(".labels.png")
    more = {f"{stem}.coco.json": as_json(out.to_coco())}
    if state.places("positive"):
        more[f"{stem}.object.png"] = as_png(Image.fromarray(picture.select(state).numpy()))
    for name, content in more.items():
        write_whole(files[0].parent / name, content)
    return [*files, *(files[0].parent / name for name in more)]
