"""The real TensorBoard on a run, opened in a real browser: the curves are there."""

from pathlib import Path

import pandas as pd

from docs.screenshots import CURVES, chromium, curve_cards, open_page, tensorboard
from tests.browser import IN_BROWSER

pytestmark = IN_BROWSER


def test_curves_are_on_the_page_with_the_values_of_the_log(tiny_checkpoint: Path) -> None:
    """Each curve's card names its tag and, below the curve, the last point: the one in metrics.csv."""
    run = tiny_checkpoint.parents[1]
    log = pd.read_csv(run / "metrics.csv")
    with tensorboard(run.parent) as address, chromium() as driver:
        open_page(driver, address, "timeseries", "val/accuracy")
        cards = curve_cards(driver)
    assert cards.keys() == set(CURVES)
    for tag, text in cards.items():
        last = log.dropna(subset=[tag]).iloc[-1]
        # value and step stand side by side; TensorBoard shows at most four decimals
        value = f"{last[tag]:.4f}".rstrip("0").rstrip(".")
        assert f"version_0{value}{int(last['step'])}" in text, (tag, text)
