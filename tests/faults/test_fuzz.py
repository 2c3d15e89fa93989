"""Random flags and random bytes: exit code 0 or 2 and one line, never a traceback, no file of the user changed."""

import contextlib
import dataclasses
import importlib
import io
import os
import random
import string

import pytest
import torch
import toy_script
from conftest import REAL
from driver import start

from common.data import MD5, load_fashion_mnist
from common.run import checkpoints
from common.run.cli import BadInput, parse

CASES = 150  # for each script
VALUES = [
    *(
        "0",
        "1",
        "2",
        "3",
        "10",
        "20",
        "-1",
        "-0",
        "+1",
        "0.5",
        "1e-3",
        ".5",
        "1e400",
        "-1e400",
        "1e-400",
        "nan",
        "-nan",
    ),
    *("inf", "-inf", "Infinity", "None", "True", "False", "true", "auto", "cpu", "cuda", "mps", "cuda:0", "tpu", "all"),
    *(
        "",
        " ",
        "\t",
        "\n",
        "-",
        "--",
        "---",
        "=",
        "--=",
        "-h",
        "1,2",
        "[1]",
        "(1, 2)",
        "{}",
        "1 2",
        "0x10",
        "1_0",
        "1e1",
    ),
    *("２０", "٣", "½", "∞", "é", "e\u0301", "🙂", "\u202e1", "\u200b", "\x1b[31m", "\udcff", "NaN\u0000", "%s", "{0}"),
    *(
        "9" * 30,
        "9" * 400,
        "9" * 5000,
        "-" + "9" * 400,
        "1." + "0" * 400,
        str(2**31),
        str(2**63),
        str(2**64),
        "x" * 5000,
    ),
    *("~", "/", "..", "/dev/null", "/proc/self/mem", "a/b/c", "*", "$HOME", "`id`", "$(id)", "; ls", "'", '"', "\\"),
]


def random_flags(config_class, draw):
    """A command line: known, misspelt and invented flags, with one value, several or none, in any order."""
    names = [f.name.replace("_", "-") for f in dataclasses.fields(config_class)]
    words = []
    for _ in range(draw.randint(0, 5)):
        name = draw.choice(names)
        name = draw.choice(
            [name] * 6 + [name[:-1], name + "s", name.upper(), name.replace("-", "_"), "no-" + name, "🙂"]
        )
        if draw.random() < 0.1:
            name = "".join(draw.choices(string.printable, k=draw.randint(0, 8)))
        values = [draw.choice(VALUES) for _ in range(draw.choice([1, 1, 1, 1, 0, 2, 3]))]
        words += [f"--{name}={values[0]}"] if values and draw.random() < 0.2 else [f"--{name}", *values]
    if draw.random() < 0.05:
        draw.shuffle(words)
    return words


@pytest.mark.parametrize("name", ["toy_script", *REAL])
def test_random_flags_are_settings_or_one_line(name):
    config_class, draw = importlib.import_module(name).Config, random.Random(name)
    settings, refusals, codes = 0, [], {0}
    for _ in range(CASES):
        words = random_flags(config_class, draw)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                assert isinstance(parse(config_class, "", words), config_class)
            settings += 1
        except BadInput as fault:
            refusals.append(str(fault))
        except SystemExit as stop:
            codes.add(stop.code or 0)
        except Exception as fault:
            pytest.fail(f"{words}: {type(fault).__name__}: {fault}")
    assert all(said.strip() and "Traceback" not in said for said in refusals)
    assert codes == {0}
    assert settings > 5
    assert len(refusals) > 50


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("value", ["9" * 400, "-" + "9" * 400, "9" * 5000, "1e400", "nan"], ids=range(5))
def test_numbers_beyond_all_measure_are_refused(name, value):
    config_class = importlib.import_module(name).Config
    for field in dataclasses.fields(config_class):
        flag = "--" + field.name.replace("_", "-")
        if type(field.default) in (int, float):
            with pytest.raises(BadInput, match=flag):
                parse(config_class, "", [f"{flag}={value}"])


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_random_flags_end_to_end(tiny, tmp_path, name):
    """25 command lines for each script, in a folder with a user's files; what is valid trains for an epoch."""
    config_class, draw, codes = importlib.import_module(name).Config, random.Random(name), []
    precious = {tmp_path / "home" / n: f"{n} is precious" for n in ("a", "b/c", "1", "2/config.jso", "cpu")}
    for path, text in precious.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    places = ["", "a", "b", "b/c", "1", "2", "/dev/null", "/proc/x", "x" * 300, "new", "a/b", "🙂", "\udcff"]
    for case in range(25):
        words = [word for word in random_flags(config_class, draw) if word != "all"]  # a comparison takes minutes
        if draw.random() < 0.5:
            words += ["--out", draw.choice(places)]

        def at_home(_):
            os.chdir(tmp_path / "home")

        ended = tiny(name, tmp_path / "runs" / str(case), *words, prepare=at_home)
        assert ended.code in (0, 2), (words, ended)
        assert "Traceback" not in ended.err + ended.out
        assert ended.err.count("\n") == (ended.code == 2), (words, ended.err)
        assert all(path.read_text() == text for path, text in precious.items()), words
        codes.append(ended.code)
    assert 0 in codes
    assert 2 in codes


class Evil:
    """Code in a pickle."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def damaged(content, draw):
    """Bytes that are random, or those given with some of them changed, lost, doubled or cut off."""
    kind = draw.randrange(5)
    if kind == 0:
        return draw.randbytes(draw.randint(0, 3000))
    start, length = draw.randrange(len(content)), draw.randint(1, 60)
    if kind == 1:
        return content[:start]
    if kind == 2:
        return content[:start] + draw.randbytes(length) + content[start + length :]
    if kind == 3:
        return content[:start] + content[start + length :]
    return content[:start] + content[start : start + length] * 2 + content[start + length :]


def written(content, **how):
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
def test_random_bytes_as_checkpoints_are_refused_with_a_reason(tmp_path, legacy):
    """Under a name whose checksum fits, so that nothing but the reading itself stands in the way."""
    draw, proof = random.Random(0), tmp_path / "executed"
    how = {"_use_new_zipfile_serialization": not legacy}
    good = {"script": "a", "config": {}, "step": 1, "seconds": 0.5, "threads": 1, "tables": {"t": [{"a": 1.5}]}}
    good |= {"tensors": {}, "state": {"weight": torch.randn(20)}}
    seeds, read = [written(good, **how), written({"state": Evil(proof)}, **how)], 0
    for _ in range(300):
        content = damaged(draw.choice(seeds), draw)
        path = tmp_path / f"000001_step_1_{checkpoints._digest(content)}.pt"
        path.write_bytes(content)
        with contextlib.suppress(ValueError):
            checkpoints.load(path)
            read += 1
        path.unlink()
        assert not proof.exists()
    assert read < 150


@pytest.mark.parametrize("key", ["script", "config", "step", "seconds", "threads", "tables", "tensors", "state"])
def test_checkpoint_without_one_of_its_parts_is_left_out(tmp_path, capsys, key):
    config = toy_script.Config(out=tmp_path)
    first = toy_script.main(config)
    newest = checkpoints.listing(tmp_path / "checkpoints")[-1]
    whole = checkpoints.load(newest)
    for number, part in enumerate([None, 3, "text", [1], {"a": 2}, "absent"]):
        content = {**whole, key: part}
        if part == "absent":
            del content[key]
        if isinstance(part, type(whole[key])) and key in ("step", "seconds", "threads", "tables"):
            continue  # a value of its kind; only the checksum speaks against it
        data = written(content)
        target = newest.with_name(f"00009{number}_step_15_{checkpoints._digest(data)}.pt")
        target.write_bytes(data)
        again = toy_script.main(config)
        assert f"{target} is left out" in capsys.readouterr().out
        assert all(again[name].equal(first[name]) for name in first)
        target.unlink()


@pytest.mark.parametrize("name", ["q4_dcgan", "q4_wgan_gp"])
def test_random_bytes_as_generator_are_refused(tmp_path, monkeypatch, name):
    module, draw, proof = importlib.import_module(name), random.Random(0), tmp_path / "executed"
    monkeypatch.setattr("common.figures.image_grid", lambda *_: None)
    extra = {"detail": 3, "self_modulation": 4} if name == "q4_dcgan" else {}
    generator = module.Generator(2, 5, name == "q4_dcgan", *extra.values())
    weights = generator.state_dict()
    good = {"shape": generator.shape, "averaged": weights, "raw": weights}
    lame = [{**good, "averaged": part} for part in (None, {}, {"a": 1}, [2], {**weights, "x": torch.ones(1)})]
    seeds = [written(part) for part in (good, *lame, [], None, 3, {"averaged": Evil(proof)})]
    config = module.Config(width=2, latent_dim=5, sample=2, out=tmp_path, **extra)
    drawn = []
    for _ in range(2):  # the weights of the file are those that draw
        module.main(write(config, seeds[0]))
        drawn.append((tmp_path / "drawn.npz").read_bytes())
    assert drawn[0] == drawn[1]
    for content in [*seeds[1:], *(damaged(draw.choice(seeds), draw) for _ in range(200))]:
        with contextlib.suppress(BadInput):
            module.main(write(config, content))
        assert not proof.exists()


def write(config, content):
    (config.out / "generator.pt").write_bytes(content)
    return config


def test_random_bytes_as_archives_are_refused_and_left_alone(tmp_path):
    draw = random.Random(0)
    for _ in range(100):
        contents = {tmp_path / name: draw.randbytes(draw.randint(0, 2000)) for name in MD5}
        for path, content in contents.items():
            path.write_bytes(content)
        with pytest.raises(BadInput, match="truncated or altered"):
            load_fashion_mnist(draw.choice(["train", "test"]), raw=tmp_path)
        assert all(path.read_bytes() == content for path, content in contents.items())


def test_random_bytes_as_settings_and_tables_are_refused_or_repaired(tmp_path):
    draw, config = random.Random(0), toy_script.Config(out=tmp_path / "run")
    toy_script.main(config)
    before = {path: path.read_bytes() for path in config.out.glob("*.*") if path.name != "environment.json"}
    settings = before[config.out / "config.json"]
    junk = [b"[" * 200_000, b'{"a":' * 200_000, b"null", b"1e999", "\ufeff{}".encode("utf-16"), b"\x00" * 10]
    lone = dataclasses.replace(config, out=tmp_path / "lone")
    for content in [*junk, *(damaged(settings, draw) for _ in range(40))]:
        lone.out.mkdir(exist_ok=True)
        (lone.out / "config.json").write_bytes(content)
        with contextlib.suppress(BadInput):
            toy_script.main(dataclasses.replace(lone, epochs=4))
        (config.out / "metrics.csv").write_bytes(content)
        toy_script.main(config)
        assert all(path.read_bytes() == text for path, text in before.items())


def test_folder_whose_name_is_no_text_can_be_told_of(tmp_path):
    out = tmp_path / "\udcff"
    assert start("toy_script", [], out).code == 0
    (out / "metrics.csv").unlink()
    ended = start("toy_script", [], out)
    assert (ended.code, ended.err) == (0, "")
    assert "\\udcff/metrics.csv is missing" in ended.out


def test_unknown_device_is_one_line(tmp_path):
    for flags, said in ((["--device", "tpu"], "--device: tpu (not on this machine)"), (["--device", ""], "--device")):
        ended = start("toy_script", flags, tmp_path / "run")
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended
        assert said in ended.err


@pytest.mark.parametrize("said", ["[enforce fail] can't allocate memory: you tried to", "CUDA out of memory. Tried"])
def test_sizes_beyond_the_memory_are_one_line(tmp_path, said):
    def poor(module):
        def linear(*_):
            raise RuntimeError(said)

        torch.nn.Linear = linear

    ended = start("toy_script", [], tmp_path / "run", prepare=poor)
    assert (ended.code, ended.err) == (1, "error: out of memory; choose smaller sizes\n")
