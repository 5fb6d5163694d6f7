import logfire
from anthropic_cases import anthropic_cases
from cases import flush, run

logfire.configure(send_to_logfire=False, console=False)
logfire.instrument_anthropic()
run(anthropic_cases(), lambda: (logfire.force_flush(), flush()), libraries=["logfire", "anthropic"])
