from pathlib import Path

import pandas as pd
import pytest

from rnn_pipeline.settings import TradingSpec
from rnn_pipeline.trading.orders import ORDER_COLUMNS, orders, read_holdings

SPEC = TradingSpec(account=10_000, min_order=50)


def decided(**weights: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "ticker": list(weights),
            "session": pd.Timestamp("2020-01-02"),
            "position": list(weights.values()),
            "reason": "So it is.",
        }
    )


def closes(**prices: float) -> pd.DataFrame:
    return pd.DataFrame({"ticker": list(prices), "close": list(prices.values())})


def held(**shares: float) -> pd.DataFrame:
    return pd.DataFrame({"ticker": list(shares), "shares": list(shares.values()), "price": None})


def told(frame: pd.DataFrame) -> list[tuple[str, str, float, float]]:
    rows = frame[["ticker", "side", "shares", "notional"]]
    return list(rows.itertuples(index=False, name=None))


def test_orders_from_nothing_by_hand() -> None:
    found = orders(decided(A=0.25, B=-0.1, C=0.0), closes(A=30, B=7, C=1), SPEC)
    assert tuple(found.columns) == ORDER_COLUMNS
    # 2,500 buy 83 shares at 30 and 1,000 short 142 at 7; both are rounded towards zero.
    assert told(found) == [("A", "BUY", 83, 2490), ("B", "SELL", 142, 994)]
    assert found["target_shares"].tolist() == [83, -142]
    assert found["reason"][0] == (
        "Buy 83 at about 30.00: from 0 to 83 shares, +25.0 % of the account. So it is."
    )


def test_orders_go_from_what_is_held_to_the_target() -> None:
    weights, prices = decided(A=0.25, B=-0.1, C=0.0, D=0.3), closes(A=100, B=10, C=20, D=100)
    found = orders(weights, prices, SPEC, held(A=40, B=50, C=-1, D=30, Z=7))
    assert told(found) == [
        ("A", "SELL", 15, 1500),
        ("B", "SELL", 150, 1500),
        # Too small to open, but a position is closed whatever it is worth.
        ("C", "BUY", 1, 20),
    ]


def test_small_orders_are_left_out() -> None:
    near = held(A=24)
    assert orders(decided(A=0.25), closes(A=100), SPEC, held(A=25)).empty
    assert told(orders(decided(A=0.25), closes(A=100), SPEC, near)) == [("A", "BUY", 1, 100)]
    dear = SPEC.model_copy(update={"min_order": 101})
    assert orders(decided(A=0.25), closes(A=100), dear, near).empty


def test_lots_and_fractions() -> None:
    lots = SPEC.model_copy(update={"lot": 10})
    assert told(orders(decided(A=0.25), closes(A=30), lots)) == [("A", "BUY", 80, 2400)]
    parts = SPEC.model_copy(update={"lot": 0.1})
    (order,) = orders(decided(A=0.25), closes(A=30), parts).itertuples()
    assert order.shares == pytest.approx(83.3)
    # 0.29 of the account is 29 shares, though 0.29 * 10,000 / 100 is a little less.
    assert told(orders(decided(A=0.29), closes(A=100), SPEC)) == [("A", "BUY", 29, 2900)]


def test_a_price_in_the_holdings_comes_before_the_close(tmp_path: Path) -> None:
    path = tmp_path / "holdings.csv"
    path.write_text("ticker, shares, price\n a ,10,50\nB,0,\n")
    found = orders(decided(A=0.25, B=0.25), closes(A=100, B=100), SPEC, read_holdings(path))
    assert told(found) == [("A", "BUY", 40, 2000), ("B", "BUY", 25, 2500)]


def test_holdings_without_prices_are_read(tmp_path: Path) -> None:
    path = tmp_path / "holdings.csv"
    path.write_text("ticker,shares\nAAPL,10\nmsft,-2.5\n")
    frame = read_holdings(path)
    assert frame[["ticker", "shares"]].values.tolist() == [["AAPL", 10], ["MSFT", -2.5]]
    assert frame["price"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ticker,number\nA,1\n", "lack the columns shares"),
        ("ticker,shares\nA,many\n", "row 1 has shares that are no number"),
        ("ticker,shares\nA,1\nB,\n", "row 2 has shares that are no number"),
        ("ticker,shares\nA,1\na,2\n", "row 2 has a ticker that stands twice"),
        ("ticker,shares\n,1\n", "row 1 has no ticker"),
        ("ticker,shares,price\nA,1,0\n", "row 1 has a price that is no positive number"),
        ("ticker,shares,price\nA,1,x\n", "row 1 has a price that is no positive number"),
        ("", "cannot be read as CSV"),
    ],
)
def test_wrong_holdings_are_named_by_file_and_row(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "holdings.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_holdings(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_holdings(tmp_path / "none.csv")


def test_a_ticker_without_a_price_is_named() -> None:
    with pytest.raises(ValueError, match="B has no price"):
        orders(decided(A=0.1, B=0.1), closes(A=1), SPEC)
