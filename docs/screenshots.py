"""Pictures of a run in the real TensorBoard, for the README and these pages.

    python docs/screenshots.py lightning_logs docs/pictures

takes curves.png, images.png, reviews.png and precision_recall.png of all runs below lightning_logs. Needs `selenium`
(in the extra dev), and Chromium with its driver, as in Debian's packages chromium and chromium-driver. To show the
figures of a test too, run `python -m src test --ckpt_path best` first. The repository has curves.png and images.png;
reviews.png shows words of reviews, which are not ours to give away. While `serve` runs,

    python docs/screenshots.py http://127.0.0.1:8000 docs/pictures

takes page.png of its page, with a text of our own.
"""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CURVES = ("train/loss", "train/accuracy", "train/grad_norm", "val/loss", "val/accuracy", "lr")
"""What the picture of the curves shows, by tag."""

_TEXT = (
    "I wanted to like this film. The first hour is slow and the jokes are tired, but then the story wakes up: "
    "the two leads are wonderful together, the music is lovely, and the last scene is one that I will remember."
)
_PAGES = {
    # name: (TensorBoard's tab, a tag that it shows, width and height of the window)
    "curves": ("timeseries", "val/accuracy", (1500, 1190)),
    "images": ("images", "val/calibration", (1500, 1400)),
    "reviews": ("text", "val/most_wrong", (1500, 1100)),
    "precision_recall": ("pr_curves", "val/precision_recall", (1150, 1300)),
}
# TensorBoard fills a card only once it is in view, so the window is large
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --window-size=1500,1200"
)
# most tabs are web components, into which document.body.innerText does not look
_ALL_TEXT = """
const texts = [];
(function walk(node) {
  if (node.nodeType === Node.TEXT_NODE) texts.push(node.data);
  if (node.shadowRoot) walk(node.shadowRoot);
  if (!["STYLE", "SCRIPT", "TEMPLATE"].includes(node.nodeName)) node.childNodes.forEach(walk);
})(document.body);
return texts.join(" ");
"""


@contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Starts TensorBoard on a free port; gives its address. It is gone afterwards, with its data server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    # its pages show the folder as it was given: by its name, without where it lies on this machine
    folder = logdir.absolute()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder.parent, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_it_answers(process, f"{address}/data/runs", log)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", address: str, log: io.TextIOBase) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if json.load(answer):  # the runs that it has read
                    return
        except OSError:
            pass
        time.sleep(0.3)
    log.seek(0)
    raise RuntimeError(f"TensorBoard does not answer, or finds no run: {log.read()[-500:]}")


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Starts a headless Chromium with an empty profile. It is gone afterwards, and its profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        for flag in [*_FLAGS.split(), f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))
        try:
            yield driver
        finally:
            driver.quit()


def classify(driver: webdriver.Chrome, address: str, text: str) -> None:
    """Opens the page of `serve`, and waits for what it says of a text."""
    driver.get(address)
    box = driver.find_element("css selector", "textarea")
    driver.execute_script("arguments[0].value = arguments[1]", box, text)  # the driver types no emoji
    driver.find_element("css selector", "button").click()
    WebDriverWait(driver, 60).until(lambda _: driver.find_elements("css selector", ".label"), "no label on the page")


def page_text(driver: webdriver.Chrome) -> str:
    """All text of the page, that inside of web components too, without spaces: TensorBoard writes "val /loss"."""
    text: str = driver.execute_script(_ALL_TEXT)
    return "".join(text.split())


def curve_cards(driver: webdriver.Chrome) -> dict[str, str]:
    """The text of each pinned curve's card, the table of its last point included, by tag; without spaces."""
    cards = driver.find_elements("css selector", "metrics-pinned-view scalar-card")
    texts = ["".join((card.get_attribute("textContent") or "").split()) for card in cards]
    return {tag: text for tag in CURVES for text in texts if text.startswith(tag)}


def open_page(driver: webdriver.Chrome, address: str, tab: str, awaited: str) -> None:
    """Opens a tab of TensorBoard and waits until `awaited` is on it and nothing moves any more.

    The curves are pinned, which puts them in one place at the top.
    """
    pinned = json.dumps([{"plugin": "scalars", "tag": tag} for tag in CURVES])
    driver.get("about:blank")  # a new fragment alone would not load the page again
    driver.get(f"{address}/?darkMode=false&smoothing=0&pinnedCards={quote(pinned)}#{tab}")
    WebDriverWait(driver, 60).until(lambda _: awaited in page_text(driver), f"no {awaited!r} in the tab {tab}")
    before = b""
    end = time.monotonic() + 20
    while (now := driver.get_screenshot_as_png()) != before and time.monotonic() < end:
        before = now
        time.sleep(1)


def _show_whole_curves(driver: webdriver.Chrome) -> None:
    """Keeps TensorBoard from cutting off the ends of a curve as outliers, and takes the settings away."""
    driver.find_element("css selector", ".scalars-ignore-outliers input, .scalars-ignore-outliers label").click()
    driver.find_element("css selector", "[aria-label='Close side pane']").click()
    time.sleep(3)


def _save(driver: webdriver.Chrome, path: Path) -> None:
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    # 256 colours: a third of the size, and no difference that is seen
    picture.quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", help="or the address of `serve`")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.logdir.startswith("http://"):
        with chromium() as driver:
            driver.set_window_size(900, 640)
            classify(driver, args.logdir, _TEXT)
            _save(driver, args.output / "page.png")
        return
    with tensorboard(Path(args.logdir)) as address, chromium() as driver:
        for name, (tab, awaited, size) in _PAGES.items():
            driver.set_window_size(*size)
            open_page(driver, address, tab, awaited)
            if tab == "timeseries":
                _show_whole_curves(driver)
            _save(driver, args.output / f"{name}.png")


if __name__ == "__main__":
    main()
