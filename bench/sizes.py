"""How much work each figure is measured on: the sizes that count, and tiny ones that only show it works."""

import msgspec


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one run of the bench. `rounds` is how often each side of a figure is measured."""

    rounds: int = 5
    trace_steps: int = 10_000
    long_trace_steps: int = 100_000
    small_trace_steps: int = 20
    stream_events: int = 100_000
    frame_bytes: int = 8 << 20
    steps_alone: int = 1000
    steps_at_once: int = 4000
    """In all, over the runs that go on at once."""
    runs_at_once: tuple[int, ...] = (20, 200)
    workers: tuple[int, ...] = (1, 2, 4)
    queued_steps: int = 3000
    """In all, over the runs that workers take from one queue."""
    queued_runs: int = 100_000
    claims: int = 100
    claimers: tuple[int, ...] = (1, 4)
    server_tails: tuple[tuple[int, int], ...] = ((2, 40), (1000, 10))
    """So many over two servers, and how many events a second come on the run that they follow."""
    wake_ups: int = 100
    flood_runs: int = 50_000
    jobs: int = 10
    requests: int = 5000
    calls: int = 300
    tails: tuple[int, ...] = (1, 100)
    tail_events: int = 3000
    tail_rate: int = 1000
    many_tails: int = 500
    many_runs: int = 500
    written_steps: int = 1000
    spans: tuple[int, ...] = (1_000, 10_000, 100_000)
    recorded_steps: int = 5_000
    growth_steps: int = 50_000
    growth_rounds: int = 5
    listed_runs: int = 200_000
    viewer_steps: tuple[int, ...] = (100_000,)
    wheels: int = 300
    """Turns of the wheel from the beginning of a list to its end."""
    followed_s: float = 5
    page_spans: int = 10_000


LONG = Sizes(
    growth_steps=200_000,
    listed_runs=1_000_000,
    long_trace_steps=200_000,
    viewer_steps=(100_000, 1_000_000),
)
"""As the goals have it; takes several times as long."""

TINY = Sizes(
    rounds=1,
    trace_steps=60,
    long_trace_steps=120,
    stream_events=200,
    frame_bytes=64 << 10,
    steps_alone=20,
    steps_at_once=40,
    runs_at_once=(2,),
    workers=(2,),
    queued_steps=40,
    queued_runs=200,
    claims=4,
    claimers=(1, 2),
    server_tails=((4, 20),),
    wake_ups=8,
    flood_runs=1000,
    jobs=1,
    requests=40,
    calls=5,
    tails=(2,),
    tail_events=40,
    many_tails=5,
    many_runs=5,
    written_steps=20,
    spans=(60,),
    recorded_steps=50,
    growth_steps=500,
    growth_rounds=1,
    listed_runs=300,
    viewer_steps=(300,),
    wheels=5,
    followed_s=0.5,
    page_spans=100,
)
"""Every line of the bench once; its numbers mean nothing."""
