"""A title from a feed, on its two ways: to the words that a network sees, and to the page."""

import base64
from datetime import UTC, date, datetime

import pytest

from rnn_pipeline.features.text import Vocabulary, tokenise
from rnn_pipeline.market.feeds import FeedSource
from rnn_pipeline.market.ingest import Request, ingest_headlines
from rnn_pipeline.reporting.html import render_report
from rnn_pipeline.warehouse import PayloadStore, Warehouse

from .test_html import MakeReport, Page

TITLE = "<script>alert(1)</script> Acme &amp; Sons &lt;b&gt;rise&lt;/b&gt; <img src=x onerror=y()>"
PLAIN = "Acme & Sons rise"
RSS = f"""<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel><title>Wire</title>
<item><guid>a1</guid><title><![CDATA[{TITLE}]]></title><link>https://x.example/1</link>
<pubDate>Tue, 05 Mar 2024 09:30:00 -0500</pubDate></item></channel></rss>"""


@pytest.mark.usefixtures("undrawn")
def test_markup_is_stripped_for_networks_and_escaped_on_the_page(
    tmp_path, make_report: MakeReport
) -> None:
    feed = FeedSource([f"data:text/xml;base64,{base64.b64encode(RSS.encode()).decode()}"])
    store = Warehouse(tmp_path / "warehouse.duckdb")
    now = datetime(2024, 4, 1, tzinfo=UTC)
    request = Request(["ACME"], date(2024, 3, 1), date(2024, 3, 28), "run", lambda: now)
    ingest_headlines(store, PayloadStore(tmp_path / "payloads"), feed, request)
    headlines = store.headlines(["ACME"])
    assert headlines["title"].tolist() == [TITLE]  # kept as it came

    assert tokenise(TITLE) == tokenise(PLAIN) == ["acme", "sons", "rise"]
    vocabulary = Vocabulary.build([PLAIN, "alert img src"], max_vocab=100, min_freq=1)
    seen, _ = vocabulary.encode(headlines["title"].tolist(), max_len=20)
    assert seen.tolist() == vocabulary.encode([PLAIN], max_len=20)[0].tolist()

    html = render_report(make_report(["ACME"], headlines=headlines.assign(score=0.5)))
    page = Page(html)
    assert TITLE in page.words("td")
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
