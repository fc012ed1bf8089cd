"""The page itself: what is on it, what happens when, and what the browser may load."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from dataset.text_prompt import SLOT
from feat_script.media import MediaError, read_duration
from scripts.answer import Answerer
from scripts.page.shown import refused, shown, time_line
from utils.errors import UserError

LARGEST, LONGEST = "200mb", 600  # of an upload: bytes, seconds
WAITING = 100  # questions in the queue
STYLE = Path(__file__).with_name("page.css")
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
    button_primary_background_fill="*primary_600", button_primary_background_fill_dark="*primary_600"
)
SEEK = """() => {
  document.addEventListener("click", event => {
    const button = event.target.closest("[data-second]"), player = document.querySelector("#video video");
    if (!button || !player) return;
    player.currentTime = +button.dataset.second;
    player.scrollIntoView({block: "nearest"});
  });
  document.addEventListener("keydown", event => {
    const next = {ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling"}[event.key];
    if (next) event.target.closest(".line button")?.[next]?.focus();
  });
}"""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:"


async def own_host_only(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Forbid the browser, with every answer of the server, to load anything from another host."""
    response = await answer(request)
    response.headers["content-security-policy"] = POLICY
    return response


class Uploads:
    """Which page shows which video. A video that no page shows any more is removed, with all that is kept beside it.

    Gradio gives each video a folder of its own in `folder`, named by its content; two pages may share it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.shown: dict[str, Path] = {}

    async def show(self, video: str | None, request: gr.Request) -> None:
        """A page shows this video now, or none."""
        page = request.session_hash or ""
        before = self.shown.pop(page, None)
        if video:
            self.shown[page] = Path(video).parent
        if before and before not in self.shown.values() and before.parent == self.folder:
            shutil.rmtree(before, ignore_errors=True)

    async def leave(self, request: gr.Request) -> None:
        """A page was closed."""
        await self.show(None, request)


def build(answerer: Answerer, folder: Path, sample: Path, asked: list[str]) -> gr.Blocks:
    """The page of a loaded model. Gradio keeps uploads in `folder`; `asked` are questions about the video `sample`."""
    uploads, wording = Uploads(folder), answerer.wording
    templates = {template: names for template, names in wording.templates.items() if all(map(wording.values, names))}
    most = max(map(len, templates.values()), default=0)

    def ask(video: str | None, question: str, start: float, progress=gr.Progress()):  # noqa: B008  (Gradio's way)
        try:
            path = _checked(video)
            answerer.cache = path.parent  # features go when the video goes; one question is asked at a time
            (answer,) = answerer.ask(
                path, [question], start=start or 0.0, progress=lambda stage, share: progress(share, desc=stage)
            )
        except UserError as error:
            told = str(error)
            return "", refused(told.replace(video, Path(video).name) if video else told)
        return time_line(answer), shown(answer)

    def choose(template: str):
        known = [wording.values(name) for name in templates[template]]
        lists = [
            gr.Dropdown(words, value=words[0], label=f"Word {place}: {name}", visible=True)
            for place, (name, words) in enumerate(zip(templates[template], known, strict=True), start=1)
        ]
        hidden = [gr.Dropdown(visible=False)] * (most - len(lists))
        return [*lists, *hidden, fill(template, *(words[0] for words in known))]

    def fill(template: str, *words: str) -> str:
        word = iter(words)  # of hidden lists too, which come last
        return SLOT.sub(lambda _: next(word), template)

    with gr.Blocks(title="Ask a video", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(f"# Ask a video\nThe model sees {answerer.seconds} s of it. The file is removed when you leave.")
        with gr.Row():
            with gr.Column():
                video = gr.Video(label="Video", sources=["upload"], elem_id="video", height=320)
                line = gr.HTML(elem_classes="answer")
                gr.Markdown("Or take the sample:")
                samples = [gr.Button(words, size="sm") for words in asked]
            with gr.Column():
                question = gr.Textbox(label="Question", placeholder="Is there a violin sound?", max_lines=3)
                with gr.Accordion("Or fill in a template", open=False):
                    template = gr.Dropdown(list(templates), value=None, label="Template")
                    with gr.Row():
                        slots = [gr.Dropdown([], label="Slot", visible=False, min_width=120) for _ in range(most)]
                start = gr.Number(0, label="From second", minimum=0)
                button = gr.Button("Ask", variant="primary")
                answer = gr.HTML(elem_classes="answer", min_height=120)

        quietly: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        job = gr.on(
            [button.click, question.submit],
            ask,
            [video, question, start],
            [line, answer],
            concurrency_limit=1,
            show_progress_on=answer,
        )
        video.change(uploads.show, video, cancels=[job], **quietly)
        video.change(lambda: ("", ""), outputs=[line, answer], **quietly)
        page.unload(uploads.leave)
        template.input(choose, template, [*slots, question], **quietly)
        for slot in slots:
            slot.input(fill, [template, *slots], question, **quietly)
        for one in samples:
            one.click(lambda words: (str(sample), words), one, [video, question], **quietly)
    return page.queue(max_size=WAITING, default_concurrency_limit=None)


def _checked(video: str | None) -> Path:
    """The video's file. Raises `UserError` without a video, and for one that cannot be opened or is too long."""
    if not video:
        raise UserError("there is no video; drop one, or take the sample")
    try:
        seconds = read_duration(video)
    except MediaError as error:
        raise UserError(f"{video}: {error}") from error
    if seconds and seconds > LONGEST:
        raise UserError(f"{video}: lasts {seconds:.0f} s; the page takes {LONGEST} s at most, the command any length")
    return Path(video)


def serve(page: gr.Blocks, host: str, port: int | None) -> str:
    """Serve the page from now on, in the background; returns its address."""
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=LARGEST,
        theme=THEME,
        css_paths=STYLE,
        js=SEEK,
        footer_links=[],
        ssr_mode=False,
        app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=own_host_only)]},
    )
    return address
