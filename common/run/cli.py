"""The command line of a script: flags from its `Config`, one clear line for bad input, exit codes.

0 success, 1 a fault of the machine or a diverged training, 2 bad input, 130 and 143 stopped by SIGINT and SIGTERM.
torchrun itself ends with 1 for every one of them but 0.
"""

import errno
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from common.run import distributed, flags
from common.run.faults import BadInput, TrainingFailed

__all__ = ["BadInput", "TrainingFailed", "configured", "launch", "parse", "require", "require_range", "resolve_device"]

T = TypeVar("T")
OUT_OF_MEMORY = re.compile("allocate memory|out of memory|not enough memory|ALLOC_FAILED")
Recipes = Mapping[str, Callable[[Any], dict[str, Any]]]
"""Of each recipe the settings that take the place of the defaults; they may depend on a config, on its target, say."""


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
    if not recipes:
        return _at_home(flags.read(config_class, description, arguments))
    plain = flags.read(config_class, description, [a for a in arguments if a not in ("-h", "--help")])
    defaults = config_class(**recipes[plain.recipe](plain))
    return _at_home(flags.read(config_class, description, arguments, defaults))


def _at_home(config: Any) -> Any:
    """A config whose paths that begin with ~ are in the user's home, also where the shell left them: `--out=~/x`."""
    paths = {f.name: path for f in fields(config) if isinstance(path := getattr(config, f.name), Path)}
    moved = {name: path.expanduser() for name, path in paths.items() if path.parts[:1] == ("~",)}
    return replace(config, **moved) if moved else config


def launch(
    config_class: type[T],
    main: Callable[[T], None],
    description: str,
    recipes: Recipes | None = None,
    several: bool = False,
) -> None:
    """Run `main(config)` as a program: every expected fault ends in one line on stderr and its exit code.

    Args:
        several: whether `main` can run on several processes, which torchrun starts; they say one line together.
    """
    code, message, config = 0, "", None
    if sys.stdout is None:  # it was closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    if isinstance(sys.stdout, io.TextIOWrapper):  # not what somebody may have put in its place
        sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may be no text
    try:
        distributed.join(several)
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
        remedy = "raise their limit (ulimit -n)" if fault.errno == errno.EMFILE else "mend that"
        code, message = 1, f"{where}{fault.strerror or fault}; {remedy}, and the same command continues"
    except Exception as fault:
        code, message = 1, _unforeseen(fault, getattr(config, "out", None))
    if message and distributed.may_speak():
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
    handle, name = tempfile.mkstemp(".txt", "traceback_", folder)
    with open(handle, "w", errors="replace") as file:
        file.write("".join(traceback.format_exception(fault)))
    return f"{type(fault).__name__}: {fault}; nobody foresaw this: please report it with {name}"


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
    distributed.require_device(torch.device(name))
    return torch.device(name)
