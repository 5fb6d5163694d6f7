from cases import flush, run
from langchain_cases import LIBRARIES, cases
from langchain_core.tracers.langchain import wait_for_all_tracers
from langsmith import Client

client = Client()


def sent():
    wait_for_all_tracers()
    client.flush()
    flush()


run(cases(), sent, libraries=["langsmith", *LIBRARIES])
