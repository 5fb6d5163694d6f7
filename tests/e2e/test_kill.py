"""A server that is killed in the middle of everything loses nothing that it has said."""

from tests.prove.kill import kill


async def test_a_killed_server_keeps_its_word() -> None:
    report = await kill(kills=8, seed=1)
    assert report[0].startswith("8 kills")
