"""What the tests in a real browser need."""

import shutil

import pytest

IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="no Chromium here (Debian: apt-get install chromium chromium-driver)",
    ),
]
