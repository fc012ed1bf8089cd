"""A page on this machine that answers questions about a video, and shows when and where the model looked.

    pip install -r requirements-app.txt
    python -m scripts.app                                # then open http://127.0.0.1:7860
    python -m scripts.app --run runs/mine --port 8000

Nobody else reaches it unless --host says so, and it loads nothing from elsewhere. Questions wait for their turn. A
video is removed when its page is closed or shows another, and all that is left when the command ends.
"""

import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path

from utils.cli import PlainParser
from utils.errors import UserError, command
from utils.files import read_json


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line, load the model, serve."""
    parser = PlainParser(__doc__)
    parser.add_argument("--run", type=Path, help="run folder or released model (default: the one in the box)")
    parser.add_argument("--encoders", type=Path, nargs="+", default=[], help="folders with the weights of encoders")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve; 0.0.0.0 lets the whole network in")
    parser.add_argument("--port", type=int, help="port to serve (default: the first free one from 7860 on)")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is missing; pip install -r requirements-app.txt")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder goes
    with tempfile.TemporaryDirectory(prefix="ask_a_video_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when gradio is imported
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from scripts.answer import MODEL, QUESTIONS, SAMPLE, Answerer
        from scripts.page.blocks import build, serve

        answerer = Answerer(options.run or MODEL, encoders=options.encoders)
        page = build(answerer, Path(folder), SAMPLE, [row["question"] for row in read_json(QUESTIONS)])
        try:
            address = serve(page, options.host, options.port)
        except (OSError, OverflowError) as error:
            raise UserError(f"--host {options.host} --port {options.port}: cannot be served ({error})") from error
        print(f"{address} answers; Ctrl-C ends it", flush=True)
        page.block_thread()


if __name__ == "__main__":
    main()
