"""The log as JSON: one object on a line, for programs that collect logs."""

import json
import logging
from datetime import UTC, datetime

from runglass.engine.scheduling.pacing import current_project
from runglass.support.logs import request_id, run_id


class JsonLog(logging.Formatter):
    """Makes `{"at", "level", "logger", "message"}` of a record, with ids and the failure where there are any.

    The line is ASCII, so nothing in a message can take over a terminal or begin a line of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "requestId": request_id.get(),
            "runId": run_id.get(),
            "projectId": current_project.get(),
            "failure": self.formatException(record.exc_info) if record.exc_info else "",
        }
        return json.dumps({name: value for name, value in told.items() if value})
