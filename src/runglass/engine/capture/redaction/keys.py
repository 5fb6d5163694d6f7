"""Which names tell of a secret. Strong ones hide any value, weak ones a value that looks secret."""

import functools
import re
from collections.abc import Callable, Iterable
from itertools import accumulate

from runglass.engine.capture.redaction.views import plain_word

DEFAULT_KEYS = (
    "pass word", "passwd", "pass phrase", "pass code", "pwd", "secret", "token", "jwt", "authorization",
    "cookie", "credential", "session_id", "session_key", "api_key", "access_key", "secret_key",
    "secret_access_key", "private_key", "signing_key", "encryption_key", "master_key", "auth_key",
    "account_key", "shared_access_key", "security_code", "verification_code", "recovery_code", "backup_code",
    "seed_phrase", "recovery_phrase", "card_number", "cvv", "cvc", "iban", "ssn", "social_security_number",
    "Passwort", "Kennwort", "contraseña", "contrasena", "clave secreta", "senha", "mot de passe",
    "wachtwoord", "lösenord", "adgangskode", "passord", "salasana", "hasło", "heslo", "jelszó", "şifre",
    "mật khẩu", "пароль", "密码", "密碼", "口令", "パスワード", "暗証番号",
    "비밀번호", "كلمة المرور", "كلمة السر", "סיסמה",
)  # fmt: skip
"""How a telling key ends, whatever its case and separators: `token` also speaks of `accessToken`.

Digits may follow, and words that leave it what it is: `password1`, `db_password_prod`, `tokenValue`.
"""
ABOUT = (
    "at", "budget", "cost", "count", "counts", "enabled", "endpoint", "expires", "expiry", "field", "file",
    "hash", "hashed", "id", "ids", "in", "length", "limit", "limits", "max", "min", "name", "path", "per",
    "policy", "price", "prompt", "rate", "required", "size", "stdin", "strength", "total", "ttl", "type",
    "uri", "url", "usage", "used",
)  # fmt: skip
"""Words behind a telling key that make it speak of something about the secret: `token_count`."""

_METHODS = frozenset((
    "none", "basic", "bearer", "digest", "oauth", "oauth1", "oauth2", "oauth2.0", "oidc", "saml", "saml2",
    "jwt", "ldap", "ntlm", "kerberos", "mtls", "apikey", "api_key", "api-key", "token", "password",
    "required", "optional", "anonymous", "sha1", "sha256", "sha512", "md5", "hs256", "rs256", "es256",
    "scram-sha-1", "scram-sha-256", "plain", "login", "trust", "peer",
))  # fmt: skip
_NO_PASSWORDS = frozenset((
    "pass", "passed", "fail", "failed", "none", "null", "true", "false", "yes", "skip", "skipped", "all",
    "first", "second",
))  # fmt: skip


def _is_password(value: str) -> bool:
    """A word with a digit or a sign in it, or a longer one alone; `12` and `second run` are no passwords."""
    low = value.lower()
    if len(value) < 4 or low in _NO_PASSWORDS or re.fullmatch(r"[\d.,%/ ]+", value):
        return False
    return " " not in value.strip() or re.search(r"\d", value) is not None


def _is_authority(value: str) -> bool:
    if len(value) < 6 or value.lower() in _METHODS or value.startswith(("http://", "https://", "/")):
        return False
    return re.fullmatch(r"(?:(?i:basic|bearer|token) )?[^\s]{6,}+", value) is not None and (
        len(value) >= 20 or re.search(r"\d|\S:\S", value) is not None
    )


def _is_bearer(value: str) -> bool:
    return re.fullmatch(r"[\w.~+/=-]{8,}+", value) is not None and (
        len(value) >= 20 or re.search(r"\d", value) is not None
    )


def _is_pin(value: str) -> bool:
    return re.fullmatch(r"\d{4,12}", value) is not None


def _is_once(value: str) -> bool:
    return re.fullmatch(r"(?=[A-Za-z]*+\d)[A-Za-z0-9]{4,12}|\d{3}[ -]\d{3}", value) is not None


def _is_phone(value: str) -> bool:
    digits = re.sub(r"\D", "", value)
    return 7 <= len(digits) <= 15 and re.fullmatch(r"\+?[\d ()/.x-]{7,25}", value) is not None


WEAK: dict[str, Callable[[str], bool]] = {
    "pass": _is_password, "auth": _is_authority, "bearer": _is_bearer, "pin": _is_pin, "otp": _is_once,
    "totp": _is_once, "phone": _is_phone, "telephone": _is_phone, "telefon": _is_phone, "mobile": _is_phone,
    "cell": _is_phone, "tel": _is_phone, "fax": _is_phone,
}  # fmt: skip
"""Names that are also parts of ordinary ones, and what a value under them must look like to be a secret."""
WEAK_PREFIXES = (
    "db", "user", "usr", "smtp", "ftp", "sftp", "ssh", "imap", "mysql", "pg", "root", "admin", "my", "ldap",
    "redis", "mail", "email", "proxy", "http", "sudo", "wifi", "mongo",
)  # fmt: skip
WEAK_SUFFIXES = ("code", "no", "nr", "num", "number", "key", "value", "string", "str")


class Keys:
    """Judges names of fields; `extra` are further strong keys. Raises ValueError for one without letters."""

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self.strong = [words(key) for key in (*DEFAULT_KEYS, *extra)]
        if [] in self.strong:
            raise ValueError("a key to redact must have a letter or a digit")
        self._end = re.compile(f"(?:{'|'.join(' ?'.join(map(re.escape, key)) for key in self.strong)})$")
        self.kind = functools.lru_cache(maxsize=4096)(self._kind)

    def tells(self, name: str, value: object) -> bool:
        """Whether the value under this name is a secret; `name` is cut to its end by the caller."""
        kind = self.kind(name)
        return kind is not None and hides(kind, value)

    def _kind(self, name: str) -> str | None:
        """`strong`, a name of `WEAK`, or None."""
        # Keys of scripts that have no Latin look-alikes are found as they are written.
        for spelling in {name, plain_word(name)}:
            parts = words(spelling)
            begun = list(accumulate(parts, "{} {}".format))
            if any(map(self._is_strong, begun, [*parts[1:], ""])):
                return "strong"
            while len(parts) > 1 and (parts[-1] in WEAK_SUFFIXES or parts[-1].isdigit()):
                parts.pop()
            last = parts[-1].rstrip("0123456789") if parts else ""
            for weak in WEAK:
                if last == weak or (last.endswith(weak) and last.removesuffix(weak) in WEAK_PREFIXES):
                    return weak
        return None

    def _is_strong(self, key: str, after: str) -> bool:
        plain = key.rstrip(" 0123456789")
        # `max_tokens` ends like a plural, and it holds no secret.
        singular = plain if plain.endswith("tokens") else plain.removesuffix("s")
        ends = self._end.search(plain) or self._end.search(singular)
        return ends is not None and after not in ABOUT


def hides(kind: str, value: object) -> bool:
    """Whether a value under a name of this kind is a secret."""
    if value is None or value is True or value is False:
        return False
    return kind == "strong" or fits(kind, value)


def fits(kind: str, value: object) -> bool:
    """Whether a value under a weak name looks like a secret; of a pair of user and password each part may."""
    if isinstance(value, str):
        return WEAK[kind](value.strip())
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(isinstance(part, str) and part for part in value) and kind == "auth"
    return type(value) is int and kind != "pass" and WEAK[kind](str(value))


def words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.split(r"[\W_]+", apart) if word]
