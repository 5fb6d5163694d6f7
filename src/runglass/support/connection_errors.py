"""What the failure of a connection means, in one plain sentence, whichever driver has met it."""

import socket
import ssl

_NOT_YET_VALID = 9
_EXPIRED = 10
_UNKNOWN_SIGNERS = frozenset({18, 19, 20, 21})
"""OpenSSL's numbers for a certificate, or one above it, that no CA at hand has signed."""
_OTHER_NAMES = frozenset({62, 64})
"""And for one of another host, or of another address."""


def plain_cause(error: Exception) -> str:
    """Why there is no connection. Drivers add hints in lines of their own, which are left out."""
    match error:
        case ssl.SSLCertVerificationError():
            return _of_certificate(error)
        case ssl.SSLError():
            return f"TLS does not come about ({error.reason or error})"
        case TimeoutError() if not str(error):
            return "there was no answer in time"
        case ConnectionRefusedError():
            return "nobody listens there (connection refused)"
        case socket.gaierror():
            return f"the name of the host is not known ({error.strerror})"
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    number = error.verify_code
    if number == _EXPIRED:
        return "its certificate has expired"
    if number == _NOT_YET_VALID:
        return "its certificate is not valid yet"
    if number in _UNKNOWN_SIGNERS:
        return f"its certificate is signed by none of the CAs that are trusted here ({error.verify_message})"
    if number in _OTHER_NAMES:
        return f"its certificate is for another host ({error.verify_message.rstrip('.')})"
    return f"its certificate is refused ({error.verify_message})"
