import openlit
from cases import flush, run
from openai_cases import cases

openlit.init(disable_metrics=True)
run(cases(), flush, libraries=["openlit", "openai"])
