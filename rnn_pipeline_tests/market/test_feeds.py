"""RSS and Atom feeds from a server on loopback."""

import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rnn_pipeline.market.feeds import FeedSource
from rnn_pipeline.market.sources import RateLimited, SourceUnavailable, UnknownTicker

from .tables import LATER, Market, counts

RSS = b"""<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel><title>Wire</title>
<item><guid>a1</guid><title>Acme &lt;b&gt;wins&lt;/b&gt; &amp;amp; pays</title>
<link>https://x.example/1</link>
<pubDate>Tue, 05 Mar 2024 09:30:00 -0500</pubDate>
<description>&lt;script&gt;x()&lt;/script&gt;</description></item>
<item><guid>a2</guid><title>No date</title></item>
<item><guid>a3</guid><title>From the future</title>
<pubDate>Tue, 05 Mar 2097 09:30:00 GMT</pubDate></item>
</channel></rss>"""
ATOM = b"""<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>Atoms</title>
<entry><id>urn:1</id><title>Acme opens a plant</title><updated>2024-03-06T10:00:00Z</updated>
<link href="https://y.example/1"/><summary>In Ohio</summary></entry></feed>"""
DAYS = (date(2024, 3, 1), date(2024, 3, 28))
MARK = "s3cr3t"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = {"/rss?s=ACME": (200, RSS), "/atom/ACME": (200, ATOM)}

    def address(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.server.pages.get(self.path, (404, b"nothing"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def source(server):
    return FeedSource([server.address("/rss?s={ticker}"), server.address("/atom/{ticker}")])


def test_several_feeds_are_one_answer(source):
    rows = source.parse_headlines(source.fetch_headlines("ACME", *DAYS), "ACME")
    dated = rows.dropna(subset="published_at").set_index("news_id")
    assert dated.loc["a1", "title"] == "Acme <b>wins</b> &amp; pays"
    assert dated.loc["a1", "published_at"].isoformat() == "2024-03-05T14:30:00+00:00"
    assert dated.loc["urn:1", ["provider", "summary", "url"]].tolist() == [
        "Atoms", "In Ohio", "https://y.example/1",
    ]  # fmt: skip
    assert set(rows["ticker"]) == {"ACME"}


def test_a_missing_and_a_future_date_wait_in_quarantine(source, tmp_path):
    market = Market(tmp_path, source)
    (line,) = market.news(LATER, tickers=["ACME"])
    assert counts(line) == (2, 0, 0, 2)
    assert sorted(market.store.rows("quarantine")["rule"]) == [
        "published_at_present",
        "published_in_future",
    ]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((429, b"slow down"), RateLimited, "HTTP 429"),
        ((500, b"oops"), SourceUnavailable, "HTTP 500"),
        ((200, b"<html><body>Sign in</body></html>"), SourceUnavailable, "not an RSS or Atom feed"),
    ],
)
def test_an_answer_that_is_no_feed_is_an_outage(server, source, answer, error, message):
    server.pages["/atom/ACME"] = answer
    with pytest.raises(error, match=message):
        source.fetch_headlines("ACME", *DAYS)


def test_nobody_there_is_one_line(server):
    with pytest.raises(SourceUnavailable, match="cannot be reached") as error:
        FeedSource(["http://127.0.0.1:9/{ticker}"]).fetch_headlines("ACME", *DAYS)
    assert "\n" not in str(error.value)


def test_a_hostile_ticker_is_never_sent_and_a_caret_is_quoted(server, source):
    with pytest.raises(UnknownTicker):
        source.fetch_headlines("../x", *DAYS)
    server.pages |= {"/rss?s=%5EGSPC": (200, RSS), "/atom/%5EGSPC": (200, ATOM)}
    assert len(source.parse_headlines(source.fetch_headlines("^GSPC", *DAYS), "^GSPC")) == 4


def test_a_key_in_an_address_is_sent_and_then_seen_nowhere(server, tmp_path, monkeypatch):
    mark = "k3y/that-must+not be seen"
    monkeypatch.setenv("NEWS_KEY", mark)
    server.pages["/rss?s=ACME&key=k3y%2Fthat-must%2Bnot%20be%20seen"] = (200, RSS)
    keyed = FeedSource([server.address("/rss?s={ticker}&key={NEWS_KEY}")])
    market = Market(tmp_path, keyed)
    (line,) = market.news(LATER, tickers=["ACME"])
    assert counts(line)[0] == 1
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"{NEWS_KEY}" in content for content in kept)
    assert not any(b"k3y" in content for content in kept)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/{ticker}?key={NEWS_KEY}",
        "{NEWS_KEY}://127.0.0.1/",
        "http://{NEWS_KEY}.invalid:port/",
        "/rss?s={ticker}&key={NEWS_KEY}",
    ],
    ids=["nobody there", "scheme", "port", "not found"],
)
def test_a_key_in_an_address_is_in_no_message(server, monkeypatch, address):
    monkeypatch.setenv("NEWS_KEY", MARK)
    source = FeedSource([server.address(address) if address[0] == "/" else address])
    with pytest.raises(SourceUnavailable, match=r"\{NEWS_KEY\}") as caught:
        source.fetch_headlines("ACME", *DAYS)
    assert MARK not in str(caught.getrepr(chain=True))


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NEWS_KEY", raising=False)
    with pytest.raises(SourceUnavailable, match="needs the environment variable NEWS_KEY"):
        FeedSource(["http://127.0.0.1:9/?key={NEWS_KEY}"]).fetch_headlines("ACME", *DAYS)
