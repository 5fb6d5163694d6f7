"""Managing the keys of the caller's own project; only a key with the role `admin` may."""

from dataclasses import dataclass
from typing import get_args

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.openapi.spec import OpenAPIMediaType, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from litestar.params import FromPath

from runglass.errors import KeyLimitReached, api_error
from runglass.keys import make_key
from runglass.management import KeyInfo, KeyList, KeyRequest, NewKeyInfo, Role
from runglass.server.answers import JSON
from runglass.server.asked import answer, body_of, documented
from runglass.server.auth import Asked, actor_of, require_admin, runtime_of
from runglass.server.bodies import read_body
from runglass.server.openapi import ReadingOperation
from runglass.server.revocation import ongoing_of
from runglass.store.base import ApiKey

TAGS = ["Managing keys"]


@dataclass
class CreateOperation(ReadingOperation):
    """An operation whose body names a role."""

    def __post_init__(self) -> None:
        super().__post_init__()
        body = Schema(
            type=OpenAPIType.OBJECT,
            required=["role"],
            properties={"role": Schema(type=OpenAPIType.STRING, enum=list(get_args(Role)))},
            additional_properties=True,
        )
        self.request_body = RequestBody({JSON: OpenAPIMediaType(body)}, required=True)


@get(
    "/",
    responses=documented(KeyList, "The keys, oldest first."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="The project's keys",
)
async def keys(request: Asked) -> Response[bytes]:
    """The keys of the caller's project, revoked ones too: their beginnings, never the keys."""
    require_admin(request)
    found = await runtime_of(request).store.keys(request.auth.project_id)
    return answer(KeyList(keys=[_info(key) for key in found]))


@post(
    "/",
    status_code=201,
    responses=documented(NewKeyInfo, "The key, shown this once.", status=201),
    operation_class=CreateOperation,
    tags=TAGS,
    summary="Make a key",
)
async def create_key(request: Asked) -> Response[bytes]:
    """Makes a key for the caller's project. Only its hash is kept, so it must be noted now."""
    require_admin(request)
    asked = read_body(await body_of(request), KeyRequest)
    made = make_key()
    runtime = runtime_of(request)
    try:
        key = await runtime.store.add_key(
            request.auth.project_id,
            asked.role,
            made.digest,
            made.hint,
            most=runtime.settings.max_keys_per_project,
            by=actor_of(request),
        )
    except KeyLimitReached as error:
        raise api_error("FORBIDDEN", str(error)) from error
    return answer(NewKeyInfo(**msgspec.structs.asdict(_info(key)), key=made.key), status=201)


@delete(
    "/{key_id:int}",
    status_code=200,
    responses=documented(KeyInfo, "The key, revoked."),
    operation_class=ReadingOperation,
    tags=TAGS,
    summary="Revoke a key",
)
async def revoke_key(request: Asked, key_id: FromPath[int]) -> Response[bytes]:
    """Makes a key useless, at once and for good; what is being answered to it ends.

    A key cannot revoke itself: another one must be left.
    """
    require_admin(request)
    store, project_id = runtime_of(request).store, request.auth.project_id
    if not any(key.id == key_id for key in await store.keys(project_id)):
        raise api_error("KEY_NOT_FOUND", f"the project has no key {key_id}")
    if key_id == request.auth.id:
        raise api_error("FORBIDDEN", f"key {key_id} cannot revoke itself; make another one and use that")
    await store.revoke_key(project_id, key_id, by=actor_of(request))
    await ongoing_of(request).end_key(key_id)
    revoked = next(key for key in await store.keys(project_id) if key.id == key_id)
    return answer(_info(revoked))


KEYS = Router("/keys", route_handlers=[keys, create_key, revoke_key])


def _info(key: ApiKey) -> KeyInfo:
    return msgspec.convert(key, KeyInfo, from_attributes=True)
