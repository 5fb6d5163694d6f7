"""A caller's tools, checked against the flow."""

from runglass.engine.journal.run_spec import ToolOffer
from runglass.errors import api_error
from runglass.flows.flow import Flow, LlmStep, leaves
from runglass.server.requests.tools import check_tools, whole_choice
from runglass.wire.run_api import ToolRequest


def offer_of(asked: ToolRequest, before: ToolOffer | None = None) -> ToolOffer | None:
    """The tools of the request, or else `before`, those of the paused run; None where there are none.

    A `toolChoice` of the request applies to either. Raises TOOLS_INVALID, TOOL_NAME_INVALID.
    """
    tools = asked.tools or (before.tools if before is not None else [])
    check_tools(tools, asked.tool_choice)
    if not tools:
        return None
    if before is not None and not asked.tools and asked.tool_choice is None:
        return before
    return ToolOffer(tools=tools, choice=whole_choice(asked.tool_choice))


def check_takers(flow: Flow) -> None:
    """Raises TOOLS_IN_NON_SEQUENTIAL_STEP or TOOLS_NOT_ENABLED where no step of the flow takes tools."""
    asking = [step for step in leaves(flow.steps) if isinstance(step, LlmStep)]
    top = [step for step in flow.steps if isinstance(step, LlmStep)]
    if asking and not top:
        raise api_error(
            "TOOLS_IN_NON_SEQUENTIAL_STEP",
            f"all llm steps of flow {flow.slug!r} are inside loops, branches or parallel parts, where no run"
            " can wait for tool results",
        )
    if not any(step.tools for step in top):
        raise api_error("TOOLS_NOT_ENABLED", f"no llm step of flow {flow.slug!r} takes a caller's tools")
