"""What pages and servers elsewhere do with a browser that is signed in here: in a real Chromium.

The victim is an admin who has signed in by the form. The attacker has a server on another port of the same
host, to which browsers send the cookie as well, and a key of another project. Replays of the cookie, tickets,
the page of the API and what a sign-out leaves are in `tests/contract/test_viewer.py` and `tests/browser`.

And browsers that sign in without end, by which those of others must not be signed out, and what a caller goes
on seeing after it was shut out. Keys made past the limit of a project's requests, and lines of a caller's in
the log, are in `tests/contract`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Error, Page, async_playwright

from tests.browser.chromium import ARGUMENTS, MISSING, chromium_path
from tests.http_server import Reply, answering
from tests.prove.attacking.attack import API, COPY, Family, Field
from tests.prove.attacking.http import ATTACKER, head

FAMILY = Family("browser")

LIMIT_S = 60.0
"""A browser takes seconds to start on a busy machine."""
WAIT_MS = 20_000
CANARY = "only-for-the-victim"
HELLO = Reply(200, {"Content-Type": "text/html"}, b"hello")

READS_AND_CHANGES = """
async (api) => {
  const loads = (name, from) => new Promise((yes, no) => {
    const made = Object.assign(document.createElement(name), { onload: () => yes(made), onerror: no });
    for (const [key, value] of Object.entries(from)) made[key] = value;
    document.body.append(made);
  });
  const unless = (is, what) => { if (is) throw new Error(what); };
  const headers = { "Content-Type": "application/json" };
  const body = '{"role": "admin"}';
  const sent = (path, how) => fetch(`${api}${path}`, { credentials: "include", ...how });
  const asks = {
    "reads": () => sent("/flow-runs").then((answer) => answer.text()),
    "sends a proof": () => sent("/flow-runs", { headers: { "X-Viewer-Proof": "x" } }),
    "sends JSON": () => sent("/keys", { method: "POST", body, headers }),
    "deletes": () => sent("/viewer/session", { method: "DELETE" }),
    "is told of a blind POST": () => sent("/keys", { method: "POST", mode: "no-cors", body })
      .then((answer) => unless(answer.type === "opaque", "opaque")),
    "has the proof": async () => unless(!localStorage.getItem("runglass.proof"), "none"),
    "loads a script": () => loads("script", { src: `${api}/flow-runs` }),
    "loads an image": () => loads("img", { src: `${api}/flow-runs` }),
    "loads a style": () => loads("link", { rel: "stylesheet", href: `${api}/flow-runs` }),
    "sees a frame": async () => {
      const frame = await loads("iframe", { src: api.replace("/api/v1", "/") });
      unless(!frame.contentDocument, "another origin");
    },
    "sees what came of a form": async () => {
      const frame = await loads("iframe", { name: "sent" });
      const form = document.createElement("form");
      Object.assign(form, { method: "post", enctype: "text/plain", action: `${api}/keys`, target: "sent" });
      // As plain text it is the JSON above, with one member more.
      const input = { name: '{"role": "admin", "x": "', value: '"}' };
      form.append(Object.assign(document.createElement("input"), input));
      document.body.append(form);
      const answered = new Promise((done) => { frame.onload = done; });
      form.submit();
      await answered;
      unless(!frame.contentDocument, "another origin");
    },
  };
  const done = [];
  for (const [name, ask] of Object.entries(asks)) await ask().then(() => done.push(name), () => {});
  return done;
}
"""
"""What a page of another origin asks for; gives what it was told of."""
PROJECT = """
async (me) => {
  const proof = localStorage.getItem("runglass.proof") ?? "";
  const answer = await fetch(me, { headers: { "X-Viewer-Proof": proof } });
  const { org, project } = await answer.json();
  return answer.ok ? `${org}/${project}` : "";
}
"""
"""The project that the victim's browser works in; empty where it is signed out."""


@dataclass
class Scene:
    """The victim's page, at the list of runs, and the attacker's server, which gives these `replies`."""

    field: Field
    page: Page
    address: str
    elsewhere: str
    replies: dict[str, Reply]

    async def led(self, location: str, cookie: str) -> None:
        """The victim goes to the attacker's server, which sets a cookie and leads elsewhere."""
        self.replies["/lead"] = Reply(302, {"Location": location, "Set-Cookie": cookie})
        await self.page.goto(f"{self.elsewhere}/lead")

    async def project(self) -> str:
        return str(await self.page.evaluate(PROJECT, f"{API}/viewer/me"))


@asynccontextmanager
async def _scene(field: Field) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as opened:
        replies: dict[str, Reply] = {}
        elsewhere = opened.enter_context(answering(lambda request: replies.get(request.path, HELLO)))
        playwright = await opened.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        opened.push_async_callback(browser.close)
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        scene = Scene(field, page, f"http://{field.host}", elsewhere, replies)
        await page.goto(scene.address)
        await page.get_by_label("API key").fill(field.keys["admin"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Sign out").wait_for()
        yield scene


async def _keys(field: Field) -> list[Any]:
    return list((await field.call("GET", "/keys", role="admin")).json().get("keys", []))


async def _played(field: Field, play: Callable[[Scene], Awaitable[None]]) -> None:
    """The project has the keys that it had, and the scene comes to its end."""
    if chromium_path() is None:
        field.complain(MISSING)
        return
    told = "the browser was not done in time"
    before = await _keys(field)
    try:
        async with _scene(field) as scene:
            await play(scene)
        told = ""
    except Error as error:
        told = f"harness: {error.message.splitlines()[0]}"
    finally:
        if told:
            field.complain(told)
    if not before or await _keys(field) != before:
        field.complain("a key was made or revoked")


async def cookies_of_longer_paths(scene: Scene) -> None:
    """Another port sets cookies of the session's name for parts of our paths, which browsers send first."""
    name = f"runglass_session_{scene.field.address[1]}"
    for path in ("/api", "/api/v1", "/api/v1/viewer/me"):
        tossed = f"{name}=tossed; Path={path}; Max-Age=9999999; HttpOnly; SameSite=Strict"
        await scene.led(scene.address, tossed)
    if await scene.project() != ATTACKER:
        scene.field.complain("cookies of another port hide the victim's session")


async def page_of_another_port(scene: Scene) -> None:
    """A page on another port reads and changes: by fetch, forms, frames, scripts, images and styles."""
    await scene.page.goto(scene.elsewhere)
    for done in await scene.page.evaluate(READS_AND_CHANGES, f"{scene.address}{API}"):
        scene.field.complain(f"a page of another port {done}")
    await scene.page.goto(scene.address)
    if await scene.project() != ATTACKER:
        scene.field.complain("a page of another port has signed the victim out")


async def session_of_the_attacker(scene: Scene) -> None:
    """Another port sets the cookie of its own session, and leads to a page with the proof of it."""
    theirs = dict(await new_session(scene.field, scene.field.headers("spend-admin")))
    there = f"{scene.address}/#proof={theirs['X-Viewer-Proof']}"
    await scene.led(there, f"{theirs['Cookie']}; Path=/")
    await scene.page.locator("main").wait_for()
    if found := await scene.project():
        scene.field.complain(f"the victim works in {found}")
    if scene.page.url != f"{scene.address}/":
        scene.field.complain("the proof stays in the address")


async def answers_as_pages(scene: Scene) -> None:
    """Hostile text is opened by itself: answers of the API, an error, a stream, a page that names it."""
    page, field = scene.page, scene.field
    text = f"<script>window.attacked = 1</script>{CANARY}"
    slug = await field.publish("kept", COPY, capture="full")
    run = str((await field.execute(slug, {"message": text}, role="admin")).json()["executionId"])
    for path in (
        *(
            f"{API}/flow-runs/{run}{part}"
            for part in ("/trace", "/export", "/trace/stream", "/steps/copy/payload")
        ),
        *(f"{API}/flow-runs/{text}", f"/{text}", f"/runs/{text}", f"/?ticket=used&q={text}"),
    ):
        await page.goto(f"{scene.address}{path}")
        if await page.evaluate("'attacked' in window"):
            field.complain(f"{path[:60]} is executed")
        if run in path and CANARY in await page.content():
            field.complain(f"{path[:60]} is shown to who has the cookie alone")


PLAYS = (cookies_of_longer_paths, page_of_another_port, session_of_the_attacker, answers_as_pages)
SCENES = {play.__name__.replace("_", "-"): play for play in PLAYS}
FAMILY.each("nobody", _played, SCENES, hurts_by_itself=True, limit_s=LIMIT_S)


LEAKS = Family("leaks")

STREAMS = 250
GONE_S = 2.5
"""Within which a revoked key's streams must end: a second, and room for a busy machine."""


@LEAKS.attack("admin", leaves_work=True)
async def streams_of_a_revoked_key(field: Field) -> None:
    made = (await field.call("POST", "/keys", {"role": "read"})).json()
    field.keys["made"] = str(made.get("key"))
    run_id = await field.job("hold")
    field.role = "made"
    streams = await field.streams(f"/flow-runs/{run_id}/trace/stream", STREAMS)
    await field.call("DELETE", f"/keys/{made.get('id')}", role="admin")
    # Without any stream the harness says that the attack broke.
    _, left = await asyncio.wait(
        [asyncio.create_task(stream.read_all()) for stream in streams], timeout=GONE_S
    )
    if left:
        field.complain(
            f"{len(left)} of {len(streams)} streams go on {GONE_S:g} s after their key was revoked"
        )


SIGN_INS = Family("sign-ins")

KEYS = 120

Headers = Sequence[tuple[str, str]]


async def _many_keys(field: Field) -> Sequence[Headers]:
    made = await field.together(KEYS, lambda _: field.call("POST", "/keys", {"role": "read"}, role="admin"))
    keys = [[("Authorization", f"Bearer {each.json()['key']}")] for each in made if each.status == 201]
    if not keys:
        field.complain("no key could be made")
    return keys


async def new_session(field: Field, headers: Headers) -> Headers:
    headers = [*headers, ("Content-Length", "0")]
    _, given = await field.raw(head("POST", f"{API}/viewer/session", host=field.host, headers=headers))
    return [
        ("Cookie", given["set-cookie"].partition(";")[0]),
        ("X-Viewer-Proof", given["x-viewer-proof"]),
        ("Sec-Fetch-Site", "same-origin"),
    ]


@SIGN_INS.attack("admin")
async def sessions_without_end(field: Field) -> None:
    """400 sign-ins a second, by 120 keys in turns and by their sessions, and by keys that are none."""
    neighbours = await new_session(field, field.headers("quiet-run"))
    ways: list[Headers] = [*await _many_keys(field), [("Authorization", "Bearer nk_live_x")]]
    ways += [await new_session(field, way) for way in ways[:20]]
    await field.flood(
        lambda number: field.call("POST", "/viewer/session", role="nobody", headers=ways[number % len(ways)]),
        beside=16,
        per_s=400,
    )
    me = await field.call("GET", "/viewer/me", role="nobody", headers=neighbours)
    if me.status != 200:
        field.complain(f"the neighbour's browser is signed out: {me.status} {me.body[:100]!r}")


@SIGN_INS.attack("admin")
async def tickets_without_end(field: Field) -> None:
    """400 tickets a second, by 120 keys in turns, and guesses of others' tickets."""
    asked = await field.call(
        "POST", "/viewer/tickets", {"page": "/runs"}, role="quiet-run", source=field.address[0]
    )
    keys = await _many_keys(field)

    async def one(number: int) -> None:
        if number % 4:
            headers = keys[number % len(keys)]
            await field.call("POST", "/viewer/tickets", {"page": "/"}, role="nobody", headers=headers)
        else:
            await field.call("GET", f"/viewer/ticket/{number:043d}", role="nobody", below="")

    await field.flood(one, beside=16, per_s=400)
    _, answered = await field.raw(head("GET", asked.json()["path"], host=field.host), source=field.address[0])
    if not answered.get("location", "").startswith("/runs#proof="):
        field.complain(f"the neighbour's ticket leads to {answered.get('location')}")
