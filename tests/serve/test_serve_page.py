"""The page at `/` in a real browser: drop an image, ask, read the reply."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from llama_vision.demo import SAMPLE_IMAGES
from tests.browser import needs_browser, open_browser

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def _ask(browser, question):
    browser.find_element(By.ID, "question").clear()
    browser.find_element(By.ID, "question").send_keys(question)
    browser.find_element(By.ID, "ask").click()
    WebDriverWait(browser, 60).until(lambda page: page.find_element(By.ID, "ask").is_enabled())
    return browser.find_element(By.ID, "reply")


def test_an_image_is_shown_and_answered(browser, served, tmp_path):
    browser.get(served.url)
    browser.find_element(By.ID, "file").send_keys(str(SAMPLE_IMAGES["circle"]))
    WebDriverWait(browser, 10).until(lambda page: page.find_elements(By.CSS_SELECTOR, "#shown img"))
    assert _ask(browser, "What color is the circle?").text == "blue"
    assert "tokens" in browser.find_element(By.ID, "usage").text
    browser.save_screenshot(str(tmp_path / "page.png"))
    assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []


def test_a_missing_key_is_told_and_taken(browser, serving):
    browser.get(serving(api_key="secret").url)
    reply = _ask(browser, "Say hi")
    assert "API key" in reply.text
    assert reply.get_attribute("class") == "error"
    browser.find_element(By.TAG_NAME, "summary").click()
    browser.find_element(By.ID, "key").send_keys("secret")
    assert _ask(browser, "Say hi").text == "Hi"
