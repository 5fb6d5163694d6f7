"""The content of a run is on the disk where its capture mode keeps it, and nowhere else."""

from tests.prove.canary import MODES, WAYS, canary


def test_canaries_are_found_where_the_mode_keeps_them_and_nowhere_else() -> None:
    (told,) = canary()
    assert told.startswith(f"{len(WAYS)} ways in {len(MODES)} modes")
