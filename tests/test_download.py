"""Downloads from a server of the test's own: resumed at the byte where they ended, checked, recorded."""

import errno
import hashlib
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from scripts import download
from scripts.download import File, main
from tests.small_run import ROOT
from utils.errors import UserError

BODY = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY at every path but /absent, as the test tells: how the next responses misbehave, in turn."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.mishaps, self.starts = BODY, [], []
        self.done = threading.Event()

    def url(self, path="file.bin"):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, start = self.server, 0
        mishap = server.mishaps.pop(0) if server.mishaps else None
        if self.path == "/absent" or mishap == "busy":
            self.send_error(404 if self.path == "/absent" else 503)
            return
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        if mishap == "drop":
            self.wfile.write(server.body[start : start + 1_000_000])
        elif mishap == "stall":
            self.wfile.write(server.body[start : start + 1_500_000])
            server.done.wait(300)
        else:
            self.wfile.write(server.body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.done.set()
    server.shutdown()
    thread.join()
    server.socket.close()


def fetch(server, tmp_path, known="", path="file.bin"):
    return download.download(File(server.url(path), "set/file.bin", known), tmp_path)


def test_a_file_is_fetched_checked_and_recorded_once(server, tmp_path):
    assert fetch(server, tmp_path, DIGEST[:8]).read_bytes() == BODY
    assert json.loads((tmp_path / "digests.json").read_text()) == {server.url(): DIGEST}
    assert {file.name for file in (tmp_path / "set").iterdir()} == {"file.bin"}
    fetch(server, tmp_path, DIGEST[:8])
    assert server.starts == [0]


def test_a_dropped_connection_goes_on_where_it_ended(server, tmp_path):
    server.mishaps = ["drop", "drop"]
    for _ in range(2):
        with pytest.raises(UserError, match="run again to go on"):
            fetch(server, tmp_path, DIGEST[:8])
    assert fetch(server, tmp_path, DIGEST[:8]).read_bytes() == BODY
    assert server.starts == [0, 999_999, 1_999_998]


def test_a_busy_server_is_said(server, tmp_path):
    server.mishaps = ["busy"]
    with pytest.raises(UserError, match=r"/file\.bin: 503 .*; run again to go on"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == BODY


def test_a_killed_download_goes_on_where_it_was(server, tmp_path):
    server.mishaps = ["stall"]
    file = f"File({server.url()!r}, 'set/file.bin', {DIGEST!r})"
    code = f"from scripts.download import *; download({file}, Path({str(tmp_path)!r}))"
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    part = tmp_path / "set/file.bin.part"
    deadline = time.monotonic() + 300  # an import of PyTorch, on a crowded machine
    while not (part.exists() and part.stat().st_size >= 1_000_000):
        assert killed.poll() is None
        assert time.monotonic() < deadline
    killed.kill()
    killed.wait()
    held = part.stat().st_size
    assert not (tmp_path / "set/file.bin").exists()
    assert fetch(server, tmp_path, DIGEST).read_bytes() == BODY
    assert server.starts == [0, held - 1]


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/file.bin.part").write_bytes(BODY)
    assert fetch(server, tmp_path, DIGEST).read_bytes() == BODY
    assert server.starts == [len(BODY) - 1]


def test_a_file_that_may_have_changed_is_fetched_from_the_start(server, tmp_path):
    server.mishaps = ["drop"]
    with pytest.raises(UserError, match="run again"):
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert server.starts == [0, 0]


def test_a_wrong_digest_leaves_nothing_behind(server, tmp_path):
    with pytest.raises(UserError, match=r"SHA-256 is .*, but that of http.* is 10086976\.\.\.; it was deleted"):
        fetch(server, tmp_path, "10086976")
    assert list((tmp_path / "set").iterdir()) == []
    assert not (tmp_path / "digests.json").exists()


def test_a_file_that_changed_under_its_address_is_refused(server, tmp_path):
    path = fetch(server, tmp_path)
    path.unlink()
    server.body = BODY[::-1]
    with pytest.raises(UserError, match=DIGEST):
        fetch(server, tmp_path)


def test_a_file_that_was_spoilt_on_disk_is_named_and_kept(server, tmp_path):
    path = fetch(server, tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"set/file\.bin: its SHA-256 .*delete it, or its line in .*digests\.json"):
        fetch(server, tmp_path)
    assert path.read_bytes() == b"mine"


def test_what_is_not_there_is_to_be_looked_for_by_hand(server, tmp_path):
    with pytest.raises(UserError, match=r"/absent: 404 (.|\n)*https://gewu-lab\.github\.io/MUSIC-AVQA/"):
        fetch(server, tmp_path, path="absent")


def test_a_full_disk_is_an_error_of_one_line(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", full, raising=False)  # found before the built-in one
    with pytest.raises(UserError, match=r"file\.bin: .*No space left on device"):
        fetch(server, tmp_path)


def test_a_root_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/set/file\.bin: cannot be written \(Not a directory\)"):
        fetch(server, tmp_path / "file")


def test_the_command_fetches_sets(server, tmp_path, monkeypatch, capsys):
    server.body = b'[{"question_id": 1}, {"question_id": 2}]'
    file = File(server.url("test.json"), "set/test.json")
    monkeypatch.setattr(download, "CATALOGUE", {"some": [file]})
    main(["some", "--root", str(tmp_path)])
    told = capsys.readouterr().out
    assert str(tmp_path / "set/test.json") in told
    assert hashlib.sha256(server.body).hexdigest() in told
    main(["--root", str(tmp_path)])
    told = capsys.readouterr().out
    assert server.url("test.json") in told
    assert "by hand" in told
    with pytest.raises(SystemExit) as end:
        main(["other"])
    assert end.value.code == 2
    assert "'other' is no set; there are some" in capsys.readouterr().err


def test_the_catalogue_knows_where_our_loaders_look():
    (vggish,), (clip,) = download.CATALOGUE["vggish"], download.CATALOGUE["clip_l14"]
    assert vggish.path.endswith("/checkpoints/vggish-10086976.pth")
    assert vggish.sha256 == "10086976"
    assert clip.path.endswith("/.cache/clip/ViT-L-14-336px.pt")
    assert len(clip.sha256) == 64
