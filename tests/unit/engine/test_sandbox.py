"""What code in the sandbox gets, gives back and cannot do, and that the sandbox outlives all of it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runglass.config.settings import Settings
from runglass.engine.workers.code_transform import CODE_LIMIT, of_body, of_expression
from runglass.engine.workers.process import LONG_NICE, WORKER_NICE
from runglass.engine.workers.sandbox import PRINT_LIMIT, Sandbox
from runglass.engine.workers.sandbox_processes import PROJECTS_KEPT
from runglass.errors import StepFailure
from tests.waiting import until


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(Settings(code_time_limit_ms=60_000)) as sandbox:
        yield sandbox


async def failure(sandbox: Sandbox, code: str, **names: Any) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await sandbox.run(code, names)
    return caught.value


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("return", None),
        ("", None),
        ("# nothing", None),
        ("x = 1", None),
        ("'a value that is not returned'", None),
        ("if True: return 5; x = 2", 5),
        ("return 1, 2", [1, 2]),
        ("return *[1], 2", [1, 2]),
        ("return(3)", 3),
        ("return (  # why\n 1,\n 2)  # not", [1, 2]),
        ("return \\\n 5", 5),
        ("x = '''a\n  b\n'''\nreturn x", "a\n  b\n"),
        ("return '''a\n    b'''", "a\n    b"),
        ("n = 3\nreturn f'''a\n  {n}\n''' 'é'", "a\n  3\né"),
        ("return 'ü', 'return 1'", ["ü", "return 1"]),
        ("for i in range(9):\n  if i == 2:\n    return i", 2),
        ("match 3:\n  case 3:\n    return 'm'", "m"),
        ("if 1:\r\n\treturn '''a\r\nb'''", "a\nb"),
        ("def f():\n  return 3\nreturn f()", 3),
        ("class A:\n  def m(self):\n    return 3\nreturn A().m()", 3),
        ("def up(f):\n  return lambda: f() + 1\n@up\ndef g(): return 1\nreturn g()", 2),
        ("n = 0\ndef f():\n  nonlocal n\n  n += 1\nf(); f()\nreturn n", 2),
        ("def f():\n  n = 0\n  def g():\n    nonlocal n\n    n += 1\n  g()\n  return n\nreturn f()", 1),
        ("n = 0\nclass A:\n  n = 7\n  def m(self):\n    nonlocal n\n    n += 1\nA().m()\nreturn n", 1),
        ("def f(x=(n := 0)):\n  def g():\n    nonlocal n\n    n += 1\n  g()\nf()\nreturn n", 1),
        ("n = 0\ndef f():\n  global n\n  n += 1\nf()\nreturn n", 1),
        ("_runglass_result = lambda v: '1'\nreturn [2]", [2]),
        ("return 2 ** 70, -0.5, True, None, 'a\\u2028😀'", [2**70, -0.5, True, None, "a\u2028😀"]),
    ],
)
async def test_code_is_the_body_of_a_function(sandbox: Sandbox, code: str, value: Any) -> None:
    assert await sandbox.run(code, {}) == value


@pytest.mark.parametrize(
    ("between", "has_it"),
    [
        *((line, False) for line in ("pass", "x = lambda n: n", "x = [n for n in '1']")),
        *((f"{word} n; n = 1", False) for word in ("nonlocal", "global")),
        *(
            (line, True)
            for line in ("n = 1", "import json as n", "def n(): pass", "x = [(n := i) for i in '1']")
        ),
        ("@(n := (lambda f: f))\n  def x(): pass", True),
        ("try: 1 / 0\n  except Exception as n: pass", True),
        *((f"match {{}}:\n    case {each}: pass", True) for each in ("n", "[*n]", "{**n}")),
    ],
)
async def test_nonlocal_is_of_the_nearest_function_that_has_the_variable_or_of_the_body(
    sandbox: Sandbox, between: str, *, has_it: bool
) -> None:
    inner = "  def g():\n    nonlocal n, m\n    n, m = 9, 8\n  g()\n  return n, m\n"
    code = f"n = 0\ndef f(m=5):\n  {between}\n{inner}return [f(), n]"
    assert await sandbox.run(code, {}) == [[9, 8], 0 if has_it else 9]


@pytest.mark.parametrize(
    "name", ["str", "dict", "list", "tuple", "isinstance", "ValueError", "dumps", "json"]
)
async def test_a_field_or_variable_may_have_the_name_of_a_builtin(sandbox: Sandbox, name: str) -> None:
    assert await sandbox.run(f"return {{'a': [{name}]}}", {name: 7}) == {"a": [7]}
    assert await sandbox.run(f"{name} = 7\nreturn {{'a': [{name}]}}", {}) == {"a": [7]}
    error = await failure(sandbox, f"{name}\n\n1 / 0", **{name: 7})
    assert error.message == "ZeroDivisionError: division by zero (line 3)"


async def test_names_that_are_mentioned_are_variables_and_others_are_not_sent(sandbox: Sandbox) -> None:
    names = {"text": " a ", "steps": object()}
    code = "text = text.strip()\nreturn {'text': text}  # not steps"
    assert await sandbox.run(code, names) == {"text": "a"}
    error = await failure(sandbox, "return steps", **names)
    assert (error.code, error.may_retry) == ("INVALID_INPUT", False)


def test_a_program_mentions_what_its_code_does_and_not_what_it_says() -> None:
    code = "import os\nx = f'{text} steps' # initial\ndef f(a, b=count): return other.attribute"
    assert of_body(code).names == {"x", "text", "count", "other"}
    assert of_expression("count > 3 and steps['a']").names == {"count", "steps"}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("count + 1", 6),
        ("  count > 3 and items", [1, 2]),
        ("count > 3  # enough", True),
        ("(count,\n items)", [5, [1, 2]]),
        ("steps['a']['items'][-1]", 9),
        ("steps['a']['items'] + [count]", [9, 5]),
    ],
)
async def test_expressions_are_evaluated(sandbox: Sandbox, expression: str, value: Any) -> None:
    names = {"count": 5, "items": [1, 2], "steps": {"a": {"items": [9]}}}
    assert await sandbox.evaluate(expression, names) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nobody", "NameError: name 'nobody' is not defined (line 1)"),
        ("steps['b']", "KeyError: 'b' (line 1)"),
        ("items[7]", "IndexError: list index out of range (line 1)"),
        ("(1,\n 1 / 0)", "ZeroDivisionError: division by zero (line 2)"),
        ("", "SyntaxError: invalid syntax (line 1)"),
        ("x y", "SyntaxError: invalid syntax (line 1)"),
        ("1)) or ((2", "SyntaxError: unmatched ')' (line 1)"),
    ],
)
async def test_an_expression_that_fails_says_why(sandbox: Sandbox, expression: str, message: str) -> None:
    with pytest.raises(StepFailure) as caught:
        await sandbox.evaluate(expression, {"items": [1], "steps": {"a": 1}})
    assert (caught.value.code, caught.value.message) == ("CODE_ERROR", message)


async def test_a_path_is_looked_up_without_a_process_and_without_a_copy() -> None:
    big = {"items": [{"x": object()}]}
    # Not even entered: nothing can be started.
    found = await Sandbox().evaluate("steps['a']['items'][0]", {"steps": {"a": big}})
    assert found is big["items"][0]


async def test_an_exception_is_told_with_its_place_in_the_code_as_written(sandbox: Sandbox) -> None:
    code = "\ndef f(x):\n    return 1 / x\n\nprint('so far')\nreturn f(0)"
    error = await failure(sandbox, code)
    assert error.code == "CODE_ERROR"
    assert error.message == "ZeroDivisionError: division by zero (line 3)"
    assert error.details == {
        "exception": "ZeroDivisionError",
        "line": 3,
        "printed": "so far\n",
        "traceback": "Traceback (most recent call last):\n"
        "  line 6, in <module>\n    return f(0)\n"
        "  line 3, in f\n    return 1 / x\n"
        "ZeroDivisionError: division by zero",
    }


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ndef f(:", "SyntaxError: invalid syntax (line 2)"),
        ("return ((", "SyntaxError: '(' was never closed (line 1)"),
        ("-" * 50_000 + "1", "SyntaxError: too deeply nested"),
        ("x = 1\0", "SyntaxError: source code string cannot contain null bytes"),
        ("x" * (CODE_LIMIT + 1), f"the code has {CODE_LIMIT + 1} characters; the limit is {CODE_LIMIT}"),
    ],
)
async def test_what_is_not_python_never_reaches_a_process(code: str, message: str) -> None:
    error = await failure(Sandbox(), code)
    assert (error.code, error.may_retry) == ("CODE_ERROR", False)
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("code", "place", "reason"),
    [
        ("return {'a': [1, {'b': {1}}]}", " at .a[1].b", "type set"),
        ("return {'a': [0, {1: 2}]}", " at .a[1]", "the key 1 is not a string"),
        ("return {'a': b'x'}", " at .a", "type bytes"),
        ("return [float('nan')]", " at [0]", "nan"),
        ("return [lambda: 1]", " at [0]", "type function"),
        ("async def f(): pass\nreturn f()", "", "coroutine"),
        ("return 2 ** 100000", "", "4300 digits"),
        ("a = []\na.append(a)\nreturn a", "", "Circular"),
        (
            "for name in list(locals()):\n"
            "  if 'runglass' in name: exec(name + \" = lambda v: 'no JSON'\")\n"
            "return 1",
            "",
            "malformed",
        ),
        ("from collections import namedtuple\nreturn namedtuple('P', 'x')(1)", "", "type P"),
    ],
)
async def test_a_result_that_json_cannot_hold_is_refused_with_its_place(
    sandbox: Sandbox, code: str, place: str, reason: str
) -> None:
    error = await failure(sandbox, code)
    assert error.code == "INVALID_OUTPUT"
    assert error.message.startswith(f"the result cannot be kept as JSON{place}: ")
    assert reason in error.message


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("while True: pass", "time"),
        ("try:\n  while True: pass\nexcept BaseException: return 1", "time"),
        ("import time\ntime.sleep(61)", "sleep"),
        ("import time\ntime.sleep(0.001)\ntime.sleep(60)", "sleep"),
        ("import time\nwhile True: time.sleep(0)", "suspensions"),
        ("return 'x' * 10 ** 9", "memory"),
        ("a = []\nwhile True: a.append('x' * 1000)", "memory"),
        ("a = [1]\nfor _ in range(100): a = [a, a]\nreturn a", "memory"),
        ("def f(n): return f(n + 1)\nreturn f(0)", "recursion"),
        ("a = 1\nfor _ in range(5000): a = [a]\nreturn a", "recursion"),
        ("return 'x' * 17_000_000", "result"),
    ],
)
async def test_every_limit_is_kept_and_named(sandbox: Sandbox, code: str, limit: str) -> None:
    # On a busy machine a slow way to another limit must not run out of time before.
    async with Sandbox(Settings(code_time_limit_ms=1000)) as hasty:
        sandbox = hasty if limit == "time" else sandbox
        error = await failure(sandbox, code)
        assert error.code == "SANDBOX_LIMIT"
        assert error.details["limit"] == limit
        assert str(error.details["value"]) in error.message
        assert await sandbox.run("return 1", {}) == 1


async def test_limits_are_those_that_were_asked_for() -> None:
    async with Sandbox(Settings(code_time_limit_ms=50)) as sandbox:
        late = (await failure(sandbox, "while True: pass")).details
    async with Sandbox(Settings(code_memory_limit_bytes=1 << 20)) as sandbox:
        large = (await failure(sandbox, "return 'x' * (1 << 20)")).details
    assert [(each["limit"], each["value"]) for each in (late, large)] == [("time", 50), ("memory", 1 << 20)]


@pytest.mark.parametrize("name", ["TimeoutError", "MemoryError", "RecursionError", "RuntimeError"])
async def test_an_exception_of_the_code_itself_is_no_limit(sandbox: Sandbox, name: str) -> None:
    error = await failure(sandbox, f"raise {name}('mine')")
    assert (error.code, error.message) == ("CODE_ERROR", f"{name}: mine (line 1)")


async def test_long_messages_and_prints_are_kept_in_bounds(sandbox: Sandbox) -> None:
    error = await failure(sandbox, f"print('p' * {PRINT_LIMIT * 2})\nraise ValueError('x' * 1_000_000)")
    assert len(error.message) < 3000
    assert len(error.details["traceback"]) < 5000
    assert len(error.details["printed"]) == PRINT_LIMIT


async def test_code_that_prints_too_much_fails(sandbox: Sandbox) -> None:
    error = await failure(sandbox, "for n in range(9):\n    print('x' * 1_000_000)")
    assert (error.code, error.details["limit"]) == ("SANDBOX_LIMIT", "print")
    assert error.message.startswith("the code went over its limit of 4194303 printed bytes")
    assert await sandbox.run("for n in range(4):\n    print('x' * 1_000_000)\nreturn n", {}) == 3


async def test_what_is_printed_to_two_streams_is_told_in_its_order_and_stays_out_of_our_own_output(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    code = "import sys\nfor _ in '12':\n  print('a', end='')\n  print('b', end='', file=sys.stderr)\n1 / 0"
    assert (await failure(sandbox, code)).details["printed"] == "abab"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "code",
    [
        "import os\nreturn dict(os.environ)",
        "import os\nreturn os.listdir('/')",
        "return open('/etc/passwd').read()",
        "open('/written-by-the-sandbox', 'w').write('x')",
        "import pathlib\nreturn pathlib.Path('/etc/passwd').read_text()",
        "import subprocess",
        "return __import__('os').getpid()",
        "return ().__class__.__bases__[0].__subclasses__()",
        "import sys\nreturn list(sys.modules)",
        "return eval('__import__(\"os\").environ')",
    ],
)
async def test_code_cannot_reach_the_system(sandbox: Sandbox, code: str) -> None:
    assert (await failure(sandbox, code)).code == "CODE_ERROR"


async def test_runs_of_code_share_no_state(sandbox: Sandbox) -> None:
    await sandbox.run("left = 5", {})
    assert "'left' is not defined" in (await failure(sandbox, "return left")).message


async def test_a_flood_of_one_project_does_not_delay_another() -> None:
    async with Sandbox(Settings(code_time_limit_ms=60_000), max_processes=1) as sandbox:
        flood = [asyncio.create_task(sandbox.run("while True: pass", {}, project_id=1)) for _ in range(4)]
        await asyncio.sleep(0)
        for n in range(3):
            assert await sandbox.run("return n", {"n": n}, project_id=2) == n
        assert not any(task.done() for task in flood), "nobody waited for the end of a runaway"
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_no_process_runs_code_of_two_projects_and_what_takes_long_yields() -> None:
    async with Sandbox() as sandbox:
        processes = sandbox.processes
        used: dict[int, set[int]] = {}

        # More projects than those whose idle processes are kept.
        for project_id in [*range(1, 20), *range(1, 20)]:
            async with processes.session(project_id) as session:
                assert session.worker_pid is not None
                used.setdefault(session.worker_pid, set()).add(project_id)
                assert os.getpriority(os.PRIO_PROCESS, session.worker_pid) == WORKER_NICE
        assert {len(projects) for projects in used.values()} == {1}
        assert len(processes.pools) <= PROJECTS_KEPT
        lasting: list[int] = []
        for _ in range(2):
            async with processes.session(1) as session:
                pid = session.worker_pid
                assert pid is not None
                lasting.append(pid)
                await until(lambda pid=pid: os.getpriority(os.PRIO_PROCESS, pid) == LONG_NICE)  # type: ignore[misc]
        assert len(set(lasting)) == 2, "the first has no way back to a better priority"


async def test_many_tasks_share_few_processes_and_a_runaway_only_delays_them() -> None:
    async with Sandbox(Settings(code_time_limit_ms=2000), max_processes=1) as sandbox:
        runaway = asyncio.create_task(failure(sandbox, "while True: pass"))
        quick = [asyncio.create_task(sandbox.run("return n * 2", {"n": n})) for n in range(50)]
        # None is failed for having waited longer than its own limit.
        assert await asyncio.gather(*quick) == [n * 2 for n in range(50)]
        assert (await runaway).code == "SANDBOX_LIMIT"


async def test_a_cancelled_task_leaves_the_sandbox_usable() -> None:
    async with Sandbox(max_processes=1) as sandbox:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sandbox.run("while True: pass", {})
        assert await sandbox.run("return 1", {}) == 1
        waiting = [asyncio.create_task(sandbox.run("while True: pass", {})) for _ in range(3)]
        for task in waiting:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)
        assert await sandbox.run("return 2", {}) == 2


async def test_a_process_that_is_killed_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    async with Sandbox(Settings(code_time_limit_ms=60_000), max_processes=1) as sandbox:
        assert await sandbox.run("return 1", {}) == 1
        pids, killed = sandbox.processes.pools[0].pids, set[int]()
        task = asyncio.create_task(failure(sandbox, "while True: pass"))
        # Once may be anybody's fault, so the code runs again.
        while not task.done():
            for pid in pids - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            await until(lambda: task.done() or pids - killed)
        error = await task
        told = [each.getMessage().partition(": ")[0] for each in caplog.records]
        assert told == ["a process that ran code died"] * 2, "each says of one death"
        assert (error.code, error.details) == ("SANDBOX_LIMIT", {"limit": "crash"})
        assert await sandbox.run("return 2", {}) == 2
        # On a busy machine it took long, and its process has ended already.
        for idle in pids - killed:
            os.kill(idle, signal.SIGKILL)
        assert await sandbox.run("return 3", {}) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_input_that_memory_has_no_room_for_is_refused(sandbox: Sandbox) -> None:
    error = await failure(sandbox, "return len(x)", x="y" * 70_000_000)
    assert (error.code, error.details["limit"]) == ("SANDBOX_LIMIT", "memory")


async def test_a_result_with_many_long_numbers_is_refused(sandbox: Sandbox) -> None:
    assert await sandbox.run("return {'a': [10**600] * 90}", {}) == {"a": [10**600] * 90}
    error = await failure(sandbox, "return {'a': [10**600] * 5_000}")
    assert error.code == "INVALID_OUTPUT"
    assert "as long to be read as more than 2,000,000 values" in error.message
