"""The playground in a real browser, against a real server.

Every test ends with the same question: did the page complain in the console, or ask another host
for something?
"""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.end_to_end.harness import Server, running

LIMIT_S = 30
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --window-size=1180,760
"""
LONG = '{"type": "string", "minLength": 6000}'
"""A format that no model can end early."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The built-in model, with room for one request."""
    with running("--max-concurrent-requests", "1") as started:
        yield started


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser, "install the package chromium"
    assert driver, "install the package chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield started
    finally:
        started.quit()


class Playground:
    """The page, and what a visitor does with it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        for kind in ("browser", "performance"):
            driver.get_log(kind)  # of earlier pages
        driver.get(f"{url}/playground")

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, LIMIT_S, 0.05).until(lambda _: condition())

    def fill(self, field: str, text: str) -> None:
        self.find(f"#{field}").clear()
        self.find(f"#{field}").send_keys(text)

    def choose(self, mode: str) -> None:
        self.find(f"[value={mode}]").click()

    def send(self, text: str) -> None:
        self.fill("prompt", text + Keys.ENTER)

    def ask(self, text: str) -> str:
        """Send, wait for the whole answer; its text."""
        before = len(self.all("article"))
        self.send(text)
        self.until(lambda: len(self.all("article:not(.busy)")) > before)
        return self.all("article .body")[-1].text

    def facts(self) -> str:
        return self.all("article .facts")[-1].text

    def refusal(self, text: str) -> str:
        """Send what is refused; what the page says."""
        self.send(text)
        self.until(lambda: self.all(".error"))
        (card,) = self.all(".error")
        assert card.get_attribute("role") == "alert"
        assert self.find("#prompt").get_attribute("value") == text, "it can be sent again"
        assert not self.all("article")
        return card.text

    def messages(self, kind: str, method: str) -> list[dict[str, Any]]:
        entries = [json.loads(one["message"])["message"] for one in self.driver.get_log(kind)]
        return [entry["params"] for entry in entries if entry["method"] == method]

    def check(self) -> None:
        """Nothing in the console but refusals, which the browser notes itself; no other host."""
        noted = [entry for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]
        assert [entry for entry in noted if entry["source"] != "network"] == []
        asked = self.messages("performance", "Network.requestWillBeSent")
        urls = [one["request"]["url"] for one in asked if one["documentURL"].startswith(self.url)]
        assert f"{self.url}/info" in urls
        assert [url for url in urls if not url.startswith((f"{self.url}/", "data:"))] == []


@pytest.fixture
def page(server: Server, chromium: webdriver.Chrome) -> Iterator[Playground]:
    playground = Playground(chromium, server.url)
    yield playground
    playground.check()


def test_a_question_is_answered(page: Playground) -> None:
    page.until(lambda: page.find("#model").text == "millrace-builtin")
    assert page.driver.switch_to.active_element == page.find("#prompt")
    page.fill("temperature", "0")
    assert page.ask("What is the capital of France?") == "The capital of France is Paris."
    for part in ("9 tokens", "tokens/s", "first token after", "finished", "Copy"):
        assert part in page.facts()
    assert page.find("#status").get_attribute("textContent") == "Answer of 9 tokens, finished"
    assert page.find("#send").is_displayed()
    assert not page.find("#stop").is_displayed()


def test_lines_are_broken_and_nothing_is_sent(page: Playground) -> None:
    page.fill("prompt", "one" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "two")
    assert page.find("#prompt").get_attribute("value") == "one\ntwo"
    page.send("  ")
    assert not page.all("article")


def test_a_token_shows_its_alternatives(page: Playground) -> None:
    page.fill("temperature", "0")
    page.ask("What is the capital of France?")
    tokens = page.all(".token")
    assert [token.text.strip() for token in tokens[:4]] == ["The", "capital", "of", "France"]
    hint = page.find("#hint")
    assert not hint.is_displayed()
    ActionChains(page.driver).move_to_element(tokens[3]).perform()
    page.until(hint.is_displayed)
    rows = page.all("#hint .row")
    assert len(rows) == 4
    assert page.find("#hint .chosen code").text == "␣France"
    assert rows[0].text.splitlines()[0] == "␣France"
    assert all("%" in row.text for row in rows)
    ActionChains(page.driver).move_to_element(page.find("h1")).perform()
    page.until(lambda: not hint.is_displayed())
    page.driver.execute_script("arguments[0].focus()", tokens[0])
    tokens[0].send_keys(Keys.ARROW_RIGHT)
    assert page.driver.switch_to.active_element == tokens[1]
    assert page.find("#hint .chosen code").text == "␣capital"
    assert tokens[1].get_attribute("aria-describedby") == "hint"


def test_a_chosen_token_is_one_of_its_alternatives_however_it_is_written(page: Playground) -> None:
    """Vocabularies of SentencePiece drop a leading space where a token is decoded alone."""
    others = [{"id": 7, "text": "Paris", "logprob": -0.1}, {"id": 8, "text": "Rome", "logprob": -3}]
    token = {"id": 7, "text": " Paris", "logprob": -0.1, "others": others}
    rows = "return rowsOf(arguments[0]).map((row) => [row.className, row.firstChild.textContent])"
    assert page.driver.execute_script(rows, token) == [["row chosen", "␣Paris"], ["row", "Rome"]]


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_a_long_answer_is_stopped_and_the_server_notices(
    server: Server, page: Playground, how: str
) -> None:
    page.fill("schema", LONG)
    page.fill("max_tokens", "1800")
    ended = 'millrace_sequences_ended_total{reason="client_gone"}'
    before = server.metrics().get(ended, 0)
    page.send("Tell me a long story.")
    page.until(lambda: len(page.all(".token")) > 5)
    if how == "Escape":
        page.find("#prompt").send_keys(Keys.ESCAPE)
    else:
        page.find("#stop").click()
    page.until(lambda: "stopped by you" in page.facts())
    assert page.find("#send").is_displayed()
    assert page.all("article .body")[-1].text.startswith('"')
    server.until(lambda: server.metrics().get(ended, 0) == before + 1)
    page.fill("schema", "")
    assert page.ask("What is the capital of France?"), "there is room again"


def test_what_was_said_goes_on(page: Playground) -> None:
    page.fill("temperature", "0")
    page.fill("system", "Be brief.")
    page.ask("What is the capital of France?")
    page.ask("What is the capital of Italy?")
    sent = page.messages("performance", "Network.requestWillBeSent")
    bodies = [
        json.loads(one["request"]["postData"]) for one in sent if one["request"].get("postData")
    ]
    assert [message["role"] for message in bodies[-1]["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    assert "Paris" in bodies[-1]["messages"][2]["content"]
    page.find("#clear").click()
    assert not page.all("article, .question")
    assert page.find("#welcome").is_displayed()
    page.driver.get(f"{page.url}/playground")


def test_a_text_is_continued(page: Playground) -> None:
    page.choose("completion")
    assert not page.find("#system").is_displayed()
    page.fill("temperature", "0")
    page.fill("max_tokens", "12")
    assert page.ask("Once upon a time").startswith("Once upon a time there was")
    assert "12 tokens" in page.facts()
    assert "cut at max tokens" in page.facts()
    ActionChains(page.driver).move_to_element(page.all(".token")[0]).perform()
    assert page.until(lambda: len(page.all("#hint .row"))) == 4


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_a_format_is_kept(page: Playground, mode: str) -> None:
    page.choose(mode)
    page.fill("schema", '{"type": "object", "properties": {"n": {"enum": [1, 2]}}}')
    page.fill("seed", "7")
    answer = page.ask("Give me a number.").removeprefix("Give me a number.")
    assert set(json.loads(answer)) <= {"n"}


def test_refusals_are_told_where_they_belong(page: Playground) -> None:
    page.fill("temperature", "-1")
    told = page.refusal("Hello")
    assert told.startswith("422 · The request was refused")
    assert "`temperature` must be" in told
    assert "Request " in told
    assert page.find("#temperature").get_attribute("aria-invalid") == "true"
    page.fill("temperature", "warm")
    assert "temperature: “warm” is not a number" in page.refusal("Hello")
    page.fill("temperature", "0")
    page.fill("schema", "{")
    assert "The response format is not JSON" in page.refusal("Hello")
    page.fill("schema", "")
    page.choose("completion")
    page.fill("top_p", "3")
    assert "top_p has no effect at temperature 0" in page.refusal("Hello")
    page.fill("temperature", "1")
    told = page.refusal("Hello")
    assert told.startswith("The request was refused")
    assert "`top_p` must be" in told
    page.fill("top_p", "1")
    page.ask("Hello")
    assert not page.all(".error, [aria-invalid=true]")


def test_a_busy_server_says_when_to_come_back(server: Server, page: Playground) -> None:
    grammar = {"type": "json", "value": json.loads(LONG)}
    body = json.dumps({"inputs": "a", "parameters": {"max_new_tokens": 1800, "grammar": grammar}})
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as other:
        head = "POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        other.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        assert other.recv(100).startswith(b"HTTP/1.1 200")
        told = page.refusal("Hello")
        assert told.startswith("429 · The server is busy")
        assert "Try again in " in told
    ended = 'millrace_sequences_ended_total{reason="client_gone"}'
    server.until(lambda: server.metrics().get(ended, 0) > 0)


def test_a_key_is_asked_for_and_forgotten(chromium: webdriver.Chrome) -> None:
    options = ("--api-key", "hush", "--playground", "--open-routes", "/playground")
    with running(*options) as locked:
        page = Playground(chromium, locked.url)
        page.until(lambda page=page: page.find("#model").text == "asks for an API key")
        told = page.refusal("What is the capital of France?")
        assert told.startswith("401 · The API key is missing or wrong")
        assert page.driver.switch_to.active_element == page.find("#key")
        page.fill("key", "hush")
        page.fill("temperature", "0")
        assert "Paris" in page.ask("What is the capital of France?")
        assert page.find("#model").text == "millrace-builtin"
        page.driver.refresh()
        assert page.find("#key").get_attribute("value") == ""
        assert page.driver.execute_script("return localStorage.length + document.cookie") == "0"
        page.check()


def test_texts_are_shown_as_they_are(page: Playground) -> None:
    page.fill("max_tokens", "3")
    page.ask("<img src=x onerror=alert(1)><b>bold</b>")
    assert page.find(".question").text == "<img src=x onerror=alert(1)><b>bold</b>"
    assert not page.all("#log img, #log b")


def test_answers_are_shown_as_they_are(page: Playground) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.fill("schema", json.dumps({"enum": [hostile]}))
    assert page.ask("Attack!") == json.dumps(hostile)
    assert not page.all("#log img, #log script")


def test_an_answer_is_copied(page: Playground) -> None:
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": page.url}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", allowed)
    page.fill("temperature", "0")
    answer = page.ask("What is the capital of France?")
    page.find(".facts button").click()
    page.until(lambda: page.find(".facts button").text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert page.driver.execute_async_script(read) == answer


def test_it_is_dark_where_the_visitor_likes_it_dark(page: Playground) -> None:
    def page_color(scheme: str) -> str:
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
        return page.find("body").value_of_css_property("background-color")

    light, dark = (
        [int(part) for part in page_color(scheme)[5:-1].split(",")[:3]]
        for scheme in ("light", "dark")
    )
    assert min(light) > 220
    assert max(dark) < 40


def test_small_screens_have_room_for_the_conversation(page: Playground, tmp_path: Path) -> None:
    page.driver.set_window_size(420, 800)
    try:
        page.driver.get(f"{page.url}/playground")
        width = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= page.driver.execute_script("return innerWidth")
        assert page.find("#log").size["height"] > 250
        assert not page.find("#temperature").is_displayed()
        page.find("summary").click()
        assert page.find("#temperature").is_displayed()
    finally:
        page.driver.set_window_size(1180, 760)
