"""What pages and servers elsewhere do with a browser that is signed in here: in a real Chromium.

The victim is an admin who has signed in by the form. The attacker has a server on another port of the same
host, to which browsers send the cookie as well, and a key of another project.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Error, Page, async_playwright

from tests.browser.chromium import ARGUMENTS, MISSING, chromium_path
from tests.prove.attacking.attack import Family
from tests.prove.attacking.field import API, Field
from tests.prove.attacking.http import call
from tests.prove.attacking.places import ATTACKER
from tests.prove.attacks.sign_ins import Headers, new_session

FAMILY = Family("browser")

LIMIT_S = 60.0
"""A browser takes seconds to start on a busy machine."""
WAIT_MS = 20_000
CANARY = "only-for-the-victim"

READS_AND_CHANGES = Path(__file__).with_name("another_port.js").read_text("utf-8")
"""What a page of another origin asks for; gives what it was told of."""


@dataclass
class Elsewhere:
    """The attacker's server, and the cookies that browsers have sent it. `answers` are whole, by path."""

    address: str = ""
    cookies: list[str] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.cookies += [line.partition(": ")[2] for line in lines if line.lower().startswith("cookie: ")]
        page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello"
        writer.write(self.answers.get(lines[0].split()[1], page))
        writer.close()

    def leads(self, path: str, location: str, *headers: str) -> None:
        """Lets a path of this server lead to that place."""
        lines = ["HTTP/1.1 302 Found", f"Location: {location}", *headers, "Content-Length: 0", "", ""]
        self.answers[path] = "\r\n".join(lines).encode()


@dataclass
class Scene:
    """The victim's page, at the list of runs, and the attacker's server."""

    field: Field
    page: Page
    elsewhere: Elsewhere

    @property
    def address(self) -> str:
        host, port = self.field.address
        return f"http://{host}:{port}"

    async def project(self) -> str:
        """The project that the victim's browser works in; empty where it is signed out."""
        return str(
            await self.page.evaluate(
                """async (me) => {
                    const proof = localStorage.getItem("runglass.proof") ?? "";
                    const answer = await fetch(me, { headers: { "X-Viewer-Proof": proof } });
                    const { org, project } = await answer.json();
                    return answer.ok ? `${org}/${project}` : "";
                }""",
                f"{API}/viewer/me",
            )
        )

    async def spender(self) -> Headers:
        """The attacker's key, of another project."""
        return [("Authorization", f"Bearer {self.field.seeded.keys['spend-admin']}")]


@asynccontextmanager
async def _scene(field: Field) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as opened:
        elsewhere = Elsewhere()
        server = await opened.enter_async_context(await asyncio.start_server(elsewhere.serve, "127.0.0.1", 0))
        elsewhere.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        playwright = await opened.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=chromium_path(), args=ARGUMENTS)
        opened.push_async_callback(browser.close)
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        scene = Scene(field, page, elsewhere)
        await page.goto(scene.address)
        await page.get_by_label("API key").fill(field.seeded.keys["admin"])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Sign out").wait_for()
        yield scene


async def _keys(field: Field) -> list[Any]:
    """The keys of the victim's project."""
    return list((await field.call("GET", "/keys", role="admin")).json().get("keys", []))


async def _run_with(field: Field, text: str) -> str:
    """A run of the victim's that has this text in it, and keeps it."""
    slug = await field.publish("kept", [{"id": "copy", "type": "passthrough"}], capture="full")
    return str((await field.execute(slug, {"message": text}, role="admin")).json()["executionId"])


def attack(play: Callable[[Scene], Awaitable[None]]) -> None:
    """Adds an attack, after which the project has the keys that it had, and which must come to its end."""

    async def strike(field: Field) -> None:
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

    name, about = play.__name__.replace("_", "-"), (play.__doc__ or "").split("\n")[0]
    FAMILY.add(name, about, strike, role="nobody", hurts_by_itself=True, limit_s=LIMIT_S)


@attack
async def cookie_replayed_by_another_port(scene: Scene) -> None:
    """A server on another port gets the cookie, and sends it again with each header but the proof."""
    page, field = scene.page, scene.field
    await page.goto(scene.elsewhere.address)
    cookie = next((each for each in scene.elsewhere.cookies if "runglass_session" in each), None)
    if cookie is None:
        field.complain("harness: the browser sent no cookie to the other port")
        return
    own = [("Cookie", cookie), ("Origin", scene.address), ("Sec-Fetch-Site", "same-origin")]
    theirs = dict(await new_session(field, await scene.spender()))["X-Viewer-Proof"]
    for proof in ([], [("X-Viewer-Proof", "")], [("X-Viewer-Proof", theirs)]):
        for method, path, body in (
            ("POST", "/keys", {"role": "admin"}),
            ("POST", "/viewer/session", None),
            ("POST", "/viewer/tickets", {"page": "/"}),
            ("DELETE", "/viewer/session", None),
            ("GET", "/viewer/me", None),
            ("GET", "/flow-runs", None),
            ("GET", "/flow-runs/stream", None),
        ):
            data = None if body is None else json.dumps(body).encode()
            answer = await call(field.address, method, f"{API}{path}", data, headers=[*own, *proof])
            field.tally[answer.status] += 1
            if answer.status != 401:
                field.complain(f"{method} {path} by a replayed cookie gave {answer.status}")
    await page.goto(scene.address)
    if await scene.project() != ATTACKER:
        field.complain("the replay has signed the victim out")


@attack
async def cookies_of_longer_paths(scene: Scene) -> None:
    """Another port sets cookies of the session's name for parts of our paths, which browsers send first."""
    name = f"runglass_session_{scene.field.address[1]}"
    for path in ("/api", "/api/v1", "/api/v1/viewer/me"):
        tossed = f"Set-Cookie: {name}=tossed; Path={path}; Max-Age=9999999; HttpOnly; SameSite=Strict"
        scene.elsewhere.leads("/toss", scene.address, tossed)
        await scene.page.goto(f"{scene.elsewhere.address}/toss")
    if await scene.project() != ATTACKER:
        scene.field.complain("cookies of another port hide the victim's session")


@attack
async def page_of_another_port(scene: Scene) -> None:
    """A page on another port reads and changes: by fetch, forms, frames, scripts, images and styles."""
    await scene.page.goto(scene.elsewhere.address)
    for done in await scene.page.evaluate(READS_AND_CHANGES, f"{scene.address}{API}"):
        scene.field.complain(f"a page of another port {done}")
    await scene.page.goto(scene.address)
    if await scene.project() != ATTACKER:
        scene.field.complain("a page of another port has signed the victim out")


@attack
async def led_to_a_ticket(scene: Scene) -> None:
    """A page elsewhere leads to a ticket of the attacker's, so that the victim would work in his project."""
    page, field = scene.page, scene.field
    key = await scene.spender()
    for way in ("302", "link"):
        asked = await call(field.address, "POST", f"{API}/viewer/tickets", b"{}", headers=key)
        ticket = f"{scene.address}{asked.json()['path']}"
        scene.elsewhere.leads("/lead", ticket)
        await page.goto(scene.elsewhere.address)
        async with page.expect_navigation():
            await page.evaluate("(to) => { location = to; }", "/lead" if way == "302" else ticket)
        await page.goto(scene.address)
        if (found := await scene.project()) != ATTACKER:
            field.complain(f"led to a ticket by a {way}, the victim works in {found or 'nothing'}")


@attack
async def session_of_the_attacker(scene: Scene) -> None:
    """Another port sets the cookie of its own session, and leads to a page with the proof of it."""
    theirs = dict(await new_session(scene.field, await scene.spender()))
    there = f"{scene.address}/#proof={theirs['X-Viewer-Proof']}"
    scene.elsewhere.leads("/lead", there, f"Set-Cookie: {theirs['Cookie']}; Path=/")
    await scene.page.goto(f"{scene.elsewhere.address}/lead")
    await scene.page.locator("main").wait_for()
    if found := await scene.project():
        scene.field.complain(f"the victim works in {found}")
    if scene.page.url != f"{scene.address}/":
        scene.field.complain("the proof stays in the address")


@attack
async def back_after_sign_out(scene: Scene) -> None:
    """Whoever has the browser after a sign-out goes back, forward, loads anew, and looks into the cache."""
    page, field = scene.page, scene.field
    run = await _run_with(field, CANARY)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    await page.goto(f"{scene.address}/runs/{run}")
    await page.get_by_text(CANARY).first.wait_for()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_label("API key").wait_for()
    for move in (page.go_back, page.go_forward, page.reload):
        await move()
        await page.get_by_label("API key").wait_for()
        if CANARY in await page.content():
            field.complain(f"the run is shown after {move.__name__}")
    kept = await page.evaluate(
        """async (urls) => {
            const kept = [];
            for (const url of urls) {
                const how = { cache: "only-if-cached", mode: "same-origin" };
                if (await fetch(url, how).then((answer) => answer.ok, () => false)) kept.push(url);
            }
            return kept;
        }""",
        [url for url in asked if API in url],
    )
    for url in kept:
        field.complain(f"the browser has kept {url}")


@attack
async def answers_as_pages(scene: Scene) -> None:
    """Hostile text is opened by itself: answers of the API, an error, a stream, a page that names it."""
    page, field = scene.page, scene.field
    text = f"<script>window.attacked = 1</script>{CANARY}"
    run = await _run_with(field, text)
    for path in (
        f"{API}/flow-runs/{run}/trace",
        f"{API}/flow-runs/{run}/export",
        f"{API}/flow-runs/{run}/trace/stream",
        f"{API}/flow-runs/{run}/steps/copy/payload",
        f"{API}/flow-runs/{text}",
        f"/{text}",
        f"/runs/{text}",
        f"/?ticket=used&q={text}",
    ):
        await page.goto(f"{scene.address}{path}")
        if await page.evaluate("'attacked' in window"):
            field.complain(f"{path[:60]} is executed")
        if run in path and CANARY in await page.content():
            field.complain(f"{path[:60]} is shown to who has the cookie alone")


@attack
async def page_of_the_api(scene: Scene) -> None:
    """The page that describes the API sends what it is asked to without the cookie, and runs nothing else."""
    page, field = scene.page, scene.field
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if API in request.url else None)
    await page.goto(f"{scene.address}/docs")
    call = page.locator("details", has=page.get_by_text(f"{API}/viewer/me", exact=True))
    await call.locator("summary").click()
    async with page.expect_response(f"**{API}/viewer/me") as answered:
        await call.get_by_role("button", name="Send").click()
    if (status := (await answered.value).status) != 401:
        field.complain(f"without a key the page of the API is answered {status}")
    if any(["cookie" in await each.all_headers() for each in sent]):
        field.complain("the page of the API sends the cookie")
    await page.evaluate(
        """() => {
            const script = document.createElement("script");
            try {
                script.text = "attacked = 1";
                document.body.append(script);
            } catch {
                // Text is no script here.
            }
        }"""
    )
    if await page.evaluate("'attacked' in window"):
        field.complain("the page of the API runs a script that was added to it")
