"""The page that asks videos, in a real browser: what is seen and clicked, what is refused, what is loaded and left."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest

from dataset.question import Wording
from dataset.text_prompt import PromptTable
from feat_script.media import MediaError, read_frames
from scripts.answer import Answer, Look
from scripts.app import main
from scripts.page.shown import refused, shown, time_line
from tests.clips import sine, write_clip
from tests.small_run import ROOT
from utils.errors import UserError

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 12


class StandIn:
    """An answerer that tells which clip of `tests.clips` it was given, and waits for `go` before it does."""

    seconds = SECONDS
    wording = Wording(
        PromptTable({"Is the <Object> louder than the <Object>?": "", "Is there a voiceover?": ""}, ""),
        {"object": ["cello", "bass drum"]},
    )

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.at_once = self.most_at_once = 0

    def ask(self, video, questions, start=0.0, progress=None):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            progress("looking", 0.5)
            assert self.go.wait(300)
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
    patches = np.array([0.2, 0, 0, 0])
    return Answer(
        video=video.name,
        question=question,
        template="Is there a voiceover?",
        prompt="A voice is heard.",
        answer=f"clip_{image.shape[1] // 16 - 4}",
        probability=0.6,
        others=[("no", 0.2), ("yes", 0.1), ("cello", 0.06), ("two", 0.04)],
        selected=[3.0, 9.0],
        segment_weights=weights,
        looks=[Look(second, image, patches, "squash") for second in (3.0, 9.0)],
        seconds=SECONDS,
        own=SECONDS - 12,
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
        address = blocks.serve(page, "127.0.0.1", None)
        yield address, answerer, folder
        page.close(verbose=False)


@pytest.fixture(scope="module")
def new_page():
    """Opens a page in the browser; each is a visitor of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    if not BROWSER:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])

        def new_page(width=1280):
            page = chromium.new_page(viewport={"width": width, "height": 800})
            page.set_default_timeout(120_000)  # of a machine that is busy with other tests
            return page

        yield new_page


def upload(page, path):
    page.set_input_files("#video input[type=file]", path)
    page.wait_for_selector("#video video")


def ask(page, question):
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def player_at(page):
    return page.evaluate("document.querySelector('#video video').currentTime")


def soon(true):
    """Whether `true()` comes true within a minute."""
    return any(true() or time.sleep(0.1) for _ in range(600))


@pytest.mark.slow
def test_upload_ask_look_and_leave(new_page, served, clips):
    address, _, folder = served
    page = new_page(width=400)
    hosts = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.goto(address)
    upload(page, clips[3])
    ask(page, "Is there a <b>voiceover</b> ${1 + 1}?")
    page.get_by_role("heading", name="clip 3").wait_for()
    page.get_by_text("3.mp4: Is there a <b>voiceover</b> ${1 + 1}?").wait_for()
    assert page.evaluate("document.scrollingElement.scrollWidth") == 400

    page.get_by_role("button", name="9 s, weight 0.128, selected").click()
    assert player_at(page) == pytest.approx(9)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert player_at(page) == pytest.approx(10)
    page.get_by_role("button", name="3 s: left, top").click()
    assert player_at(page) == pytest.approx(3)

    assert list(folder.rglob("3.mp4"))
    page.get_by_label("Clear").click()
    upload(page, clips[4])
    assert soon(lambda: not list(folder.rglob("3.mp4")))
    page.get_by_role("heading", name="clip 3").wait_for(state="detached")
    page.wait_for_timeout(2000)  # the server is told of the new video beside this
    page.close()
    assert soon(lambda: not list(folder.rglob("*")))
    assert hosts <= {"127.0.0.1", None}  # None: what the page made itself


@pytest.mark.slow
def test_the_sample_and_a_template(new_page, served, clips):
    page = new_page()
    page.goto(served[0])
    page.get_by_role("button", name="Is there a voiceover?").click()
    page.wait_for_selector("#video video")
    assert page.get_by_label("Question").input_value() == "Is there a voiceover?"
    page.get_by_role("button", name="Or fill in a template").click()
    page.get_by_label("Template").click()
    page.get_by_role("option", name="Is the <Object> louder than the <Object>?").click()
    page.get_by_label("Word 2: Object").click()
    page.get_by_role("option", name="bass drum").click()
    assert soon(lambda: page.get_by_label("Question").input_value() == "Is the cello louder than the bass drum?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("heading", name="clip 5").wait_for()
    page.close()
    assert clips[5].exists()


@pytest.mark.slow
def test_what_cannot_be_answered_is_said(new_page, served, clips, tmp_path):
    page = new_page()
    page.goto(served[0])
    ask(page, "Is there a voiceover?")
    page.get_by_text("error: there is no video; drop one, or take the sample").wait_for()
    (tmp_path / "corrupt.mp4").write_bytes(clips[0].read_bytes()[:999])
    upload(page, tmp_path / "corrupt.mp4")
    ask(page, "Is there a voiceover?")
    page.get_by_text("error: corrupt.mp4: cannot be opened (Invalid data found when processing input)").wait_for()
    page.get_by_label("Clear").click()
    upload(page, clips[1])
    ask(page, " ")
    page.get_by_text("error: the question is empty; write one").wait_for()
    page.get_by_label("Clear").click()
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    page.set_input_files("#video input[type=file]", tmp_path / "large.mp4")
    page.get_by_text("exceed the maximum allowed size").wait_for()
    page.close()


@pytest.mark.slow
def test_ten_questions_at_once_wait_for_their_turn(new_page, served, clips):
    """Nine come from programs, since ten browsers that wait are too much for two cores; the tenth from a page."""
    client = pytest.importorskip("gradio_client")
    address, answerer, _ = served
    answerer.go.clear()
    answerer.most_at_once = 0
    visitors = [client.Client(address, verbose=False, analytics_enabled=False) for _ in clips[1:]]
    jobs = [
        visitor.submit(client.handle_file(clip), "Is there a voiceover?", 0, api_name="/ask")
        for visitor, clip in zip(visitors, clips[1:], strict=True)
    ]
    page = new_page()
    page.goto(address)
    upload(page, clips[0])
    ask(page, "Is there a voiceover?")
    page.get_by_text("queue: 9/9").wait_for()
    answerer.go.set()
    for n, job in enumerate(jobs, start=1):
        assert f"<h2>clip {n}</h2>" in job.result(timeout=120)[1]
    page.get_by_role("heading", name="clip 0").wait_for()
    page.close()
    assert answerer.most_at_once == 1


@pytest.mark.slow
def test_the_command_serves_until_it_is_ended(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="the page needs requirements-app.txt")
    command = [sys.executable, "-m", "scripts.app"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as app:
        address = app.stdout.readline().decode().split()[0]
        with urlopen(address) as page:
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
        (folder,) = tmp_path.glob("ask_a_video_*")

        monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # what the command sets is put back
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        monkeypatch.setattr("scripts.answer.Answerer", lambda run, encoders: StandIn())
        port = urlsplit(address).port
        with pytest.raises(SystemExit):
            main(["--port", str(port)])
        assert f"error: --host 127.0.0.1 --port {port}: cannot be served" in capsys.readouterr().err
        app.terminate()
    assert not folder.exists()


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().err == "error: gradio is missing; pip install -r requirements-app.txt\n"


def test_an_answer_is_text(clips):
    answer = replace(answer_about(clips[0], "<script>"), video="<b>", answer="<i>", others=[("a_b", 0.1)])
    html = shown(answer) + time_line(answer) + refused("<u>")
    assert not re.search("<(script|i|b|u)>", html)
    assert "<dt>a b</dt>" in html


def test_a_network_without_selection_shows_its_answer(clips):
    answer = replace(answer_about(clips[0], "?"), selected=[], looks=[], segment_weights=None)
    assert time_line(answer) == ""
    assert "<h3>" not in shown(answer)
