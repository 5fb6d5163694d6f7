"""The page of a run that goes on."""

from playwright.sync_api import Browser, expect

from runglass.testing import RunningServer, running_server
from tests.browser.visitor import Visitor, visiting
from tests.contract.wire import ENDLESS, cancel, start

ASKS = """
slug: asks
steps:
  - id: rounds
    type: loop
    over: list(range(500))
    steps:
      - {id: rest, type: wait, ms: 300}
      - {id: ask, type: llm, model: echo, prompt: one two three}
"""
COUNT_FRAMES = """() => {
    const { prototype } = CanvasRenderingContext2D;
    const clearRect = prototype.clearRect;
    window.frames_painted = 0;
    prototype.clearRect = function (...box) {
        window.frames_painted += 1;
        clearRect.apply(this, box);
    };
}"""


def test_a_run_is_painted_while_somebody_looks_and_no_longer(server: RunningServer, visitor: Visitor) -> None:
    server.push(ENDLESS)
    run_id = start(server, "endless")
    visitor.page.clock.install()
    page = visitor.open(f"/runs/{run_id}")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    page.evaluate(COUNT_FRAMES)
    page.wait_for_function("() => frames_painted >= 2")
    visitor.keys("u")
    expect(page.locator(f'a[data-run="{run_id}"]')).to_be_visible()
    page.evaluate("window.frames_painted = 0")
    page.clock.run_for(1000)
    assert page.evaluate("frames_painted") == 0
    cancel(server, run_id)


def test_tokens_add_up_while_somebody_looks(server: RunningServer, visitor: Visitor) -> None:
    server.push(ASKS)
    run_id = start(server, "asks")
    page = visitor.open(f"/runs/{run_id}")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    tokens = page.get_by_title("out, all attempts")
    first = tokens.inner_text()
    expect(tokens).not_to_have_text(first)
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    cancel(server, run_id)


def test_a_run_that_has_no_place_yet_says_what_it_waits_for(browser: Browser) -> None:
    with running_server(max_concurrent_runs=1) as server:
        server.push(ENDLESS)
        begun, waits = start(server, "endless"), start(server, "endless")
        with visiting(browser, server.address, server.key) as visitor:
            page = visitor.open(f"/runs/{waits}")
            said = page.get_by_text("Waiting for a process with a free slot")
            expect(said).to_be_visible()
            cancel(server, begun)
            expect(page.get_by_role("treeitem").first).to_be_visible()
            expect(said).to_have_count(0)
        cancel(server, waits)
