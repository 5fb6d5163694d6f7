"""Two hundred pairs of a text with a made-up secret and a look-alike without one, written beside the patterns.

`redaction_held_back` has a hundred more. Tokens are put together from parts, so that no scanner takes them for
real ones.
"""
# ruff: noqa: E501, RUF001 -- one pair, one line; look-alike letters are the point

import base64
import json
import random
import string
from functools import partial
from itertools import cycle
from typing import Any, NamedTuple
from urllib.parse import quote


class Pair(NamedTuple):
    """A value with a secret, the part of it that must go, and a look-alike that must stay as it is."""

    kind: str
    value: Any
    secret: str
    harmless: Any


def body(length: int, *, upper: bool = False, hex_: bool = False) -> str:
    """Random letters and digits, the same at each call: what stands behind a token's prefix."""
    letters = "0123456789abcdef" if hex_ else string.ascii_uppercase if upper else string.ascii_letters
    drawn = random.Random(length).choices(letters + ("" if hex_ else string.digits), k=length)
    # Any real token of such a length has a digit.
    return "".join([*drawn[:-2], "7", drawn[-1]])


def luhn(digits: str) -> str:
    """The digits and the check digit of a card number behind them."""
    doubled = [int(digit) * (2 if i % 2 == 0 else 1) for i, digit in enumerate(reversed(digits))]
    total = sum(value - 9 if value > 9 else value for value in doubled)
    return digits + str(-total % 10)


def json_escaped(text: str) -> str:
    r"""Every letter as JSON may write it: `\u0070` for p."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


A = body
H = partial(body, hex_=True)
U = partial(body, upper=True)

TOKENS: list[tuple[str, str, str]] = [
    # what it is, a secret, a look-alike
    ("openai", "sk-" + "proj-" + A(48), "sk-learn-contrib-documentation"),
    ("anthropic", "sk-" + "ant-api03-" + A(93), "risk-ant-farming-association"),
    ("openrouter", "sk-" + "or-v1-" + H(64), "task-or-v1-migration-of-tables"),
    ("groq", "gs" + "k_" + A(52), "gsk_vaccine_programme_overview"),
    ("xai", "xa" + "i-" + A(80), "xai-explanations-for-beginners"),
    ("hugging face", "h" + "f_" + A(34), "hf_transfer_enabled_by_default"),
    ("replicate", "r" + "8_" + A(37), "r8_optimizer_shrinks_code"),
    ("perplexity", "pp" + "lx-" + A(48), "pplx-docs"),
    ("nvidia", "nv" + "api-" + A(64), "nvapi-settings"),
    ("langsmith", "ls" + "v2_pt_" + H(32) + "_" + H(10), "lsv2_pt"),
    ("github", "gh" + "p_" + A(36), "ghp_is_the_prefix"),
    ("github app", "gh" + "s_" + A(36), "ghs_and_ghp_tokens"),
    ("github fine", "git" + "hub_pat_" + A(22) + "_" + A(59), "github_pat_docs"),
    ("gitlab", "gl" + "pat-" + A(20), "glpat-example"),
    ("gitlab runner", "gl" + "rt-" + A(20), "glrt-manual"),
    ("npm", "np" + "m_" + A(36), "npm_lifecycle_event"),
    ("pypi", "py" + "pi-AgEIcHlwaS5vcmcCJ" + A(120), "pypi-AgEI is how they begin"),
    ("rubygems", "ruby" + "gems_" + H(48), "rubygems_mirror"),
    ("docker", "dc" + "kr_pat_" + A(27), "dckr_pat_help"),
    ("slack bot", "xo" + "xb-1234567890123-1234567890123-" + A(24), "xoxb-token"),
    ("slack user", "xo" + "xp-9876543210-9876543210-9876543210123-" + H(32), "xoxoxo-love"),
    ("slack app", "xa" + "pp-1-A" + U(10) + "-1234567890123-" + H(64), "xapp-1-plan"),
    ("stripe", "sk_" + "live_" + A(24), "desk_live_chat_window"),
    ("stripe restricted", "rk_" + "test_" + A(24), "park_test_drive_of_the_year"),
    ("shopify", "sh" + "pca_" + H(32), "shpca_notes"),
    ("shopify shared", "sh" + "pss_" + H(32), "shpss_readme"),
    ("sendgrid", "S" + "G." + A(22) + "." + A(43), "SG.Singapore"),
    ("twilio", "S" + "K" + H(32), "SK85520000"),
    ("mailgun", "ke" + "y-" + H(32), "key-value-store"),
    ("mailchimp", H(32) + "-us" + "12", "deadbeef-us12"),
    ("square", "sq0" + "csp-" + A(43), "sq0-meters"),
    ("aws id", "AK" + "IA" + U(16), "AKIAlike"),
    ("aws session", "AS" + "IA" + U(16), "ASIAN FOOD"),
    ("google key", "AI" + "zaSy" + A(33), "AIzawa"),
    ("google oauth", "ya" + "29." + A(60), "ya29 road"),
    ("google client", "GOC" + "SPX-" + A(28), "GOCSPX-prefix"),
    ("azure secret", "abc" + "8Q~" + A(34), "abc8Q and more"),
    ("databricks", "da" + "pi" + H(32), "dapible"),
    ("digitalocean", "do" + "p_v1_" + H(64), "dop_v1_docs"),
    ("heroku", "HR" + "KU-" + A(40), "HRKU-status"),
    ("vault", "hv" + "s." + A(24), "hvs.example"),
    ("vault batch", "hv" + "b." + A(100), "hvb.bank"),
    ("terraform", A(14) + ".atlas" + "v1." + A(60), "x.atlasv1.docs"),
    ("telegram", "1234567890:AA" + A(33), "1234567890:AAA"),
    ("discord", "N" + A(23) + "." + A(6) + "." + A(30), "Nathan.Miller.Photography"),
    ("atlassian", "ATA" + "TT3" + A(180), "ATATT3"),
    ("linear", "li" + "n_api_" + A(40), "lin_api_limits"),
    ("notion", "nt" + "n_" + A(46), "ntn_nightly"),
    ("postman", "PM" + "AK-" + H(24) + "-" + H(34), "PMAK-none"),
    ("new relic", "NR" + "AK-" + U(27), "NRAK-region"),
    ("grafana", "gl" + "sa_" + A(32) + "_" + H(8), "glsa_stack"),
    ("doppler", "dp" + ".pt." + A(43), "dp.pt.example"),
    ("airtable", "pat" + A(14) + "." + H(64), "pattern.matching"),
    ("age", "AGE-" + "SECRET-KEY-1" + U(58), "AGE-GROUP-1"),
    ("tailscale", "ts" + "key-auth-" + A(30), "tskey-docs"),
    ("jwt", "ey" + "J" + A(20) + ".ey" + "J" + A(80) + "." + A(43), "eyJoy.eyJoke"),
    ("own", "n" + "k_" + H(16), "nk_x"),
]  # fmt: skip

PLACES = (
    "{}", "the value is {}, said the log", '{{"a": "{}", "b": 1}}', 'x = "{}"', "2026-01-15 10:00:00 INFO got {}",
    "https://h.example/p?x={}&y=1", "tool --opt {} file", "<a>{}</a>", "a: {}\nb: 1\n", "Hier steht {} im Text.",
    "voici\n{}\nfin", "[{}]", '{{\\"a\\": \\"{}\\"}}', "line\\n{}\\nline", "令牌{}。",
)  # fmt: skip
"""Prose, JSON, code, logs, URLs, commands, XML, YAML, several languages, JSON in JSON."""


PLACED = [
    Pair(kind, place.format(secret), secret, place.format(harmless))
    for (kind, secret, harmless), place in zip(TOKENS, cycle(PLACES), strict=False)
]


def _b64(text: str, *, times: int = 1) -> str:
    for _ in range(times):
        text = base64.b64encode(text.encode()).decode()
    return text


PEM = "-----BEGIN {0}" + "PRIVATE KEY-----\n" + A(64) + "\n" + A(40) + "\n-----END {0}" + "PRIVATE KEY-----"

NAMED: list[Pair] = [
    Pair("key", {"db": {"password": "x7"}}, "x7", {"db": {"passwordless": "x7"}}),
    Pair("key", {"apiKey": 12345}, "12345", {"apiKeyCount": 12345}),
    Pair("key", {"client_secret": ["zz-1"]}, "zz-1", {"client_section": ["zz-1"]}),
    Pair("key", {"pass": "Summer24"}, "Summer24", {"pass": True, "passed": "Summer24"}),
    Pair("key", {"userPass": "o-range7"}, "o-range7", {"userPassport": "o-range7"}),
    Pair("key", {"db_pass": "dwqd"}, "dwqd", {"bypass": "dwqd", "compass": "dwqd"}),
    Pair("key", {"auth": "b1946ac92492"}, "b1946ac92492", {"auth": "oauth2", "author": "b1946ac92492"}),
    Pair("key", {"X-Proxy-Auth": "joe:banana"}, "banana", {"auth_method": "joe:banana"}),
    Pair("key", {"bearer": "tok3n-tok3n-tok3n"}, "tok3n", {"forbearer": "tok3n-tok3n-tok3n", "bearer": "Anna"}),
    Pair("key", {"pin": "0042"}, "0042", {"pin": "A7", "pins": [13, 14]}),
    Pair("key", {"userPin": 99812}, "99812", {"pinned": 99812, "pinCount": 12345}),
    Pair("key", {"otp": 123456}, "123456", {"option": 123456, "otp": "required"}),
    Pair("key", {"phone": "030 1234567"}, "1234567", {"phone": "Pixel 9", "phoneme": "030 1234567"}),
    Pair("key", {"headers": [["X-Api-Key", "v9v9"]]}, "v9v9", {"headers": [["X-Api-Version", "v9v9"]]}),
    Pair("key", [{"name": "DB_PASS", "value": "m4ngo"}], "m4ngo", [{"name": "DB_HOST", "value": "m4ngo"}]),
    Pair("key", {"args": ["--password", "guava7"]}, "guava7", {"args": ["--passive", "guava7"]}),
    Pair("key", {"Passwort": "Birne"}, "Birne", {"Passwortlänge": "Birne"}),
    Pair("key", {"senha": "abacaxi"}, "abacaxi", {"desenhar": "abacaxi"}),
    Pair("line", "DB_PASSWORD=p1neapple\nDB_HOST=x", "p1neapple", "DB_PORT=p1neapple\nDB_HOST=x"),
    Pair("line", "export API_TOKEN='ap-ric-ot'", "ap-ric-ot", "export API_TIMEOUT='ap-ric-ot'"),
    Pair("line", "smtp_pass: ch3rry", "ch3rry", "trespass: ch3rry"),
    Pair("line", "wifi-pass = gr4pe!", "gr4pe!", "by-pass valve = gr4pe!"),
    Pair("line", "pass=K1wi#fruit", "K1wi#fruit", "pass=42 fail=3"),
    Pair("line", "auth: 7c6a180b36896a0a", "7c6a180b36896a0a", "auth: required"),
    Pair("line", "pin=1928&x=1", "1928", "span=1928&x=1"),
    Pair("line", "OTP: 339201", "339201", "OTP: 26"),
    Pair("line", "bearer=abcd1234efgh", "abcd1234efgh", "bearer=Joanna"),
    Pair("prose", "the password is l3mon-tree", "l3mon-tree", "the password is too short"),
    Pair("prose", "Please use the passphrase: lime7 for it", "lime7", "Please use the passage: lime7 for it"),
    Pair("prose", "the new API key is zq81-aa92", "zq81-aa92", "the new API key is 128-bit long"),
    Pair("prose", "token was set to q77-x81", "q77-x81", "token was set to expire"),
    Pair("prose", "my pin code is 8821.", "8821", "my pin board is 8821 mm wide."),
    Pair("prose", "882134 is your verification code", "882134", "882134 is your order number"),
    Pair("prose", "Das Passwort lautet Kirsch9", "Kirsch9", "Das Passwort ist falsch"),
    Pair("prose", "Ihre PIN lautet 7719", "7719", "Ihre Linie lautet 7719"),
    Pair("prose", "La contraseña es mora-55", "mora-55", "La contraseña es secreta"),
    Pair("prose", "Le mot de passe est prune7", "prune7", "Le mot de passe est oublié"),
    Pair("prose", "Пароль: слива77", "слива77", "Парад: слива77"),
    Pair("prose", "パスワード：momo-12", "momo-12", "パス：momo-12"),
    Pair("prose", "비밀번호: boksunga1", "boksunga1", "번호: boksunga1"),
    Pair("error", "login failed for password 'x': bad; password='f1gs'", "f1gs", "Invalid token: expected ']' at line 3"),
    Pair("error", "KeyError: {'secret': 'd4te'}", "d4te", "KeyError: {'section': 'd4te'}"),
    Pair("error", "got password=c0conut, want login", "c0conut", "Unexpected token } in JSON"),
    Pair("header", "Authorization: Bearer aa11bb22cc33", "aa11bb22cc33", "Authentication: bearer of news"),
    Pair("header", "authorization: Basic " + _b64("me:you"), _b64("me:you"), "a basic authorization flow"),
    Pair("header", "X-Auth-Token: 5f4dcc3b", "5f4dcc3b", "X-Auth-Token-Type: 5f4dcc3b"),
    Pair("header", "Cookie: session=8a7b; theme=dark", "8a7b", "Cookies were set; theme=dark"),
    Pair("header", "Api-Key:  s9s8", "s9s8", "Api-Version:  s9s8"),
    Pair("xml", "<Password>pl0m</Password>", "pl0m", "<Passage>pl0m</Passage>"),
    Pair("xml", '<c pass="qu1nce"/>', "qu1nce", '<c path="qu1nce"/>'),
    Pair("xml", "<s:apiKey>\n  me1on\n</s:apiKey>", "me1on", "<s:appKind>\n  me1on\n</s:appKind>"),
    Pair("xml", "<token><![CDATA[pap4ya]]></token>", "pap4ya", "<title><![CDATA[pap4ya]]></title>"),
    Pair("xml", '<property name="secret">pe4r</property>', "pe4r", '<property name="section">pe4r</property>'),
    Pair("xml", "&lt;password&gt;b3ach&lt;/password&gt;", "b3ach", "&lt;passenger&gt;b3ach&lt;/passenger&gt;"),
    Pair("yaml", "token: >-\n  long-secret-1\nnext: 1", "long-secret-1", "title: >-\n  long-secret-1\nnext: 1"),
    Pair("yaml", "- name: API_TOKEN\n  value: k-9", "k-9", "- name: API_LEVEL\n  value: k-9"),
    Pair("yaml", "secret: !!str abc9", "abc9", "select: !!str abc9"),
    Pair("ini", "[db]\npwd = n3ctarine", "n3ctarine", "[db]\ncwd = n3ctarine"),
    Pair("toml", 'access_key = "aa-bb"', "aa-bb", 'access_mode = "aa-bb"'),
    Pair("netrc", "machine api.example.com\n  login bot\n  password t0mato", "t0mato", "machine api.example.com\n  login bot\n  port 22"),
    Pair("pgpass", "db.example:5432:main:app:0nion", "0nion", "file.py:12:main:app:0nion"),
    Pair("code", "password = 'r4dish'", "r4dish", "password = input('Password? ')"),
    Pair("code", "token := \"le3k\"", "le3k", "token := os.Getenv(\"X\")"),
    Pair("code", "auth=('joe', 'x')\napi_key: str = 'be3t'", "be3t", "def f(password: str, token: str) -> None:"),
    Pair("code", "{'api_key' => 'kal3'}", "kal3", "{'api_kind' => 'kal3'}"),
    Pair("code", "os.environ['SECRET_KEY'] = 'ch4rd'", "ch4rd", "secret_key = os.environ['SECRET_KEY']"),
    Pair("json", json.dumps({"x": json.dumps({"password": 'a"b9'})}), 'b9', json.dumps({"x": json.dumps({"passage": 'a"b9'})})),
    Pair("query", "https://h.example/?token=ab12&x=1", "ab12", "https://h.example/?topic=ab12&x=1"),
    Pair("query", "https://h.example/?a=1&sig=Zm9v", "Zm9v", "https://h.example/?a=1&sigma=Zm9v"),
    Pair("url", "postgres://app:sp1nach@db/x", "sp1nach", "postgres://db/x?user=sp1nach"),
    Pair("url", "https://me:c4rrot@h.example/x.git", "c4rrot", "https://h.example/@me/c4rrot.git"),
    Pair("url", "amqp://u:celery-9@mq:5672", "celery-9", "amqp://mq:5672/celery-9"),
    Pair("webhook", "https://hooks.sl" + "ack.com/services/T" + U(8) + "/B" + U(8) + "/" + A(24), A(24), "https://hooks.slack.com/services/docs"),
    Pair("azure", "SharedAccessKey=" + A(43) + "=", A(43), "SharedAccessPolicy=none"),
    Pair("command", "svc --password=okra7 --x", "okra7", "svc --passive=okra7 --x"),
    Pair("command", "svc --api-key 'ye llow' run", "ye llow", "svc --api-kind 'ye llow' run"),
    Pair("command", "curl --user bob:turn1p https://h", "turn1p", "curl --data bob:turn1p https://h"),
    Pair("command", "mysql -uroot -pcabb4ge db", "cabb4ge", "cp -pcabb4ge db"),
    Pair("command", "redis-cli -a squ4sh ping", "squ4sh", "redis-cli -n squ4sh ping"),
    Pair("command", "sshpass -pfenn3l ssh h", "fenn3l", "ssh -p 2222 fenn3l@h"),
    Pair("command", "openssl enc -pass pass:endiv3", "endiv3", "openssl enc -aes-256-cbc endiv3"),
    Pair("command", "unzip -P ging3r a.zip", "ging3r", "unzip -d ging3r a.zip"),
    Pair("pem", PEM.format(""), A(64), PEM.format("").replace("PRIVATE", "PUBLIC")),
    Pair("pem", {"key": PEM.format("RSA ")}, A(40), {"key": "-----BEGIN CERTIFICATE-----\n" + A(64)}),
]  # fmt: skip

PEOPLE: list[Pair] = [
    Pair("iban", "IBAN DE89 3704 0044 0532 0130 00", "0532", "Ref DE88 3704 0044 0532 0130 00"),
    Pair("iban", "auf NL91ABNA0417164300 bitte", "NL91ABNA0417164300", "auf NL91ABNA0417164301 bitte"),
    Pair("iban", "es91 2100 0418 4502 0005 1332", "0418", "es92 2100 0418 4502 0005 1332"),
    Pair("iban", "CH9300762011623852957", "CH9300762011623852957", "CH9300762011623852958"),
    Pair("card", {"n": int(luhn("400000000000000"))}, luhn("400000000000000"), {"n": 4000000000000003}),
    Pair("card", "VISA " + luhn("411111111111111"), luhn("411111111111111"), "id 9111111111111116"),
    Pair("card", "3782 822463 10005", "822463", "3782 822463 10006"),
    Pair("card", "6011-1111-1111-1117", "6011-1111", "6011-1111-1111-1118"),
    Pair("phone", "+1 415 555 0132", "0132", "+1 415"),
    Pair("phone", "ring +49 (0)30 901820", "901820", "grew by +49 in 30 days"),
    Pair("phone", "Tél : +33 6 12 34 56 78", "12 34", "Total : +33 points"),
    Pair("phone", "06 12 34 56 78", "06 12 34", "06 12 34"),
    Pair("phone", "415-555-0132", "555-0132", "115-055-0132"),
    Pair("phone", "07700 900123", "900123", "17700 900123"),
    Pair("phone", "Mobile: 0171/1234567", "1234567", "Model: 0171/1234567"),
    Pair("phone", "+919876543210", "9876543210", "2026-01-15T10:00:00+05:30"),
    Pair("ssn", "078-05-1120", "078-05-1120", "000-05-1120"),
    Pair("ssn", "SSN: 219 09 9999", "219 09 9999", "666-09-9999"),
    Pair("mail", "to ann@mail.example.org now", "ann@mail", "to @ann on example.org now"),
    Pair("mail", "ann.lee+x@example.co", "ann.lee", "a@b and user@host"),
]  # fmt: skip

WRITTEN: list[Pair] = [
    Pair("look-alike", "раsswоrd=b4sil", "b4sil", "раssiоn=b4sil"),
    Pair("look-alike", "АРI_КЕY: th1me", "th1me", "АРI_КIND: th1me"),
    Pair("look-alike", "ѕecret: s4ge", "s4ge", "ѕection: s4ge"),
    Pair("look-alike", {"tоkеn": "m1nt"}, "m1nt", {"tоpіc": "m1nt"}),
    Pair("look-alike", "ｔｏｋｅｎ：d1ll", "d1ll", "ｔｏｐｉｃ：d1ll"),
    Pair("look-alike", "𝐩𝐚𝐬𝐬𝐰𝐨𝐫𝐝: ch1ve", "ch1ve", "𝐩𝐚𝐬𝐬𝐢𝐨𝐧: ch1ve"),
    Pair("look-alike", "to\u200bk\u200ben=p4rsley", "p4rsley", "to\u200bp\u200bic=p4rsley"),
    Pair("look-alike", "g\u200bh" + "p_" + A(36), A(36), "g\u200bh" + "p_short"),
    Pair("look-alike", "４１１１ １１１１ １１１１ １１１１", "１１１１", "４１１１ １１１１ １１１１ １１１２"),
    Pair("base64", "x=" + _b64("password=hunter2"), _b64("password=hunter2"), "x=" + _b64("passage=hunter22")),
    Pair("base64", _b64("gh" + "p_" + A(36), times=2), _b64("gh" + "p_" + A(36), times=2), _b64("ghp_" + "none, really", times=2)),
    Pair("base64", {"data": _b64('{"user":"x","token":"abc"}').rstrip("=")}, _b64('{"user":"x","token":"abc"}').rstrip("="), {"data": _b64('{"user":"x","topic":"abc"}')}),
    Pair("base64", base64.urlsafe_b64encode("?>~api_key=ÿÿ1~".encode()).decode(), base64.urlsafe_b64encode("?>~api_key=ÿÿ1~".encode()).decode(), base64.urlsafe_b64encode("?>~app_kin=ÿÿ1~".encode()).decode()),
    Pair("base64", "-enc " + base64.b64encode("$password='x1y2'".encode("utf-16-le")).decode(), base64.b64encode("$password='x1y2'".encode("utf-16-le")).decode(), "-enc " + base64.b64encode("$passage='x1y2'".encode("utf-16-le")).decode()),
    Pair("base64", "IBAN als " + _b64("DE89370400440532013000"), _b64("DE89370400440532013000"), "IBAN als " + _b64("DE89370400440532013001")),
    Pair("hex", "0x" + b"secret: tarragon".hex(), b"secret: tarragon".hex(), "0x" + b"select: tarragon".hex()),
    Pair("hex", b"Authorization: Bearer a1b2c3".hex().upper(), b"Authorization: Bearer a1b2c3".hex().upper(), b"Authentication of a1b2c3".hex().upper()),
    Pair("percent", "body=" + quote('{"password":"f3nugreek"}', safe=""), "f3nugreek", "body=" + quote('{"passage":"f3nugreek"}', safe="")),
    Pair("percent", "x=%70%61%73%73%77%6F%72%64%3Dcl0ve", "cl0ve", "x=%70%61%73%73%61%67%65%3Dcl0ve"),
    Pair("percent", "u=" + quote(quote("token=cumin9", safe=""), safe=""), "cumin9", "u=" + quote(quote("topic=cumin9", safe=""), safe="")),
    Pair("escape", '{"' + json_escaped("secret") + '": "sumac1"}', "sumac1", '{"' + json_escaped("select") + '": "sumac1"}'),
    Pair("escape", "\\x74\\x6f\\x6b\\x65\\x6e=anise3", "anise3", "\\x74\\x6f\\x70\\x69\\x63=anise3"),
    Pair("escape", "&#112;assword=carob4", "carob4", "&#112;assage=carob4"),
    Pair("escape", "password=&quot;nutm3g&quot;", "nutm3g", "passage=&quot;nutm3g&quot;"),
]  # fmt: skip

ORDINARY: list[Pair] = [
    Pair("id", "id 550e8400-e29b-41d4-a716-446655440000 token=ab1", "ab1", "id 550e8400-e29b-41d4-a716-446655440000"),
    Pair("hash", "sha256:" + H(64) + " pwd=ab2", "ab2", "sha256:" + H(64)),
    Pair("commit", "commit " + H(40) + "\nsecret: ab3", "ab3", "commit " + H(40) + "\nsection: ab3"),
    Pair("time", "1760000000000 api_key=ab4", "ab4", "1760000000000 2026-01-15T10:00:00.123456Z"),
    Pair("numbers", {"e": [0.123456789012, -4.25], "token": "ab5"}, "ab5", {"e": [0.123456789012, -4.25]}),
    Pair("usage", {"usage": {"total_tokens": 12}, "token": "ab6"}, "ab6", {"usage": {"total_tokens": 12, "max_tokens": 99}}),
    Pair("picture", {"i": "iVBORw0KGgo" + A(3000), "cookie": "ab7"}, "ab7", {"i": "iVBORw0KGgo" + A(3000)}),
    Pair("address", "192.168.100.200:8080 token ab: jwt=ab8", "ab8", "192.168.100.200:8080 and 2001:db8::8a2e:370:7334"),
    Pair("version", "v1.2.3-rc.1+build.20260115, passwd=ab9", "ab9", "v1.2.3-rc.1+build.20260115"),
    Pair("path", "/usr/local/lib/python3/site-packages/x.py password=c1", "c1", "/usr/local/lib/python3/site-packages/passlib/x.py"),
    Pair("link", "https://h.example/a?page=2#t token=c2", "c2", "https://h.example/a?page=2&key2=a#token"),
    Pair("places", "40.6894, -74.0447 secret=c3", "c3", "40.6894, -74.0447"),
    Pair("schema", {"password": "c4c4"}, "c4c4", {"type": "object", "required": ["password", "token"]}),
    Pair("money", "1 250 000,00 EUR credential=c5", "c5", "1 250 000,00 EUR and $12,345,678.90"),
    Pair("isbn", "978-3-16-148410-0 passphrase=c6", "c6", "978-3-16-148410-0"),
]  # fmt: skip

CORPUS: list[Pair] = [*PLACED, *NAMED, *PEOPLE, *WRITTEN, *ORDINARY]
