"""Whatever way a run takes, its content is where its capture mode keeps it and nowhere else on the disk."""

from tests.prove.canary import MODES, WAYS, canary


def test_canaries_are_found_where_the_mode_keeps_them_and_nowhere_else() -> None:
    table = canary()
    assert len(table) == 2 + sum(map(len, WAYS.values()))
    assert table[0].split() == ["way", "place", *MODES]
