"""Ctrl-C in the first moments of a command: exit code 130, and no traceback."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runglass.cli import end_at_once, interrupts, main
from runglass.cli.exit_codes import Exit
from tests.e2e.command import environment, hears_ctrl_c

LONG_S = 30.0

WRAPPED = """
import os, sys
{0}
from runglass.cli import main
os.write(1, b"x")
sys.exit(main())
"""
"""What the installed script does, telling when it begins: what comes before is Python's own."""


TELLING = 'File "<string>", line 5, in <module>\nKeyboardInterrupt\n'
"""How the script ends where it had told, on its fifth line, and a busy machine had not let it go on."""


def interrupted(after_s: float, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that is interrupted so long after it has begun."""
    tries = 10
    while (ended := _interrupted(after_s, *arguments, cwd=cwd))[2].endswith(TELLING) and tries:
        tries -= 1
    return ended


def _interrupted(after_s: float, *arguments: str, cwd: Path) -> tuple[int, str, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRAPPED.format(""), *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hears_ctrl_c,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=60)
    return process.returncode, shown.decode(), said.decode()


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--port", "0"], ["flow", "check", "a.yaml"], ["runs", "list", "--api-key", "nk_x"]],
)
def test_an_interrupt_at_any_moment_shows_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "a.yaml").write_text("slug: a\nsteps: [{id: a, type: passthrough}]\n")
    for delay_ms in range(10, 400, 60):
        code, shown, said = interrupted(delay_ms / 1000, *arguments, cwd=tmp_path)
        assert "Traceback" not in said, (delay_ms, said)
        assert "KeyboardInterrupt" not in said, (delay_ms, said)
        # A short command may have ended before. As Python itself ends, no handler is left: to a shell that is
        # 130 as well.
        ends = (Exit.INTERRUPTED, -signal.SIGINT, Exit.OK, Exit.UNREACHABLE, Exit.DENIED)
        assert code in ends, (delay_ms, said)
        if arguments[0] == "serve":
            # A server that is ready is told to stop by Ctrl-C, and has then done its work.
            assert code == (Exit.OK if "ready " in shown else Exit.INTERRUPTED), (delay_ms, said)


def test_an_interrupt_in_the_import_of_the_commands_ends_the_process(tmp_path: Path) -> None:
    # The moment is met for certain: whatever is imported behind `main` raises the signal.
    prelude = (
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click':\n"
        "            import signal; signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", WRAPPED.format(prelude), "--version"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        preexec_fn=hears_ctrl_c,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (Exit.INTERRUPTED, b"")


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runglass", "--version"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main() == Exit.OK
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_caller_s_own_handler_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == Exit.OK
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.startswith("runglass ")


def test_an_error_that_an_interrupt_was_turned_into_is_one() -> None:
    turned = RuntimeError("Error calling __set_name__")
    turned.__cause__ = KeyboardInterrupt()
    assert interrupts.is_interrupt(turned)
    assert not interrupts.is_interrupt(RuntimeError())


def test_an_interrupt_that_a_callback_swallowed_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Callback:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def swallowed() -> None:
        with interrupts.Interruptible():
            callback = Callback()
            del callback
            time.sleep(LONG_S)

    began_s = time.monotonic()
    handler, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
    signal.signal(signal.SIGINT, end_at_once)
    try:
        with pytest.raises(KeyboardInterrupt):
            swallowed()
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook
    assert capsys.readouterr().err == ""
    assert time.monotonic() - began_s < LONG_S, "it does not wait for what goes on to end"
