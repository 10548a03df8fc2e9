"""The bar of `compute`: its rate is that of the whole run so far."""

from math import nan
from types import SimpleNamespace
from typing import Any

import pytest
import rich.progress

from pullback.dask import _progress


@pytest.mark.parametrize("rows", [1_000, nan])
def test_rate_counts_from_the_start(rows: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now, rates = [0.0], []

    class Recorder(rich.progress.Progress):
        def __init__(self, *columns: Any, **options: Any) -> None:
            super().__init__(*columns, get_time=lambda: now[0], **options)

        def update(self, task_id: Any, **fields: Any) -> None:
            rates.append(fields["rate"])
            super().update(task_id, **fields)

    monkeypatch.setattr(rich.progress, "Progress", Recorder)
    blocks: Any = [SimpleNamespace(plan=SimpleNamespace(chunks=(rows,)))]
    with _progress.bar(blocks, progress=True) as show:
        show(0.0)
        now[0] = 10.0
        show(0.5)
        # Another thread ends its task at once.
        now[0] = 10.001
        show(0.6)
        now[0] = 20.0
    assert rates == (["", "50 rows/s", "60 rows/s", "50 rows/s"] if rows == 1_000 else [""] * 4)
