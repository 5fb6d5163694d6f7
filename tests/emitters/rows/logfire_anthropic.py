import logfire
from anthropic_cases import cases
from cases import flush, run

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_anthropic()
run(cases(), lambda: (logfire.force_flush(), flush()), libraries=["logfire", "anthropic"])
