"""Flags of a program from the fields of a dataclass, so that name, type, default and help text stand once, together.

The text of a flag is the docstring under its field, and a comment line in the class body, `# Networks` say, begins a
group of flags in `--help`. A field without a default is a positional argument.
"""

import argparse
import ast
import difflib
import inspect
import re
import textwrap
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from common.run.faults import BadInput

KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


class _Parser(argparse.ArgumentParser):
    """Where argparse would print its usage and exit, it raises `BadInput`."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message.removeprefix('argument ')}; see --help")


class _Help(argparse.HelpFormatter):
    """Lines end at spaces, so that flags stay whole; indented lines of the description stay as they are."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = re.split(r"\n\s*\n", inspect.cleandoc(text))
        return "\n\n".join(p if p.startswith("    ") else "\n".join(self._split_lines(p, width)) for p in parts)


def read(config_class: type, description: str, arguments: Sequence[str], defaults: Any = None) -> Any:
    """Read flags into a config.

    Args:
        config_class: a dataclass with fields of int, float, str, bool, Path, Literal, tuples of these, or one or None.
        description: shown above the flags in `--help`.
        defaults: an instance whose values take the place of the fields' defaults.

    Raises:
        BadInput: a flag is unknown or misspelt, or its value is of another kind; or what `__post_init__` raises.
        SystemExit: `--help` was asked for and printed.
    """
    parser = _Parser(description=description, formatter_class=_Help, allow_abbrev=False, usage="%(prog)s [flags]")
    hints, (texts, groups) = get_type_hints(config_class), _explained(config_class)
    titles = dict.fromkeys(groups.get(f.name, "Flags") for f in fields(config_class))
    sections = {title: parser.add_argument_group(title) for title in titles}
    for f in fields(config_class):
        default = f.default if defaults is None else getattr(defaults, f.name)
        flag = "--" + f.name.replace("_", "-")
        if default is MISSING:
            flag, parser.usage = f.name, f"%(prog)s {f.name.upper()} [flags]"
        section = sections[groups.get(f.name, "Flags")]
        section.add_argument(flag, help=_help(texts.get(f.name, ""), default), **_kind(hints[f.name], default))
    found, rest = parser.parse_known_args(arguments)
    if rest:
        known = [option for action in parser._actions for option in action.option_strings]
        similar = difflib.get_close_matches(rest[0].split("=")[0], known, n=1)
        parser.error(f"{rest[0]}: no such flag" + (f" (perhaps {similar[0]}?)" if similar else ""))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()}
    return config_class(**values)


def _kind(hint: Any, default: Any) -> dict[str, Any]:
    """What argparse needs to know of a field: how many values of which type, from which choices."""
    kind: dict[str, Any] = {} if default is MISSING else {"default": default}
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        hint, *others = get_args(hint)
        kind["nargs"] = "*" if others == [...] else 1 + len(others)
    if hint is bool:
        if not default:
            return kind | {"action": "store_true"}
        return kind | {"type": _truth, "metavar": "{True,False}"}
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return kind | {"choices": choices, "type": type(choices[0])}
    return kind | {"type": hint, "metavar": KINDS[hint]}


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"{text} is not possible; it takes True or False")
    return text == "True"


def _help(text: str, default: Any) -> str:
    """A help text with the default, where there is one to show."""
    if default is MISSING or default is None or default is False or default == () or default == "":
        shown = ""
    else:
        values = default if isinstance(default, tuple) else (default,)
        shown = " ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        shown = f" (default: {shown})"
    return (text + shown).replace("%", "%%")


def _explained(config_class: type) -> tuple[dict[str, str], dict[str, str]]:
    """For each field its docstring and the title of its group, from the source of the class and those it extends."""
    texts: dict[str, str] = {}
    groups: dict[str, str] = {}
    for part in reversed(config_class.__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(part))
        except (OSError, TypeError):  # no source at hand
            continue
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.ClassDef)
        lines, title, seen = source.splitlines(), "Flags", 0
        for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            marks = (re.fullmatch(r"    # (.+)", line) for line in lines[seen : node.lineno])
            title, seen = next((mark[1] for mark in marks if mark), title), node.lineno
            groups.setdefault(node.target.id, title)  # a field that is set anew stays where it was
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[node.target.id] = str(after.value.value)
    return texts, groups
