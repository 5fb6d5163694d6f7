"""Runs cases that libraries watch by an instrumentor of theirs: `CASES MODULE...`."""

import importlib
import inspect
import sys

from cases import flush, otel, run
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

name, *instrumentations = sys.argv[1:]
module = importlib.import_module(f"{name}_cases")
otel()
for each in instrumentations:
    found = vars(importlib.import_module(each)).values()
    (instrumentor,) = {it for it in found if inspect.isclass(it) and BaseInstrumentor in it.__bases__}
    instrumentor().instrument()
own = {}
if "openinference" in instrumentations[0] and "session" in inspect.signature(module.cases).parameters:
    from openinference.instrumentation import using_session

    own["session"] = using_session
libraries = [each.replace(".", "-").replace("_", "-") for each in instrumentations]
run(module.cases(**own), flush, libraries=[*libraries, *module.LIBRARIES])
