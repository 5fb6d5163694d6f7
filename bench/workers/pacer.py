"""Sends a byte each time that an event is due, and as many as are due where it comes late itself."""

import socket
import time

from bench.answering import Message, answer


def pace(message: Message) -> Message:
    """`start_s` is on the machine's monotonic clock, which all processes share."""
    start_s, rate, events = message["start_s"], message["rate"], message["events"]
    sent, latest_s = 0, 0.0
    with socket.create_connection(("127.0.0.1", message["port"])) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while sent < events:
            now_s = time.monotonic()
            due = min(events, int((now_s - start_s) * rate) + 1) if now_s >= start_s else 0
            if due > sent:
                latest_s = max(latest_s, now_s - start_s - sent / rate)
                connection.sendall(b"." * (due - sent))
                sent = due
            time.sleep(max(0.0, start_s + sent / rate - time.monotonic()))
    return {"latest_ms": latest_s * 1000}


if __name__ == "__main__":
    answer(pace)
