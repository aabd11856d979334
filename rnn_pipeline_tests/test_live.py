"""Live data end to end: the command as a user runs it, its requests answered on loopback.

Nothing is patched. A proxy ends the TLS of Yahoo's hosts with a certificate of its own, as
corporate proxies do, and answers like Yahoo.
"""

import json
import os
import ssl
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rnn_pipeline.market.calendar import SessionCalendar
from rnn_pipeline.warehouse import Warehouse

from .market.yahoo_stand_in import Handler, chart, news, ok

HOSTS = (
    "fc.yahoo.com",
    "finance.yahoo.com",
    "query1.finance.yahoo.com",
    "query2.finance.yahoo.com",
)
TICKERS = ("ACME", "BOLT")
CALENDAR = SessionCalendar("XNYS")
LAST = CALENDAR.last_closed(pd.Timestamp.now(tz="UTC"))
SESSIONS = CALENDAR.sessions(LAST - pd.Timedelta(days=900), LAST)


def certificate(folder: Path) -> Path:
    """A self-signed certificate of all hosts, with its key, that clients are told to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "stand_in.pem"
    pem.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem


class Market:
    """Answers for two tickers, by the range that is asked for; ``asked`` holds the paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        rng = np.random.default_rng(0)
        self.closes = {
            ticker: 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(SESSIONS))))
            for ticker in TICKERS
        }

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        if parts.path == "/v1/test/getcrumb":
            return 200, b"crumb"
        if parts.path == "/xhr/ncp":
            return ok(news(*self._stories()))
        ticker = parts.path.rsplit("/", 1)[-1]
        if ticker not in self.closes:
            return 404, b"<html>no such page</html>"
        opens = (SESSIONS + pd.Timedelta(hours=9.5)).tz_localize("America/New_York")
        stamps = (opens.tz_convert("UTC") - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
        first, last = (int(query.get(f"period{n}", [d])[0]) for n, d in ((1, 0), (2, 2**40)))
        place = np.flatnonzero((stamps >= first) & (stamps < last))
        close = self.closes[ticker][place]
        quote = {
            "open": (close * 0.999).tolist(),
            "high": (close * 1.01).tolist(),
            "low": (close * 0.99).tolist(),
            "close": close.tolist(),
            "volume": [1000 + n for n in place.tolist()],
        }
        return ok(
            chart(
                ticker,
                timestamp=[int(stamp) for stamp in stamps[place]],
                events={},
                indicators={"quote": [quote], "adjclose": [{"adjclose": close.tolist()}]},
            )
        )

    def _stories(self):
        for number, day in enumerate(SESSIONS[-5:]):
            content = {
                "title": f"Profit rises for the {number + 2}th time",
                "pubDate": f"{day:%F}T15:00:00Z",
            }
            yield {"id": f"s{number}", "content": content}


class Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, market: Market, pem: Path) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.market = market
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(pem)


class Tunnel(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            with self.server.tls.wrap_socket(self.connection, server_side=True) as secure:
                Handler(secure, self.client_address, self.server.market)
        except OSError:
            pass  # the client went away
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def market():
    return Market()


@pytest.fixture
def run(market, tmp_path):
    """The command line, in a process of its own, behind the proxy."""
    pem = certificate(tmp_path)
    trust = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), str(pem))
    settings = tmp_path / "settings.toml"
    text = Path(__file__).with_name("settings.toml").read_text()
    settings.write_text(
        text.replace("start = 2010-06-01", f"start = {SESSIONS[0]:%F}")
        .replace('tickers = ["AAPL", "FB", "MSFT"]', f"tickers = {json.dumps(TICKERS)}")
        .replace("start =", 'source = "yahoo"\nstart =', 1)
    )
    with Proxy(market, pem) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        environment = {
            **os.environ,
            **trust,
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), address),
            "RNN_PIPELINE_SETTINGS_FILE": str(settings),
            "RNN_PIPELINE_DATA_DIR": str(tmp_path / "data"),
        }

        def command(*arguments: str) -> subprocess.CompletedProcess:
            code = "from rnn_pipeline.cli import main; main()"
            return subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )

        yield command
        proxy.shutdown()


def test_from_yahoo_to_signals_for_two_tickers(run, market, tmp_path):
    first = run("demo")
    assert first.returncode == 0, first.stderr
    store = Warehouse(tmp_path / "data" / "yahoo" / "warehouse.duckdb")
    bars = store.bars(TICKERS)
    for ticker in TICKERS:
        mine = bars[bars["ticker"] == ticker]
        assert mine["session"].tolist() == SESSIONS.tolist()
        np.testing.assert_array_equal(mine["close"], market.closes[ticker])
        assert f"{ticker} {LAST:%F}" in " ".join(first.stdout.split())
    signals = store.rows("trading_signals")
    assert set(signals["ticker"]) == set(TICKERS)
    assert signals["session"].max() == LAST
    assert len(store.headlines(TICKERS)) == 5 * len(TICKERS)
    assert store.rows("ticker_status")["status"].tolist() == ["ok", "ok"]
    assert any("/v8/finance/chart/ACME" in path for path in market.asked)
    # The warehouse is made anew from what was kept, without asking anyone.
    market.asked.clear()
    rebuilt = run("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert market.asked == []
    pd.testing.assert_frame_equal(store.bars(TICKERS), bars, check_exact=True)
