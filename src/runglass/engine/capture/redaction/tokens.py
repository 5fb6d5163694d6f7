"""Tokens and keys that tell by their own shape what they are.

Each pattern needs time linear in the text: repeats are possessive, and where one may still fail after a long
run, nothing inside of that run can begin another.
"""

import re
from collections.abc import Iterator

from runglass.engine.capture.redaction.views import Span

_HEX = "[0-9a-fA-F]"
_SERVICES = (
    # OpenAI, Anthropic, OpenRouter, DeepSeek, Stripe and providers whose keys look like theirs.
    r"[srp]k[-_](?=[A-Za-z_-]{0,60}+\d)[\w-]{12,}+",
    # This server's own.
    r"nk_[\w-]{6,}+",
    # GitHub, GitLab, npm, Hugging Face, PyPI, RubyGems, crates.io, Docker, NuGet
    r"(?:gh[opusr]_|hf_|npm_)[A-Za-z0-9]{16,}+", r"github_pat_[\w-]{16,}+",
    r"gl(?:pat|ptt|rt|dt|cbt|ft|soat|oas|agent|imt|ffct|rtr)-[\w.-]{16,}+",
    r"pypi-[\w-]{50,}+", r"rubygems_[0-9a-f]{40,}+", r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])",
    r"dckr_pat_[\w-]{20,}+",
    r"oy2[a-z0-9]{43}(?![A-Za-z0-9])",
    # Slack
    r"xox[a-z](?:\.xox[a-z])?-[\w-]{8,}+", r"xapp-\d-[\w-]{20,}+",
    # Clouds: AWS, Google, DigitalOcean, Heroku, Fly, Vercel, Cloudflare, Alibaba, Tencent, Azure, Databricks
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", r"AIza[\w-]{30,}+", r"ya29\.[\w-]{8,}+", r"GOCSPX-[\w-]{20,}+",
    r"do[opr]_v1_[0-9a-f]{40,}+", r"HRKU-[\w-]{30,}+", r"f[mo][12][a-z]?_[\w+/=,-]{30,}+",
    r"LTAI[A-Za-z0-9]{16,}+",
    r"AKID[A-Za-z0-9]{28,}+", r"dapi[0-9a-f]{32}(?:-\d)?+", r"dkea[0-9a-f]{32}", r"dose[0-9a-f]{32}",
    r"[A-Za-z0-9_~.]{3}[78]Q~[\w~.-]{31,34}",
    # Vault and Terraform
    r"hv[sbr]\.[\w-]{20,}+", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{40,}+",
    # Models: Groq, xAI, Replicate, Perplexity, Fireworks, NVIDIA, LangSmith, Langfuse, Pinecone
    r"gsk_[A-Za-z0-9]{30,}+", r"xai-[A-Za-z0-9]{40,}+", r"r8_[A-Za-z0-9]{30,}+", r"pplx-[A-Za-z0-9]{30,}+",
    r"fw_[A-Za-z0-9]{20,}+", r"nvapi-[\w-]{30,}+", r"lsv2_(?:pt|sk)_[\w-]{30,}+", r"pcsk_[\w-]{30,}+",
    r"tvly-[\w-]{20,}+",
    # Shops, mail, payment and messages
    r"shp(?:at|ca|pa|ss|ua|it)_[0-9a-fA-F]{32}", r"SG\.[\w-]{16,}+(?:\.[\w-]++)?", r"whsec_[\w+/=-]{8,}+",
    rf"SK{_HEX}{{32}}(?![A-Za-z0-9])", r"key-[0-9a-f]{32}(?![A-Za-z0-9])", r"xkeysib-[0-9a-f]{40,}+[\w-]*+",
    rf"{_HEX}{{32}}-us\d\d?(?![A-Za-z0-9])", r"(?:EAAA|sq0[a-z]{3}-)[\w-]{22,}+",
    r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}+",
    r"(?:bot)?\d{8,10}:AA[\w-]{33}(?![\w-])", r"EAA[A-Za-z0-9]{60,}+",
    r"access_token\$\w{8,20}\$[0-9a-f]{32}",
    r"[MNO][\w-]{23,27}\.[\w-]{6,7}\.[\w-]{27,}+",
    # Tools: Atlassian, Linear, Notion, Postman, New Relic, Grafana, Sentry, Figma, Airtable and others
    r"ATATT3[\w=-]{30,}+", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}+",
    r"(?:ntn|secret)_[A-Za-z0-9]{40,}+", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",
    r"NR(?:AK|JS|II|AA)-[A-Za-z0-9-]{19,}+", r"glsa_[\w-]{32,}+", r"glc_[\w+/=-]{32,}+",
    r"sntr[ysu]{1,2}_[\w+/=.-]{30,}+", r"fig[do]_?[\w-]{36,}+", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}",
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{30,}+", r"pul-[0-9a-f]{40}", r"AGE-SECRET-KEY-1[A-Z0-9]{40,}+",
    r"tskey-[a-z]{2,10}-[\w-]{16,}+", r"ops_eyJ[\w-]{40,}+", r"phx_[A-Za-z0-9]{30,}+",
    r"NVPLATFORM-[\w-]{30,}+",
    r"CFPAT-[\w-]{40,}+", r"api_live\.[\w.-]{30,}+", r"sl\.[\w-]{100,}+", r"amzn\.mws\.[0-9a-f-]{36}",
)  # fmt: skip
# A text may be JSON in which a line break before the token is written `\n`.
_BEGINS = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt]))"
TOKEN = re.compile(f"{_BEGINS}(?:{'|'.join(_SERVICES)})", re.ASCII)
_LONG = re.compile(r"(?<![\w.~+/=$,:-])(?![\d:T.Z+-]++(?![\w.~+/=$,:-]))[\w.~+/=$,:-]{9,}+", re.ASCII)
"""Where tokens can be, since none is shorter: it is ten times as quick to look for as all of them."""
# Lookbehinds stand behind the first letters: so `re` skips ahead to these.
_JWT = re.compile(r"eyJ(?:(?<![\w-]eyJ)|(?<=\\[bfnrt]eyJ))[\w-]{5,}+\.[\w-]{5,}+(?:\.[\w-]*+){0,3}", re.ASCII)
_PRIVATE = re.compile(
    r"-----BEGIN[A-Z0-9 ]{1,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]*+(?:-(?!----)[^-]*+)*+-----END[A-Z0-9 ]{1,40}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s\\]*+)"
    r"|PuTTY-User-Key-File-\d:[^\0]{0,20000}+"
)
_HOOKS = re.compile(
    r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/+-]{20,}+"
    r"|(?<=discord\.com/api/webhooks/)\d{15,20}/[\w-]{40,}+"
    r"|(?<=discordapp\.com/api/webhooks/)\d{15,20}/[\w-]{40,}+"
    r"|(?<=webhook\.office\.com/)webhookb2/[\w/@.-]{40,}+"
)
# What stands before the host of a URL: user and password; of Oracle's thin driver likewise.
_IN_URL = re.compile(r"://([^\s/?#\"'<>\\]+)(?=@)")
_THIN = re.compile(r"thin:([\w.]{1,40}/[^\s@/]{1,100}+)(?=@)")
_SCHEME = re.compile(
    r"b(?<![a-z0-9]b)(?:earer|asic)\s{1,8}+((?=[a-z._~+/-]*+[0-9=])[\w.~+/=-]{6,}+|[\w.~+/=-]{20,}+)"
)
# A signature or key in the query of a URL.
_QUERY = re.compile(
    r"[?&](?:amp;)?(?i:sig(?:nature)?|(?:subscription-?|x-amz-)?key|auth|code|x-amz-signature"
    r"|x-goog-signature|hmac)="
    r"([^\s&#\"'<>\\]++)"
)
_MAIL_NAME = re.compile(r"[\w.%+-]{1,64}\Z")
_MAIL_HOST = re.compile(r"(?:[\w-]++\.)+[^\W\d_]{2,24}+")


def find_tokens(text: str, low: str) -> Iterator[Span]:
    """Spans of tokens, private keys, what URLs carry, and e-mail addresses."""
    for long in _LONG.finditer(text):
        yield from (match.span() for match in TOKEN.finditer(text, *long.span()))
    if "eyJ" in text:
        yield from (match.span() for match in _JWT.finditer(text))
    if "private key" in low or "putty-user-key" in low:
        yield from (match.span() for match in _PRIVATE.finditer(text))
    if "webhook" in low or "hooks.slack" in low:
        yield from (match.span() for match in _HOOKS.finditer(text))
    in_urls = [match.span(1) for match in _IN_URL.finditer(text)] if "://" in text and "@" in text else []
    yield from in_urls
    if "thin:" in low:
        yield from (match.span(1) for match in _THIN.finditer(low))
    if "bearer" in low or "basic" in low:
        yield from (match.span(1) for match in _SCHEME.finditer(low))
    if ("?" in text or "&" in text) and "=" in text:
        yield from (match.span(1) for match in _QUERY.finditer(text))
    # The host behind a user and password is no part of an address.
    yield from _addresses(text, {end for _, end in in_urls})


def _addresses(text: str, without: set[int]) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        host = _MAIL_HOST.match(text, at + 1) if at not in without else None
        name = host and _MAIL_NAME.search(text, max(0, at - 64), at)
        if host and name:
            yield name.start(), host.end()
        at = text.find("@", at + 1)
