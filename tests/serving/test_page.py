"""The page of `serve` in a real browser."""

from pathlib import Path

from selenium.webdriver.support.ui import WebDriverWait

from docs.screenshots import chromium, classify
from src.inference.classifier import Classifier, load, probabilities
from src.inference.explaining.words import Words, weights_by_leaving_out
from tests.browser import IN_BROWSER

pytestmark = IN_BROWSER


def weights_of(text: str, classifier: Classifier) -> list[float]:
    words = Words.of(text, classifier.encoder)
    groups = words.groups(100)
    windows = [*words.windows, *(words.without(*group) for group in groups)]
    logits = classifier.logits_of_tokens([[window] for window in windows])
    return list(weights_by_leaving_out(words, groups, logits, classifier.task))


def test_a_text_gets_its_label_its_shades_and_its_windows_and_stays_text(port: int, model: Path) -> None:
    hostile = '<img src="//example.org/x" onerror="document.title=1"><script>document.title=2</script> & great '
    text = hostile + "the film was moving " * 40 + "🙂 awful"
    classifier = load(model)
    expected = probabilities(classifier.logits([text]), classifier.task)[0]
    with chromium() as driver:
        classify(driver, f"http://127.0.0.1:{port}", text)
        assert driver.find_element("css selector", ".label").text == "pos"
        assert f"pos {expected[1]:.4f}" in driver.find_element("css selector", ".prediction").text
        assert driver.find_element("css selector", ".text").get_property("textContent") == text
        kinds = [span.get_attribute("class") for span in driver.find_elements("css selector", ".text span")]
        assert kinds == ["against" if weight < 0 else "for" for weight in weights_of(text, classifier)]
        assert set(kinds) == {"for", "against"}
        assert len(driver.find_elements("css selector", ".windows li")) == len(classifier.encoder.encode([text])[0]) > 1
        assert driver.title == "Try the classifier"
        assert not driver.find_elements("css selector", "img")
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert all(name.startswith(f"http://127.0.0.1:{port}/") for name in loaded)
        # a mistake is told on the page
        driver.find_element("css selector", "textarea").clear()
        driver.find_element("css selector", "button").click()
        line = driver.find_element("css selector", "[role=status]")
        WebDriverWait(driver, 30).until(lambda _: "at least 1 character" in line.text)
        # the refusal itself is logged; nothing broke the page's policy
        assert all("422" in entry["message"] for entry in driver.get_log("browser"))
