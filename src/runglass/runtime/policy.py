"""Whether a caller may start a run, by the present rules of the project, the server and the flow.

The rules are in `flows/arguments.py` and `flows/models.py`; this file looks up the data for them.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from glob import escape
from typing import Any

from runglass.config.settings import Settings, SettingsError
from runglass.errors import APIError, api_error
from runglass.flows.arguments import check_fields, check_flow_models, check_new_models, models_in
from runglass.flows.flow import Flow, decode_flow
from runglass.flows.models import SettingRules
from runglass.limits.offload import offload, offload_in_turn
from runglass.limits.pace import paced_read
from runglass.store.catalog import Catalog
from runglass.store.records import Project, Role
from runglass.support.safe_text import suggestion

MOST_VERSIONS = 10_000
"""The most published versions whose models are kept."""
NAMED_FLOWS = 100
"""So many flows are looked through for one that was meant: 0.2 ms for each long name that is similar."""
PAGE_FLOWS = 200
"""Flows that are looked at in one go, which takes some tenths of a millisecond."""


def setting_rules(settings: Settings) -> SettingRules:
    """The rules for settings of llm steps. Raises SettingsError for what cannot be allowed."""
    try:
        return SettingRules(settings.allowed_settings)
    except ValueError as error:
        raise SettingsError(f"allowed_settings: {error}") from error


class RunPolicy:
    """The rules of one server. Raises SettingsError for `allowed_settings` that cannot be allowed."""

    def __init__(self, store: Catalog, settings: Settings) -> None:
        self._store = store
        self._allowed_models = settings.allowed_models
        self._rules = setting_rules(settings)
        self._models_of_version: dict[tuple[str, int], frozenset[str]] = {}

    def check_flow(self, project: Project, flow: Flow) -> None:
        """Raises FORBIDDEN for a model or settings that no flow of this project may use."""
        check_flow_models(flow, project.allowed_models, self._rules)

    async def no_flow(self, project: Project, slug: str) -> APIError:
        """FLOW_NOT_FOUND for a slug that the project does not have, with the one that may be meant."""
        where = f"{project.org}/{project.name}{await self.near_flow(project.id, slug)}"
        return api_error("FLOW_NOT_FOUND", f"there is no flow {slug!r} in {where}")

    async def near_flow(self, project_id: int, slug: str) -> str:
        """`; did you mean …?`, or nothing where no flow of the project has nearly that name."""
        slugs = [flow.slug for flow in await self._store.flows(project_id, limit=NAMED_FLOWS)]
        return await offload_in_turn(partial(suggestion, slug.lower(), slugs))

    async def check_overrides(
        self,
        project: Project,
        flow: Flow,
        overrides: Mapping[str, Mapping[str, Any]],
        *,
        role: Role,
        size_bytes: int,
    ) -> None:
        """Raises FORBIDDEN for an override of `flow` that a caller with this role may not make."""
        if not overrides or role == "admin":
            return
        check = partial(check_fields, flow, overrides, self._rules)
        models = await offload(check, size_bytes=size_bytes)
        if not models:
            return
        # The patterns are read now, as they may have changed since the call came in.
        current = await self._store.project(project.id) or project
        if current.allowed_models is not None:
            patterns: Collection[str] = current.allowed_models
            source = "the models of the project"
        elif self._allowed_models is not None:
            patterns, source = self._allowed_models, "the server's `allowed_models`"
        else:
            patterns = frozenset(map(escape, await self._published_models(project, models)))
            source = "those that the project's published flows name"
        check_new_models(models, patterns, source=source)

    async def _published_models(self, project: Project, models: Iterable[str]) -> frozenset[str]:
        """Those of `models` that published flows name. No more flows are read than it takes to find them."""
        wanted, found, after = set(models), set[str](), ""
        while not wanted <= found:
            page = partial(self._store.flows, project.id, after=after, limit=PAGE_FLOWS)
            # Most projects have no second page, and are not to wait for what else they read.
            records = await paced_read(project.id, page) if after else await page()
            for record in records:
                if record.production_version is not None:
                    found |= wanted & await self._models_of(record.id, record.production_version)
            if len(records) < PAGE_FLOWS:
                break
            after = records[-1].slug
        return frozenset(found)

    async def _models_of(self, flow_id: str, version: int) -> frozenset[str]:
        key = (flow_id, version)
        if key not in self._models_of_version:
            source = await self._store.flow_source(flow_id, version)
            flow = None if source is None else await offload_in_turn(partial(decode_flow, source))
            # A published version never changes, so its models are kept; the oldest entry goes first.
            while len(self._models_of_version) >= MOST_VERSIONS:
                self._models_of_version.pop(next(iter(self._models_of_version)))
            self._models_of_version[key] = frozenset() if flow is None else models_in(flow)
        return self._models_of_version[key]
