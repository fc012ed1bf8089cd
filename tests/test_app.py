"""The page that asks videos, in a real browser: what is seen and clicked, what is refused, what is loaded and left."""

import shutil
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest

from feat_script.media import MediaError, read_frames
from scripts.answer import Answer, Look
from scripts.page.shown import refused, shown
from tests.clips import sine, write_clip
from utils.errors import UserError

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 12


class StandIn:
    """An answerer that tells which clip of `tests.clips` it was given, and waits for `go` before it does."""

    templates = {"Which <Object> makes the sound <FL>?": ["Object", "FL"], "Is there a voiceover?": []}  # noqa: RUF012

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.at_once = self.most_at_once = 0

    def slots(self, name):
        return {"Object": ["cello", "bass drum"], "FL": ["first", "last"]}[name]

    def ask(self, video, questions, start=0.0, progress=None):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            progress("looking", 0.5)
            assert self.go.wait(60)
            if not questions[0].strip():
                raise UserError("the question is empty; write one")
            return [answer_about(video, questions[0])]
        finally:
            self.at_once -= 1


def answer_about(video, question):
    try:
        image = read_frames(video, 1).images[0]
    except MediaError as error:
        raise UserError(f"{video}: {error}") from error
    weights = np.arange(1.0, SECONDS + 1) / sum(range(SECONDS + 1))
    heat = np.zeros(image.shape[:2])
    heat[: len(heat) // 2] = 0.2
    return Answer(
        question=question,
        template="Is there a voiceover?",
        prompt="A voice is heard.",
        answer=f"clip_{image.shape[1] // 16 - 4}",
        probability=0.6,
        others=[("no", 0.2), ("yes", 0.1), ("cello", 0.06), ("two", 0.04)],
        selected=[3.0, 9.0],
        segment_weights=weights,
        looks=[Look(second, image, heat, None, "left, top", None, "squash") for second in (3.0, 9.0)],
        seconds=SECONDS,
        start=0.0,
        note="12 s are padded",
        mel=None,
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Ten videos; clip n is 64 + 16 n pixels wide."""
    folder = tmp_path_factory.mktemp("clips")
    for n in range(10):
        write_clip(folder / f"{n}.mp4", np.arange(SECONDS), sine(SECONDS), size=(64 + 16 * n, 48))
    return [folder / f"{n}.mp4" for n in range(10)]


@pytest.fixture(scope="module")
def served(clips, tmp_path_factory):
    """(address, answerer, folder of the uploads) of a page that is served."""
    pytest.importorskip("gradio", reason="the page needs requirements-app.txt")
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        from scripts.page import blocks

        patch.setattr(blocks, "LARGEST", "1mb")
        answerer = StandIn()
        page = blocks.build(answerer, folder, clips[5], ["Is there a voiceover?"])
        address = blocks.serve(page, "127.0.0.1", None, wait=False)
        yield address, answerer, folder
        page.close(verbose=False)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    if not BROWSER:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


def upload(page, path):
    page.set_input_files("#video input[type=file]", path)
    page.wait_for_selector("#video video")


@pytest.mark.slow
def test_upload_ask_look(browser, served, clips, tmp_path):
    address, _, folder = served
    page = browser.new_page(viewport={"width": 400, "height": 800})
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.goto(address)
    upload(page, clips[3])
    page.get_by_label("Question").fill("Is there a <b>voiceover</b>?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("heading", name="clip 3").wait_for()
    assert page.get_by_text("Is there a <b>voiceover</b>?").count() == 2

    page.get_by_role("button", name="9 s, weight 0.128, selected").click()
    assert page.evaluate("document.querySelector('#video video').currentTime") == pytest.approx(9)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#video video').currentTime") == pytest.approx(10)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 400
