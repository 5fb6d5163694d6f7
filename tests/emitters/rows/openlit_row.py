import openlit
from cases import flush, run
from openai_cases import openai_cases
from opentelemetry import trace

openlit.init(disable_metrics=True)
run(openai_cases(trace.get_tracer("program")), flush, libraries=["openlit", "openai"])
