"""A disk that fills up in the middle of a commit, as a limit on the size of files."""

import subprocess
import sys
import textwrap

from rnn_pipeline.warehouse import Warehouse

FILL = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    import pandas as pd
    from rnn_pipeline.warehouse import Warehouse

    store = Warehouse(Path(sys.argv[1]))
    store.last_session()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = store.path.stat().st_size + 3_000_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rng = np.random.default_rng(0)
    for number in range(100):
        rows = pd.DataFrame({"fetch_id": [f"{number}-{n}" for n in range(20_000)]})
        rows["url"] = [str(value) for value in rng.random(20_000)]
        with store.batch() as batch:
            batch.append("raw_fetch", rows)
            batch.append("ingest_ledger", pd.DataFrame({"rows_in": [number]}))
        print(number, flush=True)
"""


def test_a_full_disk_costs_the_batch_under_way_and_no_other(tmp_path):
    store = Warehouse(tmp_path / "warehouse.duckdb")
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FILL), str(store.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode != 0, "the limit was never reached"
    acknowledged = [int(line) for line in process.stdout.split()]
    assert acknowledged
    ledger = store.read("SELECT rows_in FROM ingest_ledger ORDER BY 1")["rows_in"].tolist()
    assert ledger[: len(acknowledged)] == acknowledged
    assert len(store.rows("raw_fetch", "fetch_id")) == 20_000 * len(ledger)
    with store.batch() as batch:  # and where there is room again, it goes on
        batch.append("ingest_ledger", store.rows("ingest_ledger").head(1))
