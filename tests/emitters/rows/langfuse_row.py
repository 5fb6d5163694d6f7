import contextlib

from cases import flush, run
from langfuse import get_client, propagate_attributes
from langfuse.openai import AsyncOpenAI, OpenAI
from openai_cases import cases

client = get_client()


@contextlib.contextmanager
def session(name):
    with (
        client.start_as_current_observation(as_type="agent", name="turn", input=name) as turn,
        propagate_attributes(session_id=name, user_id="ada", tags=["weather"]),
    ):
        yield
        turn.update(output="done")


run(
    cases(session, OpenAI(max_retries=0), AsyncOpenAI(max_retries=0)),
    lambda: (client.flush(), flush()),
    libraries=["langfuse", "openai"],
)
