"""The command line of a script: flags from its `Config`, one clear line for bad input, exit codes.

0 success, 1 a fault of the machine or a diverged training, 2 bad input, 130 and 143 stopped by SIGINT and SIGTERM.
"""

import contextlib
import io
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro

T = TypeVar("T")
OUT_OF_MEMORY = re.compile("allocate memory|out of memory|not enough memory|ALLOC_FAILED")
Recipes = Mapping[str, Callable[[Any], dict[str, Any]]]
"""Of each recipe the settings that take the place of the defaults; they may depend on a config, on its target, say."""


class BadInput(Exception):
    """Something the user can mend; the message is one line that names the flag or file, what was found, what to do."""


class TrainingFailed(Exception):
    """Training cannot go on; the message is one line that names the step and the values."""


def configured(config_class: type[T], recipes: Recipes, recipe: str, **changes: Any) -> T:
    """The config of a recipe with some settings changed, as flags would change them."""
    plain = config_class(**changes)
    return config_class(**{**recipes[recipe](plain), "recipe": recipe, **changes})


def parse(
    config_class: type[T], description: str, arguments: Sequence[str] | None = None, recipes: Recipes | None = None
) -> T:
    """Read flags into a config.

    Args:
        config_class: a frozen dataclass; field docstrings are the help texts, `__post_init__` raises `BadInput`.
        description: shown above the flags in `--help`; a script passes its docstring.
        arguments: flags, by default those of the process.
        recipes: sets of defaults; the config then has a field `recipe`, and its flag chooses one.

    Raises:
        BadInput: a flag is unknown, misspelt or has an impossible value.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    chosen = re.search(r"--recipe[= ](\S+)", " ".join(arguments))
    if not recipes or not chosen or chosen[1] not in recipes:
        return _read(config_class, description, arguments)
    asked = [argument for argument in arguments if argument not in ("-h", "--help")]
    values = recipes[chosen[1]](_read(config_class, description, asked))
    return _read(config_class, description, arguments, replace(config_class(), **values))


def _read(config_class: type[T], description: str, arguments: Sequence[str], default: T | None = None) -> T:
    printed, settings = io.StringIO(), {"description": description, "config": (tyro.conf.FlagCreatePairsOff,)}
    if default is not None:
        settings["default"] = default
    try:
        with contextlib.redirect_stderr(printed):
            return _at_home(tyro.cli(config_class, args=arguments, **settings))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise BadInput(_one_line(printed.getvalue())) from None


def _at_home(config: T) -> T:
    """A config whose paths that begin with ~ are in the user's home, also where the shell left them: `--out=~/x`."""
    paths = {f.name: getattr(config, f.name) for f in fields(config)}
    moved = {
        name: path.expanduser() for name, path in paths.items() if isinstance(path, Path) and path.parts[:1] == ("~",)
    }
    return replace(config, **moved) if moved else config


def _one_line(box: str) -> str:
    """The message inside the frame that tyro draws around an error, as one line.

    The frame is of box-drawing characters, its title in the border, or, where the terminal has none, of dashes, the
    title in a part of its own. On a terminal it is coloured.
    """
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [row.strip("│ ") for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    parts = re.split(r"(?:─|-){10,}", "\n".join(rows))
    if not box.startswith("╭"):
        del parts[0]
    message, rest = " ".join(parts[0].split()), " ".join(parts[1:])
    message = re.sub(r"^Error parsing (\S+): ", r"\1: ", message)
    similar = re.search(r"--[\w-]+", rest)
    if message.startswith("Unrecognized") and similar and similar[0] != "--help":
        message += f" (perhaps {similar[0]}?)"
    return f"{message.rstrip('.')}; see --help"


def launch(config_class: type[T], main: Callable[[T], None], description: str, recipes: Recipes | None = None) -> None:
    """Run `main(config)` as a program: every expected fault ends in one line on stderr and its exit code."""
    code, message, config = 0, "", None
    with contextlib.suppress(AttributeError):  # a stream that somebody put in the place of stdout may lack it
        sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may be no text
    try:
        config = parse(config_class, description, recipes=recipes)
        main(config)
    except BadInput as fault:
        code, message = 2, str(fault)
    except TrainingFailed as fault:
        code, message = 1, str(fault)
    except KeyboardInterrupt:
        code, message = 130, "interrupted"
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        code, message = 1, f"{where}{fault.strerror or fault}; mend that, and the same command continues"
    except Exception as fault:
        code, message = 1, _unforeseen(fault, getattr(config, "out", None))
    if message:
        print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)


def _unforeseen(fault: Exception, out: Path | None) -> str:
    """One line for a fault that no code of ours raises; the traceback of one that nobody foresaw goes into a file.

    Args:
        out: the run's folder, where that file is written if the run is there already.
    """
    if isinstance(fault, MemoryError) or OUT_OF_MEMORY.search(str(fault)):
        return "out of memory; choose smaller sizes"
    if "no kernel image" in str(fault):
        return "this torch was not built for this GPU; install the build for its CUDA version, or use --device cpu"
    folder = out if out and (out / "config.json").is_file() else None
    name = {"prefix": "traceback_", "suffix": ".txt", "dir": folder}
    with tempfile.NamedTemporaryFile("w", delete=False, errors="replace", **name) as file:
        file.write("".join(traceback.format_exception(fault)))
    return f"{type(fault).__name__}: {fault}; nobody foresaw this: please report it with {file.name}"


def require(condition: bool, flag: str, found: Any, wanted: str) -> None:
    """Raise `BadInput` naming the flag, what was found and what it takes, unless the condition holds."""
    if not condition:
        raise BadInput(f"{flag}: {found} is not possible; it takes {wanted}")


def require_range(flag: str, value: float, low: float, high: float, kind: str = "a number") -> None:
    """Raise `BadInput` unless `low <= value <= high` (NaN never is)."""
    require(low <= value <= high, flag, value, f"{kind} from {low:g} to {high:g}")


def resolve_device(name: str) -> torch.device:
    """The torch device for `--device auto|cpu|cuda|mps`; `auto` takes an accelerator where there is one.

    Raises:
        BadInput: the device is not on this machine.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if present[kind])
    here = [kind for kind in present if present[kind]]
    require(name in here, "--device", f"{name} (not on this machine)", " or ".join(here))
    return torch.device(name)
