"""The blocking client, written from `aio/` but for `native.py`. Knows nothing of sockets and frames."""
