"""The attacks of `prove hostile`, by family: what each file says is hostile is what its attacks send."""

from importlib import import_module

from tests.prove.attacking.attack import Family

_FILES = (
    *(
        "heads",
        "slow",
        "bodies",
        "overrides",
        "schemas",
        "yaml_files",
        "imports",
        "otlp",
        "templates",
        "code",
    ),
    *(
        "floods",
        "memory",
        "searches",
        "reading",
        "sign_ins",
        "browsers",
        "storms",
        "money",
        "providers",
        "leaks",
    ),
)
FAMILIES: list[Family] = [import_module(f"{__name__}.{file}").FAMILY for file in _FILES]
"""From what needs no key to what needs one."""
