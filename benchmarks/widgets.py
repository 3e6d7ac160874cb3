"""How long a reader of the explorer waits, and how much is sent: measured in a browser.

    python -m benchmarks.widgets               # JupyterLab, headless Chromium, notebook 11; --repeat N

A time goes from the action in the page to the drawing that follows it: a hover to the segment that lights up, a change
to the new overlay, decoded. Bytes are those of the kernel's messages to the page. Median and 95th percentile of all
repetitions; the first of each kind counts as well.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from helpers_browser import Watched, find_browser, start_lab  # noqa: E402

LIMITS = {"hover": 30, "click: attention": 100, "click: object": 100, "threshold": 200, "weight": 500}  # milliseconds
TIMEOUT = 60_000  # milliseconds

#: In the page: the large canvas, and the time until a condition holds, looked at before each drawing.
SCRIPT = """
window.mainCanvas = () => document.querySelectorAll('.diffseg-explorer .diffseg-canvas[aria-label]')[1];
window.overlay = () => window.mainCanvas().querySelector('.diffseg-overlay').getAttribute('src');
window.until = (condition, act) => new Promise((resolve, reject) => {
    const start = performance.now();
    act();
    const look = () => {
        if (condition()) resolve(performance.now() - start);
        else if (performance.now() - start > TIMEOUT) reject(new Error('nothing has changed'));
        else requestAnimationFrame(look);
    };
    look();
});
window.point = (kind, x, y) => {
    const stage = window.mainCanvas().querySelector('.diffseg-stage'), box = stage.getBoundingClientRect();
    const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    stage.dispatchEvent(new PointerEvent(kind, { ...place, bubbles: true, cancelable: true }));
};
window.turn = (label, key) => {
    const handle = [...document.querySelectorAll('.diffseg-explorer .widget-slider')]
        .find((each) => each.innerText.includes(label)).querySelector('.noUi-handle');
    handle.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
};
""".replace("TIMEOUT", str(TIMEOUT))


class Session:
    """The explorer in a page; times of actions in it, and the bytes that each of them brought."""

    def __init__(self, watched: Watched):
        self.page, self.bytes = watched.page, 0
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))

    def _count(self, payload: str | bytes) -> None:
        self.bytes += len(payload)

    def press(self, name: str) -> None:
        self.page.locator(f".diffseg-explorer button:has-text('{name}')").first.click()
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_function("() => !document.querySelector('.diffseg-explorer .diffseg-busy')", timeout=TIMEOUT)
        self.page.wait_for_timeout(400)

    def time(self, condition: str, action: str) -> tuple[float, int]:
        """Milliseconds until a condition holds after an action, and the bytes that came until all was quiet."""
        before = self.bytes
        script = f"() => {{ const old = overlay(); return until(() => {condition}, () => {action}); }}"
        elapsed = self.page.evaluate(script)
        self.settle()
        return elapsed, self.bytes - before


def places(count: int) -> list[tuple[float, float]]:
    """Places in a picture, the same in every run."""
    return np.random.default_rng(0).uniform(0.05, 0.95, (count, 2)).round(3).tolist()


def measure(session: Session, repeat: int) -> dict[str, list[tuple[float, int]]]:
    """Every kind of change, some times each."""
    found: dict[str, list[tuple[float, int]]] = {"hover": []}
    for x, y in places(repeat):
        session.page.evaluate("() => point('pointerleave', 0, 0)")
        found["hover"].append(session.time("mainCanvas().dataset.lit !== '-1'", f"point('pointermove', {x}, {y})"))
    found["threshold"] = [session.time("overlay() !== old", "turn('threshold', 'ArrowLeft')") for _ in range(repeat)]
    found["weight"] = [session.time("overlay() !== old", "turn('R 32', 'ArrowRight')") for _ in range(repeat)]
    session.press("As in the paper")
    for tool, kind in (("Attention", "click: attention"), ("Object", "click: object")):
        session.press(tool)
        found[kind] = [session.time("overlay() !== old", f"point('click', {x}, {y})") for x, y in places(repeat)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, help="of each kind (default: 20)")
    options = parser.parse_args()
    browser_path = find_browser()
    if browser_path is None:
        parser.error("no Chromium is installed; $CHROMIUM may name one")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, start_lab(Path(home)) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        watched = Watched(browser.new_page(viewport={"width": 1100, "height": 1300}))
        session = Session(watched)
        watched.page.goto(lab.address("11_explore.ipynb"))
        watched.run(2)
        watched.page.wait_for_selector(".diffseg-explorer img.diffseg-overlay[src]")
        watched.page.evaluate(f"() => {{ {SCRIPT} }}")
        session.settle()
        found = measure(session, options.repeat)
        browser.close()
    table = pd.DataFrame(
        {
            kind: {
                "median ms": np.median([time for time, _ in runs]),
                "95% ms": np.quantile([time for time, _ in runs], 0.95),
                "wanted ms": LIMITS[kind],
                "largest kB": max(sent for _, sent in runs) / 1000,
            }
            for kind, runs in found.items()
        }
    ).T
    print(table.round(1).to_string())
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} in the last minute")


if __name__ == "__main__":
    main()
