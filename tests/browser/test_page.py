"""The page in a real browser, on a rendered project at work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.rendering import ROOT, Renders, Running, running

pytestmark = pytest.mark.slow

NAME = "Lighthouse Studio"
MODELS = [
    "black-forest-labs/flux-schnell",
    "nightmareai/real-esrgan",
    "meta/meta-llama-3-8b-instruct",
    "openai/whisper",
    "meta/musicgen",
]
PICTURE = ROOT / "docs/images/page-phone.png"


FRAMEWORKS = ["fastapi", "django", "nextjs"]


@pytest.fixture(
    scope="module",
    params=[
        "fastapi",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("django", "nextjs")),
    ],
)
def service(
    request: pytest.FixtureRequest, renders: Renders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    project = tmp_path_factory.mktemp("browser") / "project"
    renders.copy(project, framework=request.param, replicate_models=MODELS, project_name=NAME)
    env = {"CALLER_PER_MINUTE": "1000", "ADDRESS_PER_MINUTE": "1000", "PRIME": "true"}
    with running(project, **env) as started:
        yield started


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Page]:
    """The page as a new caller sees it; no error in its console, no request to another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    made = context.new_page()
    errors: list[str] = []
    foreign: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    made.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((service.url, "data:", "blob:"))
            else foreign.append(asked.url)
        ),
    )
    made.goto(service.url)
    made.wait_for_selector("#input-prompt")
    yield made
    context.close()
    assert foreign == []
    # refused and broken requests, which the browser lists as errors
    expected = ("422", "429", "net::ERR_FAILED")
    assert [line for line in errors if not any(status in line for status in expected)] == []


def control(service: Running, path: str, body: dict[str, object]) -> None:
    token = {"Authorization": "Bearer r8_emulator"}
    reply = httpx.post(f"{service.emulator}/_emulator/{path}", json=body, headers=token)
    assert reply.is_success, reply.text


def test_a_picture_from_an_empty_page(page: Page) -> None:
    expect(page).to_have_title(NAME)
    expect(page.locator("h1")).to_have_text(NAME)
    expect(page.locator("#empty")).to_be_visible()
    page.fill("#input-prompt", "A lighthouse at dawn")
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)
    expect(page.locator(".card img")).to_be_visible()
    assert page.evaluate("document.querySelector('.card img').naturalWidth") > 0
    expect(page.locator("#empty")).to_be_hidden()
    page.reload()
    expect(page.locator(".card img")).to_be_visible()
    page.click("text=Delete")
    expect(page.locator("#empty")).to_be_visible()


def test_errors_stand_beside_their_field(page: Page) -> None:
    page.click("text=Generate")
    expect(page.locator("#input-prompt-error")).to_have_text("Field required")
    expect(page.locator("#input-prompt")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#input-prompt")).to_be_focused()
    page.fill("#input-prompt", "x")
    page.click("summary")
    page.fill("#input-num_outputs", "9")
    page.click("text=Generate")
    expect(page.locator("#input-num_outputs-error")).to_have_text(
        re.compile("less than or equal to 4|<=4")
    )
    expect(page.locator("#input-prompt-error")).to_be_hidden()


def test_a_file_goes_in_and_comes_out(page: Page) -> None:
    page.select_option("#model", "real-esrgan")
    page.set_input_files("#input-image", PICTURE)
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)
    expect(page.locator(".card img")).to_be_visible()


def test_sound_and_json(page: Page) -> None:
    page.select_option("#model", "musicgen")
    page.fill("#input-prompt", "drums")
    page.click("text=Generate")
    expect(page.locator(".card audio")).to_be_visible(timeout=20_000)
    page.select_option("#model", "whisper")
    page.set_input_files("#input-audio", PICTURE)
    page.click("text=Generate")
    expect(page.locator(".card pre")).to_contain_text('"transcription"', timeout=20_000)


def test_text_comes_piece_by_piece(page: Page, service: Running) -> None:
    control(service, "settings", {"run_seconds": 3})
    try:
        page.select_option("#model", "meta-llama-3-8b-instruct")
        page.fill("#input-prompt", "Tell a story")
        page.click("text=Generate")
        text = page.locator(".card pre")
        expect(text).to_be_visible(timeout=20_000)
        early = text.text_content() or ""
        expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)
        whole = text.text_content() or ""
        assert len(early) < len(whole)
        assert whole.startswith(early.rstrip())
    finally:
        control(service, "settings", {"run_seconds": 0.3})


def test_cancel_and_failure(page: Page, service: Running) -> None:
    # on an official model: to enter the form of another may prime it, and the fault would hit that
    control(service, "faults", {"fault": "hang", "times": 1})
    page.fill("#input-prompt", "A boat")
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Running", timeout=20_000)
    page.click("text=Cancel")
    expect(page.locator(".card .state")).to_contain_text("Canceled", timeout=20_000)
    control(service, "faults", {"fault": "fail", "times": 1, "error": "out of memory"})
    page.click("text=Generate")
    first = page.locator(".card").first
    expect(first.locator(".state")).to_contain_text("Failed", timeout=20_000)
    expect(first.locator(".output")).to_contain_text("out of memory")


def test_several_pictures_of_one_run(page: Page) -> None:
    page.fill("#input-prompt", "Two boats")
    page.click("summary")
    page.fill("#input-num_outputs", "2")
    page.click("text=Generate")
    expect(page.locator(".card .several img")).to_have_count(2, timeout=20_000)
    links = page.locator(".card .several a")
    expect(links).to_have_count(2)
    with page.expect_popup() as opened:  # the full size, in a tab of its own
        links.nth(1).click()
    address = str(links.nth(1).get_attribute("href"))
    assert opened.value.url.endswith(address)
    assert address.endswith("/1")
    opened.value.close()


def test_what_replicate_refuses_to_bill_is_explained(page: Page, service: Running) -> None:
    control(service, "faults", {"fault": "create_402", "times": 1})
    page.fill("#input-prompt", "A boat")
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Failed", timeout=20_000)
    expect(page.locator(".card .output")).to_contain_text("replicate.com/account/billing")


def test_a_throttled_create_is_sent_later(page: Page, service: Running) -> None:
    control(service, "faults", {"fault": "create_429", "times": 1, "retry_after": 1})
    page.fill("#input-prompt", "A boat")
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)


def test_an_output_that_expired_is_said_to_be_lost(page: Page, service: Running) -> None:
    control(service, "faults", {"fault": "file_404", "times": None})
    try:
        page.fill("#input-prompt", "A boat")
        page.click("text=Generate")
        expect(page.locator(".card .state")).to_contain_text("Not stored", timeout=60_000)
        expect(page.locator(".card img")).to_have_count(0)
    finally:
        token = {"Authorization": "Bearer r8_emulator"}
        httpx.delete(f"{service.emulator}/_emulator/faults", headers=token).raise_for_status()


def test_a_community_model_is_primed_when_its_form_is_entered(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.focus("#input-prompt")
    assert [url for url in asked if url.endswith("/prime")] == []
    page.select_option("#model", "musicgen")
    with page.expect_response("**/api/models/musicgen/prime") as told:
        page.focus("#input-prompt")
    assert told.value.status == 202
    page.focus("#model")
    page.focus("#input-prompt")
    assert len([url for url in asked if url.endswith("/prime")]) == 1


def test_many_that_run_leave_the_page_at_work(page: Page, service: Running) -> None:
    """A browser opens six connections to a host: streams of events may not take them all."""
    control(service, "settings", {"run_seconds": 60})
    page.route("**/prime", lambda route: route.abort())
    try:
        page.select_option("#model", "musicgen")
        page.fill("#input-prompt", "drums")
        for number in range(1, 9):
            page.click("text=Generate")
            expect(page.locator(".card")).to_have_count(number)
        last, first = page.locator(".card").first, page.locator(".card").last
        expect(last.locator(".state")).to_contain_text("Running", timeout=20_000)
        another = page.context.new_page()
        another.goto(service.url)
        expect(another.locator(".card")).to_have_count(8)
        for card in (last, first):
            card.locator(".cancel").click()
            expect(card.locator(".state")).to_contain_text("Canceled", timeout=20_000)
        expect(another.locator(".state", has_text="Canceled")).to_have_count(2, timeout=20_000)
        first.locator(".delete").click()
        expect(page.locator(".card")).to_have_count(7)
        another.close()
    finally:
        control(service, "settings", {"run_seconds": 0.3})


def test_a_lost_answer_is_not_billed_twice(page: Page, service: Running) -> None:
    """Not even with a file, which would be uploaded, and so named, anew."""

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/prime", lambda route: route.abort())
    page.route("**/api/predictions", lose, times=1)
    page.select_option("#model", "real-esrgan")
    page.set_input_files("#input-image", PICTURE)
    page.click("text=Generate")
    expect(page.locator("#problem")).to_contain_text("it will not run twice")
    page.click(".go")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)
    page.reload()
    expect(page.locator(".card img")).to_be_visible()
    expect(page.locator(".card")).to_have_count(1)


def test_what_goes_wrong_with_a_result_stands_on_it(page: Page) -> None:
    page.fill("#input-prompt", "A boat")
    page.click("text=Generate")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)
    page.route("**/files/**", lambda route: route.abort())
    page.reload()
    expect(page.locator(".card .output")).to_have_text("The file cannot be read now.")
    page.route("**/api/predictions/*", lambda route: route.abort(), times=1)
    page.click("text=Delete")
    expect(page.locator(".card .problem")).to_have_text("The service did not answer.")
    another = page.context.new_page()
    another.goto(page.url)
    expect(another.locator(".card")).to_have_count(1)
    page.click("text=Delete")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#made-title")).to_be_focused()
    another.click("text=Delete")  # it is not there any more
    expect(another.locator(".card")).to_have_count(0)
    another.close()


def test_older_predictions_are_loaded_on_request(page: Page, service: Running) -> None:
    body = {"model": "flux-schnell", "input": {"prompt": "One of many"}}
    for number in range(21):
        headers = {"Idempotency-Key": f"many-{number}", "Prefer": "respond-async"}
        sent = page.request.post(f"{service.url}/api/predictions", data=body, headers=headers)
        assert sent.status == 202
    page.reload()
    expect(page.locator(".card")).to_have_count(20)
    page.click("#older")
    expect(page.locator(".card")).to_have_count(21)
    expect(page.locator("#older")).to_be_hidden()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_limit_is_told_beside_the_form(
    framework: str, browser: Browser, renders: Renders, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    renders.copy(project, framework=framework, replicate_models=MODELS)
    with running(project, CALLER_PER_MINUTE="1") as started:
        page = browser.new_page()
        page.goto(started.url)
        for prompt in ("A boat", "Another boat"):
            page.fill("#input-prompt", prompt)
            page.click("text=Generate")
            expect(page.locator(".go")).to_be_enabled(timeout=20_000)
        expect(page.locator("#problem")).to_contain_text("Nothing was started. Try again in")
        expect(page.locator(".card")).to_have_count(1)
        page.close()


def test_by_keyboard(page: Page) -> None:
    page.focus("#model")
    page.keyboard.press("Tab")
    expect(page.locator("#input-prompt")).to_be_focused()
    page.keyboard.type("A boat")
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.locator(".go")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".card .state")).to_contain_text("Done", timeout=20_000)


@pytest.mark.parametrize("model", [name.split("/")[1] for name in MODELS])
def test_on_a_phone(page: Page, model: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.select_option("#model", model)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_in_the_dark(page: Page) -> None:
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light


def test_the_pictures_of_the_readme(page: Page, tmp_path: Path) -> None:
    """Written anew where WRITE_IMAGES is set; here it is enough that the page can be drawn."""
    folder = ROOT / "docs/images" if os.environ.get("WRITE_IMAGES") else tmp_path
    for number, prompt in enumerate(("A lighthouse at dawn", "A paper boat in a storm"), 1):
        page.fill("#input-prompt", prompt)
        page.click("text=Generate")
        expect(page.locator(".card img")).to_have_count(number, timeout=20_000)
    page.select_option("#model", "meta-llama-3-8b-instruct")
    page.fill("#input-prompt", "Tell a story")
    page.click("text=Generate")
    expect(page.locator(".card pre")).to_be_visible(timeout=20_000)
    page.select_option("#model", "flux-schnell")
    page.fill("#input-prompt", "A lighthouse at dawn")
    expect(page.locator(".card img")).to_have_count(2)
    page.screenshot(path=folder / "page.png")
    page.set_viewport_size({"width": 360, "height": 740})
    page.screenshot(path=folder / "page-phone.png")
    assert (folder / "page.png").stat().st_size < 200_000
