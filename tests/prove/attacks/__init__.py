"""The attacks of `prove hostile`, by family: what each file says is hostile is what its attacks send."""

from tests.prove.attacks import (
    bodies,
    browsers,
    code,
    floods,
    heads,
    imports,
    leaks,
    memory,
    money,
    overrides,
    reading,
    schemas,
    searches,
    sign_ins,
    slow,
    storms,
    templates,
    yaml_files,
)

FAMILIES = (
    heads.FAMILY,
    slow.FAMILY,
    bodies.FAMILY,
    overrides.FAMILY,
    schemas.FAMILY,
    yaml_files.FAMILY,
    imports.FAMILY,
    templates.FAMILY,
    code.FAMILY,
    floods.FAMILY,
    memory.FAMILY,
    searches.FAMILY,
    reading.FAMILY,
    sign_ins.FAMILY,
    browsers.FAMILY,
    storms.FAMILY,
    money.FAMILY,
    leaks.FAMILY,
)
"""From what needs no key to what needs one."""
