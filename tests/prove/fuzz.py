"""`prove fuzz`: whatever bytes come, the decoders of event streams and of OTLP do what their standards say.

Atheris follows the branches of the code. Streams out of pieces that meet in every way, which find what it
does not, are laws of the decoders, which `prove laws` tries. That the cost grows no faster than the size of a
frame is in `tests/gains`.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.sse_standard import PIECES
from tests.unit.recording.test_otlp import EVERYTHING, SPAN, TRACE, as_json, logs, span, traces

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-fuzz"
REQUIREMENTS = ROOT / "requirements" / "fuzz.txt"
INSTALL_S = 300


def fuzz(seconds: float = 60) -> list[str]:
    """A line for each decoder. Raises AssertionError, or what the decoder raised, with the input."""
    start = random.randrange(1_000_000)
    pieces = [b"\xff" * 9 + b"".join(PIECES)]
    return [
        _atheris("streams", seconds / 2, start, words=PIECES, corpus=pieces),
        _atheris("requests", seconds / 2, start, words=OTLP_WORDS, corpus=OTLP_REQUESTS),
    ]


SENT = (traces(EVERYTHING, span(2)), logs(trace_id=TRACE, span_id=SPAN, event_name="choice"))
OTLP_REQUESTS = [each.SerializeToString() for each in SENT] + [
    json.dumps(as_json(each)).encode() for each in SENT
]
OTLP_WORDS = [
    *(b"\x0a", b"\x12", b"\x0a\x10", b"\x12\x08", b"\x4a\x00", b"\x2a\x02\x0a\x00"),
    *(b'"traceId":', b'"attributes":[{"key":', b'"value":{"stringValue":', b'{"arrayValue":{"values":['),
]


def _atheris(
    what: str, seconds: float, start: int, *, words: Sequence[bytes], corpus: Sequence[bytes]
) -> str:
    try:
        python = _with_atheris()
    except subprocess.CalledProcessError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        return f"fuzz: atheris does not install for Python {version}: {error}"
    with tempfile.TemporaryDirectory(prefix="runglass-fuzz-") as name:
        dictionary, folder = Path(name) / "words", Path(name) / "corpus"
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
        dictionary.write_text("".join(f'"{word}"\n' for word in escaped))
        folder.mkdir()
        for number, each in enumerate(corpus):
            (folder / f"{number}").write_bytes(each)
        options = [f"-seed={start + 1}", f"-max_total_time={max(1, round(seconds))}", f"-dict={dictionary}"]
        options += [f"-artifact_prefix={name}/", "-print_final_stats=1", str(folder)]
        done = subprocess.run(
            [python, "-m", "tests.prove.fuzzing.target", what, *options],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 60,
            check=False,
        )
    report = done.stdout + done.stderr
    assert done.returncode == 0, f"fuzz: atheris, seed {start + 1}:\n{report[-5000:]}"
    tried = re.search(r"number_of_executed_units: ([1-9]\d*)", report)
    assert tried is not None, f"fuzz: atheris does not say that it tried anything:\n{report[-5000:]}"
    covered = re.findall(r"cov: (\d+)", report)[-1]
    return f"fuzz: atheris, seed {start + 1}: {tried[1]} {what}, {covered} branches reached; no difference"


def _with_atheris() -> Path:
    """An interpreter with atheris, which is no part of the other environments. Raises CalledProcessError."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / "ready"
    if not ready.exists() or ready.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        locked = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)]
        subprocess.run([*pip, *locked], check=True, timeout=INSTALL_S)
        ready.touch()
    return python
