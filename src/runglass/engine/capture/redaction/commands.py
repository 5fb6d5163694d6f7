"""Secrets in command lines and in files that tools read: `--password X`, `curl -u a:b`, `.netrc`."""

import re
from collections.abc import Iterator

from runglass.engine.capture.redaction.keys import Keys
from runglass.engine.capture.redaction.views import Span

_WORD = r"""(?:"(?P<double>(?:[^"\\\n]++|\\.)++)"?|'(?P<single>[^'\n]++)'?|(?P<plain>(?!-)[^\s"'|;<>`]++))"""
_OPTION = re.compile(rf"-(?<![\w-]-)-?(?P<name>[A-Za-z][\w.-]{{2,60}}+)[ \t]{{1,4}}+\\?{_WORD}")
_COMMAND = re.compile(
    r"(?<![\w.-])(?P<name>curl|wget|https?|mysql\w{0,12}|mariadb\w{0,12}|docker|podman|helm|az|oc"
    r"|skopeo|buildah|sshpass"
    r"|redis-cli|mongo\w{0,8}|sqlcmd|bcp|ldap\w{2,10}|zip|unzip|7z[ar]?|rar|smbclient|openssl|snmp\w{2,8})"
    r"(?:\.exe)?[ \t](?P<rest>(?:[^\n|;&]++|[|;&](?![\s&|]))++)"
)
_USER = r"""(?:-u|-U|--user|--proxy-user|-a)[ =]?["']?(?P<said>[^\s:"'/]{1,200}:[^\s"']{1,200}+)"""
_SHORT = {
    "curl": _USER, "wget": _USER, "http": _USER, "https": _USER,
    "docker": r"\blogin\b.{0,400}?\s(?:-p)[ =]?(?P<said>\S+)", "sshpass": r"-p ?(?P<said>\S+)",
    "redis-cli": r"-a (?P<said>\S+)", "mongo": r"-p[ ]?(?P<said>\S+)", "sqlcmd": r"-P ?(?P<said>\S+)",
    "mysql": r"-p(?P<said>[^\s-]\S*+)", "ldap": r"-w (?P<said>\S+)", "zip": r"-P ?(?P<said>\S+)",
    "7z": r"-p(?P<said>\S+)", "smbclient": r"-U ?\S{1,80}?%(?P<said>\S+)", "openssl": r"pass:(?P<said>\S+)",
    "snmp": r"-[AX] (?P<said>\S+)",
}  # fmt: skip
"""The options with which commands take a secret, beside those that are called so."""
_ALIKE = {
    "podman": "docker", "helm": "docker", "az": "docker", "oc": "docker", "skopeo": "docker",
    "buildah": "docker", "mariadb": "mysql", "bcp": "sqlcmd", "unzip": "zip", "7za": "7z", "7zr": "7z",
    "rar": "7z",
}  # fmt: skip
_COMPILED = {name: re.compile(rf"(?<!\S){pattern}") for name, pattern in _SHORT.items()}
_NETRC = re.compile(
    r"\b(?:machine[ \t\n]{1,9}+(?:[\w-]{1,60}\.[\w.-]{1,200}+|localhost)"
    r"|default)[ \t\n]{1,9}+login[ \t\n]{1,9}+\S{1,200}+"
    r"[ \t\n]{1,9}+password[ \t\n]{1,9}+(?P<said>\S++)"
)
_PGPASS = re.compile(
    r"(?<![^\s\"'])[\w.*-]{1,100}+:(?:543\d|6543|\*):[\w*-]{1,64}+:[\w*-]{1,64}+:(?P<said>[^\s\"']++)"
)
_LONGEST = 2000


def find_commands(keys: Keys, text: str, low: str) -> Iterator[Span]:
    """Spans of secrets in command lines, `.netrc` and `.pgpass`. Time linear in the text."""
    if "-" in text:
        for match in _OPTION.finditer(text):
            assert match.lastgroup is not None
            if keys.tells(match["name"], match[match.lastgroup]):
                yield match.span(match.lastgroup)
        if " -" in text or " pass:" in text:
            for match in _COMMAND.finditer(text):
                yield from _short(match)
    if "password" in low:
        yield from (match.span("said") for match in _NETRC.finditer(text))
    if ":543" in text or ":6543:" in text or ":*:" in text:
        yield from (match.span("said") for match in _PGPASS.finditer(text))


def _short(command: re.Match[str]) -> Iterator[Span]:
    name = command["name"]
    if name.startswith(("mysql", "mariadb", "ldap", "snmp", "mongo")):
        name = next(each for each in ("mysql", "mariadb", "ldap", "snmp", "mongo") if name.startswith(each))
    pattern = _COMPILED.get(_ALIKE.get(name, name))
    if pattern is None:
        return
    start = command.start("rest")
    for match in pattern.finditer(command.string, start, min(command.end(), start + _LONGEST)):
        said = match["said"]
        quote = said[:1] if said[:1] in ("'", '"') else ""
        if quote:
            # A quoted secret may have blanks in it.
            end = command.string.find(quote, match.start("said") + 1, command.end())
            yield match.start("said") + 1, end if end > 0 else match.end("said")
        elif not said.startswith("-"):
            yield match.span("said")
