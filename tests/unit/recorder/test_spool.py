"""The spool: bounded, taken over once its owner is gone, and read up to where it is torn."""

import os
from pathlib import Path

from runglass.client.core.connection import ServerConnection, endpoint
from runglass.recorder.spool import MOST_BYTES, Spool


def server(key: str = "nk_one") -> ServerConnection:
    return endpoint(api_key=key, base_url="http://127.0.0.1:9", timeout=None, max_retries=0)


def test_a_file_is_taken_over_once_when_its_owner_is_gone(tmp_path: Path) -> None:
    owner, other, stranger = (Spool(tmp_path, server(key)) for key in ("nk_one", "nk_one", "nk_two"))
    assert owner.write(b"first")
    assert owner.write(b"second")
    assert list(other.bodies()) == []
    owner.let_go()
    assert list(stranger.bodies()) == []
    assert list(other.bodies()) == [b"first", b"second"]
    assert list(tmp_path.iterdir()) == []


def test_a_torn_end_costs_no_more_than_itself(tmp_path: Path) -> None:
    owner = Spool(tmp_path, server())
    owner.write(b"first")
    owner.write(b"second")
    owner.let_go()
    [path] = tmp_path.iterdir()
    os.truncate(path, path.stat().st_size - 1)
    assert list(Spool(tmp_path, server()).bodies()) == [b"first"]


def test_all_files_together_are_bounded(tmp_path: Path) -> None:
    body = b"x" * (MOST_BYTES // 8)
    spools = [Spool(tmp_path, server(f"nk_{number}")) for number in range(9)]
    assert [spool.write(body) for spool in spools] == [True] * 7 + [False] * 2
    for spool in spools:
        spool.let_go()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= MOST_BYTES


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not Spool(tmp_path / "file" / "spool", server()).write(b"a")
