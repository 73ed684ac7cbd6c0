"""What a run says while it works."""

from __future__ import annotations

from boneage_ray import storage
from boneage_ray.runtime import progress
from boneage_ray.runtime.progress import LISTED, PartsProgress, announced


def line(size, **counts):
    return {"target": "t", "size": size, "bytes": 2_000_000 * size, **counts}


def test_rates_what_failed_who_works_and_the_time_that_is_left(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with PartsProgress("score", str(tmp_path), done=1000) as said:
        now[0] = 20.0
        said.came(line(8), 8, "n1/7")
        assert said.text() == "1 worker", "one part has no rate"
        now[0] = 30.0
        said.came(line(100, reasons={"truncated": 2, "blank": 1}), 100, "n2/7")
        assert (
            said.text() == "10.0 files/s, 20.0 MB/s; 3 refused or failed (truncated 2, blank 1); 2 workers on 2 nodes"
        )
        list(announced(lambda: iter([{"line": {"listed": 9, "inputs": 13_108}}]), str(tmp_path)))
        now[0] = 40.0
        said.came(line(100), 100, "n2/8")
        assert said.text().startswith("10.0 files/s, 20.0 MB/s, about 20 min left; 3 refused")
        assert said.text().endswith("3 workers on 2 nodes")
        assert (said.bar.done, said.bar.total) == (1208, 13_108)
    assert not storage.exists(storage.join(str(tmp_path), LISTED))


def test_the_rows_of_a_listing_pass_and_only_its_end_is_announced(tmp_path):
    rows = [{"target": "a", "size": 1}, {"line": {"listed": 1, "inputs": 1}}]
    passing = announced(lambda: iter(rows), str(tmp_path))
    assert next(passing) == rows[0]
    assert not (tmp_path / LISTED).exists()
    assert list(passing) == rows[1:]
    assert storage.read_json(storage.join(str(tmp_path), LISTED)) == {"inputs": 1}


def test_a_part_that_an_update_wrote_anew_counts_as_work_but_not_twice(tmp_path):
    with PartsProgress("score", str(tmp_path), done=64) as said:
        said.listed(64)
        said.came(line(64), 0, "n/1")
        assert (said.done, said.bar.total) == (64, 64)
