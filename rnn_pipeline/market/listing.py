"""Whether an answer is about the listing whose bars are stored: its currency and its time zone.

A ticker can come to mean another listing, or a source can change the unit that it quotes in (pounds
instead of pence). No bar shows it, and one history of both would be wrong in every return across
the seam. So such an answer waits in quarantine; releasing its rows is how a person accepts it.
"""

from __future__ import annotations

import pandas as pd

from rnn_pipeline.market.quality import Verdict
from rnn_pipeline.warehouse import Batch

#: The rule by which each column of :data:`LISTING_COLUMNS` is compared.
_RULES = {"currency": "same_currency", "time_zone": "same_time_zone"}


def part_strangers(batch: Batch, verdict: Verdict, lines: pd.DataFrame) -> Verdict:
    """Call the rows of answers bad whose currency or time zone is not that of the stored rows.

    What is stored is what the newest row that was taken in came with. An answer that does not say,
    as those of files and of the sample, contradicts nothing.

    Args:
        batch: the transaction that the rows belong to.
        verdict: parted bars, each with its answer's ``place``.
        lines: place, ticker, currency and time_zone of the answers.
    """
    if lines[list(_RULES)].isna().all(axis=None):
        return verdict
    known = batch.read(
        "SELECT ticker, arg_max(currency, known_at) AS currency,"
        "       arg_max(time_zone, known_at) AS time_zone"
        " FROM (SELECT * FROM raw_ohlcv WHERE list_contains(?, ticker))"
        " JOIN raw_fetch USING (fetch_id, ticker) GROUP BY ticker",
        [lines["ticker"].tolist()],
    ).set_index("ticker")
    told = lines.join(known, on="ticker", rsuffix="_known")
    broken: dict[int, list[str]] = {}
    for column, rule in _RULES.items():
        differs = told[column].notna() & told[f"{column}_known"].notna()
        differs &= told[column] != told[f"{column}_known"]
        for place in told.loc[differs, "place"]:
            broken.setdefault(place, []).append(rule)
    good, bad = verdict.good, verdict.bad
    strange = good["place"].isin(broken)
    strangers = good[strange].assign(rule="")[bad.columns]
    bad = pd.concat([rows for rows in (bad, strangers) if len(rows)] or [bad]).sort_index()
    rules = [
        "; ".join(filter(None, [row.rule, *broken.get(row.place, [])])) for row in bad.itertuples()
    ]
    return Verdict(good[~strange], bad.assign(rule=rules), verdict.summary)
