"""A flow, walked step by step, with the output of one step edited on the way.

Needs a running server and an admin key of a project, in RUNGLASS_BASE_URL and RUNGLASS_API_KEY.
"""

from runglass import Client
from runglass.client.api.admin import Management

FLOW = """
slug: edit-a-step
inputs:
  type: object
  properties: {message: {type: string}}
  required: [message]
steps:
  - id: draft
    type: llm
    model: echo
    prompt: "{{ message }}"
  - id: count
    type: code
    code: |
      return {"text": text, "words": len(text.split())}
  - id: report
    type: code
    code: |
      return {"report": f"{words} words: {text}"}
"""


def main() -> None:
    with Client() as client:
        management = Management(client)
        home = management.own_flows()
        management.push(home.org, home.project, "edit-a-step", FLOW)
        management.publish(home.org, home.project, "edit-a-step")
        flow = client.flow(org=home.org, project=home.project, slug="edit-a-step")

        execution_id = ""
        for step in flow.steps(message="A draft that is much too long", trace=True):
            execution_id = step.execution_id
            print(f"{step.step_index} {step.step_id}: {step.output}")
            if step.step_id == "draft":
                step.replace_output({"text": "Short"})
                print("  replaced by: Short")

        # One run with one trace; it waited between the steps.
        print(f"the run has {flow.run(execution_id).wait().status}")


if __name__ == "__main__":
    main()
