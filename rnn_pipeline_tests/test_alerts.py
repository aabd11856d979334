"""Alerts against a real mail server and a real HTTP server on this machine."""

import json
import logging
import socket
import threading
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from rnn_pipeline.alerts import Alert, deliver, hooks_of, recall
from rnn_pipeline.settings import AlertSpec, SettingsError, load_settings

NOW = datetime(2024, 5, 6, 12, tzinfo=UTC)
STALE = Alert("bars", "error", "AAPL has no bar", "Its newest is of Friday.", "rnn-pipeline x")
OLD = Alert("models", "warning", "the networks are old")


class Inbox:
    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((session.auth_data, message_from_bytes(envelope.content)))
        return "250 OK"


@pytest.fixture
def mail():
    def login(server, session, envelope, mechanism, data):
        return AuthResult(success=data.password == b"hunter2", auth_data=data.login)

    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        inbox.port = free.getsockname()[1]
    server = Controller(
        inbox,
        hostname="127.0.0.1",
        port=inbox.port,
        authenticator=login,
        auth_require_tls=False,
    )
    server.start()
    yield inbox
    server.stop()


@pytest.fixture
def receiver():
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers, json.loads(body)))
            self.send_response(self.server.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.answer = 200
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.received = received
    server.address = f"http://127.0.0.1:{server.server_port}/hook?key=s3cret"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_that_is_new_comes_in_one_mail(mail, tmp_path):
    spec = AlertSpec(
        email_to=("a@example.org", "b@example.org"), smtp_host="127.0.0.1", smtp_port=mail.port
    )
    environment = {"RNN_PIPELINE_SMTP_USER": "me", "RNN_PIPELINE_SMTP_PASSWORD": "hunter2"}
    found = deliver([STALE, OLD], hooks_of(spec, environment), tmp_path / "memory", NOW)
    assert found.failed == {}
    ((login, message),) = mail.messages
    assert login == b"me"
    assert message["Subject"] == "[rnn-pipeline] error: AAPL has no bar and 1 more"
    assert message["From"] == "a@example.org"
    assert message["To"] == "a@example.org, b@example.org"
    text = message.get_payload()
    assert "Its newest is of Friday. Run: rnn-pipeline x" in text
    assert "warning: the networks are old." in text


def test_a_webhook_gets_json_and_the_token_of_the_environment(receiver, tmp_path):
    spec = AlertSpec(webhook=receiver.address)
    hooks = hooks_of(spec, {"RNN_PIPELINE_WEBHOOK_TOKEN": "t0ken"})
    assert deliver([STALE], hooks, tmp_path / "memory", NOW).told["webhook"] == ["bars"]
    ((headers, body),) = receiver.received
    assert headers["Authorization"] == "Bearer t0ken"
    assert body["text"].startswith("[rnn-pipeline] error: AAPL has no bar\n")
    assert body["alerts"] == [
        {
            "key": "bars",
            "severity": "error",
            "title": "AAPL has no bar",
            "text": "Its newest is of Friday.",
            "command": "rnn-pipeline x",
        }
    ]


def test_a_hook_of_ones_own_is_given_what_is_new_and_its_secrets_stay_its_own(
    receiver, tmp_path, monkeypatch, caplog
):
    (tmp_path / "my_pager.py").write_text(
        "import json, urllib.request\n"
        "def page(alerts):\n"
        "    body = json.dumps([alert.title for alert in alerts]).encode()\n"
        f"    urllib.request.urlopen({receiver.address!r}, body, timeout=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    hooks = hooks_of(load_settings(alerts={"hooks": ["my_pager:page"]}).alerts, {})
    memory = tmp_path / "memory"
    assert deliver([STALE, OLD], hooks, memory, NOW).told["my_pager:page"] == ["bars", "models"]
    assert [body for _, body in receiver.received] == [[STALE.title, OLD.title]]
    receiver.answer = 500
    with caplog.at_level(logging.WARNING):
        found = deliver([STALE], hooks, memory, NOW + timedelta(days=1))
    assert found.failed == {"my_pager:page": "HTTPError"}
    assert "s3cret" not in caplog.text + memory.read_text()
    with pytest.raises(SettingsError, match=r"setting alerts\.hooks = .*'pager' is no function"):
        load_settings(alerts={"hooks": ["pager"]})


def test_the_same_is_told_once_a_day(receiver, tmp_path):
    hooks = hooks_of(AlertSpec(webhook=receiver.address), {})
    memory = tmp_path / "folder" / "memory.json"
    deliver([STALE], hooks, memory, NOW)
    assert deliver([STALE], hooks, memory, NOW + timedelta(hours=3)).told == {}
    later = deliver([STALE, OLD], hooks, memory, NOW + timedelta(hours=4))
    assert later.told == {"log": ["models"], "webhook": ["models"]}
    tomorrow = deliver([STALE], hooks, memory, NOW + timedelta(days=1))
    assert tomorrow.told["webhook"] == ["bars"]
    assert len(receiver.received) == 3


def test_a_hook_that_fails_stops_nobody_is_written_down_and_tried_again(receiver, tmp_path, caplog):
    receiver.answer = 500
    memory = tmp_path / "memory"
    spec = AlertSpec(webhook=receiver.address, email_to=("a@example.org",), smtp_port=1)
    with caplog.at_level(logging.WARNING):
        found = deliver(
            [STALE], hooks_of(spec, {"RNN_PIPELINE_WEBHOOK_TOKEN": "t0ken"}), memory, NOW
        )
    assert found.told == {"log": ["bars"]}
    assert found.failed == {"email": "ConnectionRefusedError", "webhook": "HTTPError"}
    assert recall(memory)["failed"]["webhook"]["error"] == "HTTPError"
    for secret in ("s3cret", "t0ken"):
        assert secret not in caplog.text + memory.read_text()
    receiver.answer = 204
    assert deliver([STALE], hooks_of(spec, {}), memory, NOW).told == {"webhook": ["bars"]}
    assert set(recall(memory)["failed"]) == {"email"}


@pytest.mark.parametrize("content", ["", "[]", '{"told": 1}', '{"told": {"log": 1}, "failed": {}}'])
def test_a_damaged_memory_is_begun_anew(tmp_path, content):
    memory = tmp_path / "memory"
    memory.write_text(content)
    assert deliver([STALE], hooks_of(AlertSpec(), {}), memory, NOW).told == {"log": ["bars"]}


def test_secrets_are_taken_from_the_environment_and_shown_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("RNN_PIPELINE_SMTP_PASSWORD", "hunter2")
    settings = load_settings(alerts={"webhook": "https://example.org/s3cret"})
    assert "hunter2" not in repr(settings)
    assert "s3cret" not in repr(settings)
    for wrong in ({"smtp_password": "hunter2"}, {"webhook": ["s3cret"]}):
        with pytest.raises(SettingsError) as caught:
            load_settings(alerts=wrong)
        assert "setting alerts." in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "s3cret" not in str(caught.value)
