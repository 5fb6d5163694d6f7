"""What the processes of the harness share: names of what is seeded, and how they are started."""

import asyncio
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

NEIGHBOUR = "acme/quiet"
ATTACKER = "evil/room"
SPENDER = "evil/spender"
"""A second project of the attacker's, with a budget and models that cost."""
BANK = "evil/bank"
"""A third one, with much money and models of a provider that means harm."""
PROVIDER_KEY = "pk-5f0c2b7e91d84a63"
"""What the server shows a provider; no caller may ever see it."""


async def started(module: str, *arguments: str, nice: int = 0) -> asyncio.subprocess.Process:
    """A module of the harness as a process of its own, whose stdout is a pipe."""
    return await asyncio.create_subprocess_exec(
        *("nice", "-n", str(nice), sys.executable, "-m", f"tests.prove.attacking.{module}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
    )
