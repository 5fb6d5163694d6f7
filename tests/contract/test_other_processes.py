"""Servers that leave the execution of runs to other processes on the same database."""

import pytest

from runglass.settings import SettingsError
from runglass.testing import running_server


def test_a_server_on_a_file_of_its_own_must_execute_runs() -> None:
    with pytest.raises(SettingsError, match="executes_runs"), running_server(executes_runs=False):
        pytest.fail("it started")
