"""A real JupyterLab with copies of the real notebooks, and a headless Chromium that works in it.

Install Chromium, or name one in $CHROMIUM.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_BROWSER = "no Chromium is installed; $CHROMIUM may name one"
TOKEN = "only-here"
START, PATIENCE = 120, 60  # seconds for a server to start, and for an answer, beside another program
SETTINGS = {
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false", "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
}


def find_browser() -> str | None:
    """The path of a Chromium."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


class Lab:
    """A running JupyterLab.

    Attributes:
        folder: its files; kernels work in it.
        url: its address.
    """

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url

    def address(self, notebook: str) -> str:
        """Of one notebook, alone on the page."""
        return f"{self.url}/doc/tree/{notebook}?token={TOKEN}"


@contextmanager
def start_lab(home: Path) -> Iterator[Lab]:
    """JupyterLab on copies of the notebooks, with settings and files of its own in an empty folder."""
    folder = home / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "RUNTIME", "DATA")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with open(home / "log.txt", "wb") as log:
        server = subprocess.Popen(command, env=os.environ | places, cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for(f"{url}/api/status?token={TOKEN}", server, home / "log.txt")
            yield Lab(folder, url)
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


class Watched:
    """A page, what went wrong in it, and which other computers it asked for.

    Attributes:
        page: of playwright.
        errors: messages of the console and uncaught exceptions.
        outside: addresses outside of this computer; none was let through.
    """

    def __init__(self, page):
        self.page, self.errors, self.outside = page, [], []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route(lambda url: not url.startswith(("http://127.0.0.1", "data:", "blob:", "file:")), self._refuse)
        page.set_default_timeout(1000 * PATIENCE)

    def _refuse(self, route) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def run(self, count: int | None = None) -> None:
        """Run the cells of the open notebook, all or the first `count` code cells, and wait until they are done."""
        page = self.page
        page.wait_for_function(
            "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        page.evaluate(
            """async (count) => {
                const panel = window.jupyterapp.shell.currentWidget, notebook = panel.content;
                const code = [...notebook.widgets.keys()].filter((i) => notebook.widgets[i].model.type === "code");
                for (const index of code.slice(0, count ?? code.length)) {
                    notebook.activeCellIndex = index;
                    notebook.deselectAll();
                    await window.jupyterapp.commands.execute("notebook:run-cell");
                }
            }""",
            count,
        )
        failed = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']")
        assert failed.count() == 0, failed.first.inner_text()

    def shoot(self, name: str, part=None) -> Path:
        """Keep a screenshot of the page, or of a part of it, for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        (part or self.page).screenshot(path=path)
        return path
