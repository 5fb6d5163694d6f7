"""What callers may override: nothing that a flow does not offer, and no setting that has no place."""

from typing import get_args

import msgspec
import pytest

from runglass.errors import APIError, FlowFileError
from runglass.flows.arguments import check_fields
from runglass.flows.flow import Flow, LeafStep
from runglass.flows.models import EXTRAS, NEVER, PLAIN, PRICED, CommonSettings, SettingRules
from runglass.flows.parser import parse_flow
from tests.flows import smallest_step


def test_every_setting_of_the_library_is_allowed_or_refused_by_name() -> None:
    """One that pydantic-ai or we add must be given its place: with all of them, or among those with care."""
    assert set(CommonSettings.__struct_fields__) == PLAIN | {PRICED} | set(EXTRAS)
    assert not any(EXTRAS[name] & NEVER[name] for name in EXTRAS)


@pytest.mark.parametrize("overridable", ['"code"', "[coode]", "[5]", "[id]", "[name]"])
def test_a_flow_may_offer_existing_fields_alone(overridable: str) -> None:
    text = f"slug: a\noverridable: {overridable}\nsteps: [{{id: a, type: passthrough}}]"
    with pytest.raises(FlowFileError, match="overridable"):
        parse_flow(text)


@pytest.mark.parametrize("kind", get_args(LeafStep))
def test_no_field_of_any_kind_of_step_is_open_unless_the_flow_says_so(kind: type[LeafStep]) -> None:
    flow = msgspec.convert({"slug": "a", "overridable": [], "steps": [smallest_step(kind)]}, Flow)
    for field in msgspec.structs.fields(kind):
        if field.name in ("id", "name"):
            continue
        with pytest.raises(APIError, match=f"list '{field.encode_name}' in the flow's `overridable`"):
            check_fields(flow, {"here": {field.encode_name: "another value"}}, SettingRules({}))
