"""A real pgbouncer before the PostgreSQL of the tests, with few connections, each for one transaction."""

import os
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.postgres_proxy import SOCKET
from tests.postgres_replication import SYSTEM_USER
from tests.postgres_server import postgres_server
from tests.waiting import eventually

CONNECTIONS = 4
"""To each database: fewer than one store takes, so that its transactions wait for each other's."""
MISSING = "pgbouncer was not found; on Debian: apt-get install pgbouncer"


def pgbouncer_path() -> str | None:
    """The path of the pgbouncer of this machine, None where there is none."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Pooler:
    """A pgbouncer to all databases of the tests' server, until it is closed.

    It keeps no statements prepared, as others do: what works by way of it works with these as well.
    """

    def __init__(self) -> None:
        # Not below the folder of pytest, which the user that pgbouncer runs as may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="runglass-pooler-"))
        server = parse_qs(urlsplit(postgres_server().address("postgres")).query)["host"][0]
        self._settings = self._folder / "pgbouncer.ini"
        self._settings.write_text(
            f"""
[databases]
* = host={server} user=postgres
[pgbouncer]
pool_mode = transaction
default_pool_size = {CONNECTIONS}
unix_socket_dir = {self._folder}
listen_port = 5432
auth_type = any
max_prepared_statements = 0
max_client_conn = 500
logfile = {self._folder}/log
"""
        )
        if SYSTEM_USER is not None:
            shutil.chown(self._folder, SYSTEM_USER)
        self.start()

    def start(self) -> None:
        """Starts it, again after `kill`; returns when it takes connections."""
        program = pgbouncer_path()
        assert program is not None, MISSING
        self._process = subprocess.Popen(
            [program, "-q", self._settings], user=SYSTEM_USER, stderr=subprocess.DEVNULL
        )
        eventually(self._answers)

    def kill(self) -> None:
        """Ends it at once, and with it every connection."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends it and deletes its files."""
        self.kill()
        shutil.rmtree(self._folder)

    def address(self, direct: str) -> str:
        """The address of the same database by way of the pooler."""
        return urlsplit(direct)._replace(query=f"host={self._folder}").geturl()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._folder / SOCKET)) == 0


@cache
def pooler() -> Pooler:
    """The pooler of this process, started when it is first asked for."""
    return Pooler()


def stop_pooler() -> None:
    if pooler.cache_info().currsize:
        pooler().close()
