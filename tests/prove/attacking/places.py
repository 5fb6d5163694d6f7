"""Names that the neighbour's small process shares with what seeds the data."""

from pathlib import Path

ROOT = Path(__file__).parents[3]

NEIGHBOUR = "acme/quiet"
ATTACKER = "evil/room"
SPENDER = "evil/spender"
"""A second project of the attacker's, with a budget and models that cost."""
BANK = "evil/bank"
"""A third one, with much money and models of a provider that means harm."""
