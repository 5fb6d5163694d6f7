"""The attacks of `prove hostile`, by family: what each file says is hostile is what its attacks send."""

from tests.prove.attacking.attack import Family
from tests.prove.attacks import bodies, browsers, code, floods, heads, imports, providers, reading, schemas

FAMILIES: list[Family] = [
    *(heads.HEADS, heads.SLOW, bodies.IN_BODIES, bodies.OVERRIDES, schemas.SCHEMAS, schemas.FLOW_FILES),
    *(imports.IMPORTS, imports.TRACES, code.BY_TEMPLATES, code.BY_CODE, floods.FLOODS, floods.MEMORY),
    *(reading.SEARCHES, reading.READING, browsers.SIGN_INS, browsers.FAMILY, floods.STORMS_OF_CALLS),
    *(providers.MONEY, providers.FAMILY, browsers.LEAKS),
]
"""From what needs no key to what needs one."""
