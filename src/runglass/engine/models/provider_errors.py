"""The meaning of a provider's exception for a step: its code, whether to try again, and how long to wait.

The one place that knows pydantic-ai's exception tree. The texts that it hands on are bounded and free of API
keys.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from traceback import walk_tb
from typing import Any
from urllib.parse import urlsplit

import msgspec
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.models import download_item

from runglass.engine.models.answer_bounds import ProviderCall
from runglass.engine.models.model_types import ModelCallFailed
from runglass.errors import RETRY_AFTER, StepFailure
from runglass.redact import strike_known
from runglass.support.logs import plain_cause
from runglass.support.safe_text import replace_surrogates

EXCERPT = 2048
"""Characters of a provider's or a model's text that an error keeps."""
MOST_WAIT_S = 7 * 24 * 3600
"""A provider that asks for a longer wait is taken to have asked for a week."""

CALL_ERRORS = (ModelAPIError, UnexpectedModelBehavior, UserError, OSError, NotImplementedError)
"""Exceptions of a call to a provider that are due to the provider or the network."""

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET")
_SHORTEST_SECRET = 8
_LONGEST_SEARCHED = 64 * 1024
"""Characters of a provider's text that are looked through; an error keeps far less of them."""
_NOT_NOW = frozenset({408, 409, 425, 429})
"""The statuses of 4xx after which the same request may be taken."""
_REFUSED = frozenset({503, 529})
"""Statuses beside 3xx and 4xx with which a provider takes no work."""
_REDIRECTS = range(300, 400)
"""They are not followed, and come again."""
_NOT_CONNECTED = frozenset({"pool", "connect"})
"""The phases of a request in which a connection for it is still missing."""
_DEEPEST_CAUSE = 10
_WORDS = ("message", "error", "detail")
"""Members of the JSON of an error in which providers say what it is."""


class NoStream(UnexpectedModelBehavior):
    """A server answered in one piece where a stream was asked for."""


def setup_failure(error: Exception, *, model: str, secrets: Iterable[str] = ()) -> StepFailure:
    """Why no client for `model` could be made: a missing key, a missing package, an unknown name."""
    provider = model.partition(":")[0]
    if isinstance(error, ImportError):
        extra = re.search(r"pydantic-ai-slim\[([\w-]+)\]", str(error))
        package = f'"pydantic-ai-slim[{extra[1]}]"' if extra else "the provider's package"
        message = f"model {model!r} needs a package that is not installed: pip install {package}"
        return StepFailure("MODEL_NOT_SUPPORTED", message, may_retry=False, details={"provider": provider})
    said = without_secrets(replace_surrogates(str(error)), secrets)[:EXCERPT]
    variables = re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`", said)
    if any(_SECRET_NAME.search(name) for name in variables):
        message = (
            f"no API key for provider {provider!r}: set {' or '.join(dict.fromkeys(variables))} in the "
            f"environment of the process that executes runs, or the key in its setting `provider_keys`"
        )
        return StepFailure("PROVIDER_KEY_MISSING", message, may_retry=False, details={"provider": provider})
    message = f"model {model!r} cannot be used: {said}"
    if isinstance(error, ValueError):
        message += "; an OpenAI-compatible server gets a name by the setting `providers`"
    return StepFailure("MODEL_NOT_SUPPORTED", message, may_retry=False, details={"provider": provider})


def call_failure(
    error: Exception, *, model: str, url: str | None = None, secrets: Iterable[str] = ()
) -> ModelCallFailed:
    """The failure of a call to `model` at `url`; `error` is one of `CALL_ERRORS`."""
    provider = model.partition(":")[0]
    status = error.status_code if isinstance(error, ModelHTTPError) else None
    if (of_cause := getattr(error.__cause__, "status_code", None)) in _REDIRECTS:
        # Of these pydantic-ai tells no status.
        status = of_cause
    is_connected = getattr(error, "phase", None) not in _NOT_CONNECTED
    may_be_charged = is_connected if status is None else status_may_be_charged(status)
    said = without_secrets(replace_surrogates(_provider_message(error)), secrets)[:EXCERPT]
    details: dict[str, Any] = {"provider": provider, "model": model, "providerMessage": said}
    code, what, may_retry = _meaning(error, status, is_connected=is_connected)
    where = asked = ""
    if address := without_secrets(address_of(url), secrets):
        details["address"], where = address, f" at {address}"
    if status is not None:
        details["status"], asked = status, f", status {status}"
    waited = error.retry_after if isinstance(error, ModelAPIError) and may_retry else None
    if waited is not None:
        details[RETRY_AFTER] = round(min(waited, MOST_WAIT_S) * 1000)
    words = said[:500] or "its answer is empty"
    in_stream = getattr(error, "in_stream", False)
    is_fault = (status or 0) >= 500 and waited is None and not in_stream
    return ModelCallFailed(
        code,
        f"provider {provider!r}{where} {what} (model {model!r}{asked}): {words}",
        may_be_charged=may_be_charged or in_stream,
        may_retry=may_retry,
        details=details,
        server_error=hash((status, repr(getattr(error, "body", None)))) if is_fault else None,
    )


def call_error(error: Exception, call: ProviderCall) -> Exception:
    """The error of a library as one of `CALL_ERRORS`, with what came in the place of an answer.

    It stays as it is where neither the provider nor an image can be the reason.
    """
    if not isinstance(error, CALL_ERRORS):
        what, cause = f"{type(error).__name__}: {error}", error
        if any(frame.f_code is download_item.__code__ for frame, _ in walk_tb(error.__traceback__)):
            # Google's models are not sent the address of an image, but what is there.
            error = UserError(what)
        elif call.is_sent:
            # Libraries take an answer for what it should be, and fail somewhere inside of it.
            error = UnexpectedModelBehavior(f"it cannot be read: {what}")
        else:
            return error
        error.__cause__ = cause
    if call.loose and isinstance(error, UnexpectedModelBehavior | ModelAPIError) and error.body is None:
        said: Any = call.loose.decode(errors="replace")
        with suppress(msgspec.DecodeError, RecursionError):
            said = msgspec.json.decode(call.loose)
        # JSON that cannot be decoded may be an answer of the model, cut off.
        is_text = isinstance(said, str) and not said.lstrip().startswith(("{", "["))
        if is_text or (isinstance(said, dict) and any(map(said.get, _WORDS))):
            error.body = said
        elif isinstance(said, dict) and call.is_streamed and not isinstance(error, ModelHTTPError):
            return NoStream("no stream came, but an answer in one piece")
    return error


def address_of(url: str | None) -> str:
    """Where a provider was asked: `url` without credentials, query and fragment; "" where there is none."""
    parts = urlsplit(url or "")
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}" if host else ""


def rejects_output_format(error: Exception) -> bool:
    """Whether a model refused, before it wrote anything, to be held to a JSON Schema natively.

    A UserError is the library's own refusal to ask for that, or about an image, which is its cause then.
    """
    # llama-cpp-python answers 500 to a format that it does not know, so the words count more than the status.
    refused = (ModelRequestRejectedError, ModelServerError, UserError)
    if not isinstance(error, refused) or getattr(error, "in_stream", False):
        return False
    if isinstance(error, UserError) and error.__cause__ is not None:
        return False
    said = f"{error} {getattr(error, 'body', '')}".lower()
    return any(word in said for word in ("response_format", "output_format", "nativeoutput", "schema"))


def rejects_streaming(error: Exception) -> bool:
    """Whether a server refused, before it wrote anything, to stream."""
    refused = (ModelRequestRejectedError, NotImplementedError, NoStream)
    if not isinstance(error, refused) or getattr(error, "in_stream", False):
        return False
    return re.search(r"\bstream", f"{error} {getattr(error, 'body', '')}".lower()) is not None


def without_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with every given secret, and every key or token of the environment, struck out.

    A provider may have reversed, escaped or encoded a key: these forms go, too. A very long text is cut.
    """
    environment = (value for name, value in os.environ.items() if _SECRET_NAME.search(name))
    known = [secret for secret in {*secrets, *environment} if len(secret) >= _SHORTEST_SECRET]
    struck = strike_known(text[:_LONGEST_SEARCHED], known, "[key]")
    if len(text) <= _LONGEST_SEARCHED:
        return struck
    # The cut may have gone through a secret, whose longest form has four letters for one.
    return struck[: max(0, len(struck) - 4 * max(map(len, known), default=0))]


def status_may_be_charged(status: int) -> bool:
    """Whether the model may have generated tokens, as far as the status of the answer tells."""
    # A time-out or a bad gateway says nothing about the model behind it.
    return status not in _REFUSED and not (300 <= status < 500 and status != 408)


def _meaning(error: Exception, status: int | None, *, is_connected: bool) -> tuple[str, str, bool]:
    """Code, words and whether another attempt may end differently."""
    is_final = isinstance(error, ModelRequestRejectedError)
    if status is not None and 300 <= status < 500:
        is_final = status not in _NOT_NOW
    match error:
        case ModelRateLimitError() if not is_final:
            return "RATE_LIMITED", "asked to slow down", True
        case ModelQuotaExceededError():
            return "PROVIDER_ERROR", "says that the account's quota is used up", False
        case ModelAuthenticationError():
            return "BYOK_KEY_REJECTED", "rejected the configured key", False
        case ModelAPIError() if error.provider_error_code == "model_not_found":
            return "MODEL_NOT_SUPPORTED", "does not know this model", False
        case ModelHTTPError() if status in _NOT_NOW:
            return "PROVIDER_UNAVAILABLE", "does not take the request now", True
        case ModelHTTPError() if not is_final:
            return "PROVIDER_UNAVAILABLE", "failed", True
        case ModelConnectionError() if not is_connected:
            return "PROVIDER_UNAVAILABLE", "could not be reached", True
        case ModelTimeoutError():
            return "PROVIDER_UNAVAILABLE", "did not answer in time", True
        case ModelAPIError() if not is_final:
            return "PROVIDER_UNAVAILABLE", "sent an incomplete or garbled answer", True
        case UnexpectedModelBehavior() | OSError():
            return "PROVIDER_UNAVAILABLE", "sent an incomplete or garbled answer", True
        case UserError():
            return "INVALID_INPUT", "could not be asked", False
        case _:
            return "PROVIDER_ERROR", "refused the request", False


def _provider_message(error: Exception) -> str:
    """The provider's own sentence where its error body has one in a usual place."""
    if isinstance(error, ModelConnectionError):
        # The libraries of providers say no more than that there is an error of the connection.
        return plain_cause(_first_cause(error))
    body = getattr(error, "body", None)
    for _ in range(3):
        if not isinstance(body, dict):
            break
        body = next((body[key] for key in _WORDS if body.get(key)), None)
    if isinstance(body, str):
        return body
    # A library hands on whatever stands in the place of words.
    return str(error.message or "") if isinstance(error, ModelAPIError) else str(error)


def _first_cause(error: Exception) -> Exception:
    for _ in range(_DEEPEST_CAUSE):
        cause = error.__cause__ or error.__context__
        if isinstance(error, ExceptionGroup):
            # A host may have several addresses, each with a failure of its own.
            cause = error.exceptions[0]
        if not isinstance(cause, Exception):
            break
        error = cause
    return error
