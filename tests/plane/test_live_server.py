"""The server of the live page: this machine only, its own page only, a GAN for each tab, and an end within a second."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bokeh.client import pull_session
from test_live import SCRIPT

import q2_gan_lab
from common.plane import live, live_page, live_server

ROOT = Path(__file__).resolve().parents[2]
PAGES = []


class KeptPage(live_page.Page):
    def __init__(self, *args):
        super().__init__(*args)
        self.obeyed, self.seconds = 0, []
        PAGES.append(self)

    def obey(self, text):
        super().obey(text)
        self.obeyed = json.loads(text)["n"]

    def frame(self):
        began = time.thread_time()
        super().frame()
        self.seconds.append(time.thread_time() - began)


@contextmanager
def serving(left_after_ms, **settings):
    """The address of a server in a thread of its own, whose pages are in PAGES."""
    patch = pytest.MonkeyPatch()
    patch.setattr(live_page, "Page", KeptPage)
    patch.setattr(live_server, "LEFT_AFTER_MS", left_after_ms)
    patch.setattr(live, "FLOOR_DRAWS", 3)
    found, ready, loops = [], threading.Event(), []

    async def serve():
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        server, address = live_server.start(q2_gan_lab.Config(live=True, **settings), SCRIPT)
        found.append(address)
        ready.set()
        await stop.wait()
        server.stop(wait=False)
        await asyncio.sleep(0.1)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        patch.undo()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(300, out=tmp_path_factory.mktemp("live") / "run", batch_size=16) as found:
        yield found


def answer(address, path, *headers, host=None):
    """Status and the rest of the answer to a request as it is written here."""
    port = urlsplit(address).port
    lines = [f"GET {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", "Connection: close", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        connection.settimeout(10)
        found = b""
        while b"\r\n\r\n" not in found and (part := connection.recv(4096)):
            found += part
    return int(found.split()[1]), found.decode(errors="replace")


UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def handshake(address, origin=None, host=None):
    """The status of a websocket's handshake, with a session token that the page itself would have."""
    token = pull_token(address)
    headers = [*UPGRADE, f"Sec-WebSocket-Protocol: bokeh, {token}"]
    if origin:
        headers.append(f"Origin: {origin}")
    return answer(address, urlsplit(address).path + "ws", *headers, host=host)[0]


def pull_token(address):
    from bokeh.util.token import generate_jwt_token, generate_session_id

    return generate_jwt_token(generate_session_id())


def test_it_listens_on_the_loopback_address_only(address):
    port = urlsplit(address).port
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("the sockets that listen are read from /proc")
    rows = [row.split() for row in table.read_text().splitlines()[1:]]
    listening = {row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    assert listening == {f"0100007F:{port:04X}"}
    six = Path("/proc/net/tcp6")
    assert not six.exists() or f":{port:04X} 00000000000000000000000000000000:0000 0A" not in six.read_text()


def test_the_path_cannot_be_guessed_and_nothing_leads_to_it(address):
    token = urlsplit(address).path.strip("/")
    assert len(token) >= 43  # 32 random bytes
    for path in (
        "/",
        "/ws",
        "/static/js/bokeh.min.js",
        "/report",
        "/metadata",
        "/autoload.js",
        "//",
        f"/x/../{token}x",
    ):
        status, text = answer(address, path)
        assert status == 404, path
        assert token not in text
        assert "location:" not in text.lower()
    assert answer(address, f"/{token}/")[0] == 200
    assert answer(address, f"/{token}/report")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil:1"]
)
def test_a_foreign_host_is_refused(address, host):
    host = host.format(port=urlsplit(address).port)
    assert answer(address, urlsplit(address).path, host=host)[0] == 403
    assert handshake(address, origin=f"http://{host}", host=host) == 403  # as of a rebound name
    assert handshake(address, host=host) == 403


def test_a_second_host_is_refused(address):
    assert answer(address, urlsplit(address).path, "Host: evil.example")[0] in (400, 403)


def test_a_foreign_origin_is_refused(address):
    port = urlsplit(address).port
    own = f"http://127.0.0.1:{port}"
    assert handshake(address, origin=own) == 101
    for origin in (
        "http://evil.example",
        f"http://evil.example:{port}",
        "null",
        f"https://127.0.0.1:{port}",
        own + "1",
    ):
        assert handshake(address, origin=origin) == 403, origin
    path = urlsplit(address).path
    assert answer(address, path, "Origin: http://evil.example")[0] == 403
    assert answer(address, path + "ws", *UPGRADE, f"Origin: {own}", "Origin: http://evil.example")[0] in (400, 403)


def test_the_page_asks_nobody_else(address):
    path = urlsplit(address).path
    port = urlsplit(address).port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert "cdn." not in text
    for quote in ('src="http', "src='http", 'href="http', 'url("http'):
        assert quote not in text


@contextmanager
def tab(address):
    """A tab without a browser: what was sent is done when `ask` returns."""
    session = pull_session(url=address.rstrip("/"))
    page = PAGES[-1]
    sent = [0]

    def ask(**what):
        sent[0] += 1
        session.document.get_model_by_name("command").value = json.dumps({**what, "n": sent[0]})
        session.force_roundtrip()
        eventually(lambda: page.obeyed == sent[0])
        return json.loads(page.state.value)

    try:
        yield page, ask
    finally:
        session.close()


def eventually(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_two_tabs_have_two_gans_and_a_closed_one_stops_and_is_dropped(address):
    with tab(address) as (first, ask), tab(address) as (second, _):
        assert first.lab is not second.lab
        ask(do="play")
        eventually(lambda: first.lab.iteration >= 8)
        assert second.lab.iteration == 0
        closed = []
        first.lab.close = lambda: closed.append(True)
    time.sleep(0.3)  # a frame may be on its way
    done = first.lab.iteration
    eventually(lambda: closed)
    assert first.lab.iteration == done


@pytest.mark.parametrize("asked, said", [
    ({"do": "turn", "name": "lr", "value": "1e9"}, "--lr: 1000000000.0 is not possible"),
    ({"do": "turn", "name": "lr", "value": "nan"}, "--lr: nan is not possible"),
    ({"do": "turn", "name": "out", "value": "/tmp"}, "'out' cannot be set here"),
    ({"do": "rm"}, "the page asked for something that there is not"),
    ({"do": "save"}, "save: nothing is trained yet"),
])  # fmt: skip
def test_what_is_not_possible_is_a_line_on_the_page(address, asked, said):
    with tab(address) as (page, ask):
        before = page.lab.config
        assert ask(**asked)["error"].startswith(said)
        assert page.lab.config == before
        assert ask(do="iteration")["error"] == ""
        assert page.lab.iteration == 1


def test_only_d_and_one_iteration_come_from_the_page(address):
    with tab(address) as (page, ask):
        generator = [p.clone() for p in page.lab.networks.generator.parameters()]
        assert ask(do="discriminator")["iteration"] == 0
        assert all(a.equal(b) for a, b in zip(generator, page.lab.networks.generator.parameters(), strict=True))
        assert ask(do="iteration")["iteration"] == 1
        assert ask(do="reset")["iteration"] == 0


def test_twenty_commands_are_obeyed_within_three_slow_frames(address):
    session = pull_session(url=address.rstrip("/"))
    page, frames = PAGES[-1], []
    page._train = lambda: frames.append(time.sleep(0.2))
    command = session.document.get_model_by_name("command")
    command.value = json.dumps({"do": "play", "n": 1})
    session.force_roundtrip()
    before = len(frames)
    for n in range(2, 22):
        command.value = json.dumps({"do": "turn", "name": "averaged", "value": "true", "n": n})
    session.force_roundtrip()
    assert page.obeyed == 21
    assert len(frames) - before <= 3
    session.close()


@pytest.mark.posix
def test_ctrl_c_ends_it_within_a_second_while_a_tab_trains(tmp_path):
    command = [sys.executable, "q2_gan_lab.py", "--live", "--no-browser", "--out", str(tmp_path / "run")]
    (tmp_path / "drawings").mkdir()
    here = {**os.environ, "TMPDIR": str(tmp_path / "drawings")}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=here)
    try:
        address = process.stdout.readline().split()[-1]
        assert address.startswith("http://127.0.0.1:")
        session = pull_session(url=address.rstrip("/"))
        session.document.get_model_by_name("command").value = json.dumps({"do": "play", "n": 1})
        session.document.get_model_by_name("drawing").data = {"xs": [[0.2, 0.8]], "ys": [[0.5, 0.5]]}
        session.force_roundtrip()
        eventually(lambda: list((tmp_path / "drawings").glob("*/target_0.csv")))
        began = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 130
        assert time.monotonic() - began < 1 + 2 * (os.getloadavg()[0] > os.cpu_count())  # a machine that is busy
        session.close()
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "run").exists()
    assert not list((tmp_path / "drawings").glob("q2_gan_lab_*"))


def test_no_script_imports_the_server_before_it_is_asked_for():
    scripts = "q1_divergences, q2_gan_lab, q3_vae_svm, q4_dcgan, q4_wgan_gp, evaluate, yardstick"
    asked = f"import {scripts}, sys; print(sorted({{'bokeh', 'tornado'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
