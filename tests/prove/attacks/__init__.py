"""The attacks of `prove hostile`, by family: what each file says is hostile is what its attacks send."""

from importlib import import_module

from tests.prove.attacking.attack import Family

_WITHOUT_A_KEY = "heads slow bodies overrides schemas yaml_files imports otlp templates code"
_WITH_ONE = "floods memory searches reading sign_ins browsers storms money providers leaks"
FAMILIES: list[Family] = [
    import_module(f"{__name__}.{file}").FAMILY for file in f"{_WITHOUT_A_KEY} {_WITH_ONE}".split()
]
"""From what needs no key to what needs one."""
