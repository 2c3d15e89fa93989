"""What is measured while a GAN in the plane trains, the answers made of it, and the files of a run."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from common.plane import figures, measures
from common.plane.targets import target_of
from common.run import Run, rng_for
from common.run.files import write_file
from common.run.reference import beside, read_reference

FLOOR_DRAWS = 10
SHOWN = 400  # samples and arrows in a picture
SURFACE = 64  # grid points per side of the discriminator's surface
CHUNK = 1 << 16  # samples that pass a network at a time
DISTANCES = ("kl", "js", "w1")
AVERAGED = "_averaged"  # a measure of the generator with averaged weights


class Players(NamedTuple):
    """Networks of all seeds, their optimizers, and the moving average of the generator's weights."""

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    average: AveragedModel


def moving_average(generator: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a generator's weights.

    Its decay rises as (1 + n)/(10 + n) over the first updates n, as in question 4, so that a short run forgets its
    start too.
    """

    def average(mine: Sequence[Tensor], theirs: Sequence[Tensor], n: Tensor | int) -> None:
        torch._foreach_lerp_(list(mine), list(theirs), 1 - min(decay, (1 + int(n)) / (10 + int(n))))

    return AveragedModel(generator, multi_avg_fn=average)


def optimizer_of(config: Any, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a network, whose learning rate the script sets at each iteration."""
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), betas=config.betas, fused=True)
    return torch.optim.SGD(network.parameters(), fused=True)


def draw_noise(config: Any, n: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """Noise [S, n, noise_dim], a generator of random numbers for each seed."""
    draw = torch.randn if config.noise == "gaussian" else torch.rand
    z = torch.stack([draw(n, config.noise_dim, generator=rng, device=rng.device) for rng in rngs])
    if config.noise == "truncated":  # the inverse of the distribution function between -2 and 2 deviations
        z = 0.5 + 0.25 * math.sqrt(2) * torch.erfinv((2 * z - 1) * math.erf(math.sqrt(2)))
    return z


def noise_quantiles(noise: str, probability: Tensor) -> Tensor:
    """Where the noise's distribution function reaches each probability [m]."""
    if noise == "gaussian":
        return torch.special.ndtri(probability)
    if noise == "truncated":
        return 0.5 + 0.25 * math.sqrt(2) * torch.erfinv((2 * probability - 1) * math.erf(math.sqrt(2)))
    return probability


def as_probability(loss: str, scores: Tensor, middle: Tensor) -> Tensor:
    """Scores as "how real", 0 to 1. A critic has no such unit: its scores about `middle`, relative to the largest."""
    if loss == "gan":
        return scores.sigmoid()
    if loss == "least-squares":
        return scores.clamp(0, 1)
    centred = scores - middle
    return 0.5 + 0.5 * centred / centred.abs().max().clamp_min(1e-12)


def equilibrium(config: Any) -> tuple[float, float] | None:
    """Losses of discriminator and generator where real = fake and D = 1/2 everywhere; a critic has no such values."""
    found = {"gan": ((1 + config.real_weight) * math.log(2), math.log(2)), "least-squares": (0.25, 0.125)}
    return found.get(config.loss)


def arrows(discriminator: nn.Module, fake_loss: Callable[[Tensor], Tensor], fake: Tensor) -> Tensor:
    """Minus the gradient of each fake's own loss at the fake [S, n, 2]: where the discriminator pushes it [S, n, 2]."""
    fake = fake.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(fake_loss(discriminator(fake)).sum(), fake)
    return -gradient


def prepare(run: Run, config: Any) -> None:
    """The floors, real against real, and room for what each iteration and each frame keeps."""
    run.say(f"measuring real samples against real ones, {FLOOR_DRAWS} draws")
    target, sizes = target_of(config.target), (config.eval_samples, config.transport_samples)
    for row in measures.floor(target, *sizes, FLOOR_DRAWS, lambda draw: run.rng("floors", draw)):
        run.record("floors", **row)
    frames = 2 + (config.iterations - 1) // config.evaluate_every
    run.keep("losses", torch.zeros(config.iterations, config.seeds, 2))
    for name, shape in {"fakes": (SHOWN, 2), "arrows": (SHOWN, 2), "surface": (SURFACE, SURFACE)}.items():
        run.keep(name, torch.zeros(frames, *shape))


def evaluate(run: Run, config: Any, players: Players, fake_loss: Callable[[Tensor], Tensor], done: int) -> None:
    """Record a row of `metrics` for each seed and a frame of the first, from fresh samples of a stream of its own.

    Args:
        fake_loss: what the generator minimises, for each fake, from the discriminator's scores.
        done: iterations done.
    """
    rngs = [rng_for(config.seed + k, "evaluate", done, run.device) for k in range(config.seeds)]
    rows, middle = measured(config, players, fake_loss, rngs)
    frame = len(run.rows("metrics")) // config.seeds
    since = int(run.rows("metrics")["iteration"].iloc[-1]) if frame else 0
    for k, row in enumerate(rows):
        recent = run.tensors["losses"][since:done, k].mean(0) if done else torch.full((2,), torch.nan)
        losses = {"discriminator_loss": recent[0], "generator_loss": recent[1]}
        run.record("metrics", seed=config.seed + k, iteration=done, **losses, **row)

    for name, tensor in frame_of(config, players, fake_loss, shown_noise(config, run.device), middle).items():
        run.tensors[name][frame] = tensor
    if done * 10 // config.iterations > max(0, since) * 10 // config.iterations:
        last = run.rows("metrics").tail(config.seeds).mean()
        run.say(f"iteration {done:,}/{config.iterations:,}  JS {last.js:.4f}  W1 {last.w1:.4f}")


def measured(
    config: Any, players: Players, fake_loss: Callable[[Tensor], Tensor], rngs: Sequence[torch.Generator]
) -> tuple[list[dict[str, Any]], Tensor]:
    """What is measured from fresh samples: a row for each seed, and the first seed's `middle` of `as_probability`."""
    target, discriminator = target_of(config.target), players.discriminator
    real = torch.stack([target.sample(config.eval_samples, rng) for rng in rngs])  # [S, n, 2]
    z = draw_noise(config, config.eval_samples, rngs)
    with torch.no_grad():
        fake, averaged = in_chunks(players.generator, z), in_chunks(players.average, z)
        scores = [in_chunks(discriminator, x) for x in (real, fake)]  # [S, n] both
    subset = z[:, : config.transport_samples]
    losses = fake_loss(discriminator(players.generator(subset))).mean(1)  # [S]
    gradients = torch.autograd.grad(losses.sum(), list(players.generator.parameters()))
    weights_norm = torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0).sqrt()  # [S]
    fakes_norm = arrows(discriminator, fake_loss, fake[:, : config.transport_samples]).norm(dim=2).mean(1)
    rows = []
    for k in range(config.seeds):
        row = row_of(config, *(part[k].cpu() for part in (real, fake, averaged, *scores)))
        rows.append({**row, "gradient_at_fakes": fakes_norm[k], "generator_gradient": weights_norm[k]})
    return rows, (scores[0][0].mean() + scores[1][0].mean()) / 2


def in_chunks(network: nn.Module, x: Tensor) -> Tensor:
    """What a network makes of x [S, n, ...], of which a limited number pass it at a time."""
    return torch.cat([network(part) for part in x.split(CHUNK, 1)], 1)


def row_of(config: Any, real: Tensor, fake: Tensor, averaged: Tensor, f_real: Tensor, f_fake: Tensor) -> dict[str, Any]:
    """The measures of one seed, from samples [n, 2] and scores [n] on the CPU."""
    target, n_transport = target_of(config.target), config.transport_samples
    middle = (f_real.mean() + f_fake.mean()) / 2
    thresholds: dict[str, Any] = {"gan": 0.0, "least-squares": 0.5, "wgan-gp": middle}
    threshold = thresholds[config.loss]
    row: dict[str, Any] = measures.compare(target, real, fake, n_transport)
    row |= {name + AVERAGED: value for name, value in measures.distances(real, averaged, n_transport).items()}
    row["accuracy"] = ((f_real > threshold).double().mean() + (f_fake <= threshold).double().mean()) / 2
    if config.loss == "wgan-gp":  # the optimum is the Kantorovich potential, whose difference of means is W1
        row["critic_estimate"] = f_real.mean() - f_fake.mean()
    else:  # the optimum is p / (p + q)
        beliefs = (as_probability(config.loss, f, middle) for f in (f_real, f_fake))
        row["discriminator_gap"] = measures.discriminator_gap(real, fake, *beliefs)
    return row


def frame_of(
    config: Any, players: Players, fake_loss: Callable[[Tensor], Tensor], z: Tensor, middle: Tensor
) -> dict[str, Tensor]:
    """What one looks at, of the first seed: fakes [n, 2], their arrows [n, 2], surface [SURFACE, SURFACE], x fastest.

    Args:
        z: the noise of the fakes [S, n, noise_dim].
        middle: see `as_probability`.
    """
    line = torch.linspace(*figures.WINDOW, SURFACE, device=z.device)
    plane = torch.cartesian_prod(line, line).flip(1).expand(config.seeds, -1, -1)  # [S, SURFACE^2, 2], x fastest
    with torch.no_grad():
        shown = players.generator(z)
        surface = as_probability(config.loss, players.discriminator(plane)[0], middle)
    pushed = arrows(players.discriminator, fake_loss, shown)
    return {"fakes": shown[0], "arrows": pushed[0], "surface": surface.reshape(SURFACE, SURFACE)}


def shown_noise(config: Any, device: torch.device) -> Tensor:
    """The noise that all pictures of a run follow [S, SHOWN, noise_dim]."""
    return draw_noise(config, SHOWN, [rng_for(config.seed + k, "shown", 0, device) for k in range(config.seeds)])


def manifold_of(config: Any, generator: nn.Module, lines: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cumulative probabilities of `lines` grid lines of the noise, and where the first seed's generator puts the grid.

    Returns:
        [lines], and [lines, 2] for noise in one dimension or [lines, lines, 2] in two.
    """
    edges = torch.linspace(0.005, 0.995, lines)
    grid = noise_quantiles(config.noise, edges).to(device)
    z = torch.cartesian_prod(grid, grid) if config.noise_dim == 2 else grid[:, None]
    with torch.no_grad():
        images = generator(z.expand(config.seeds, -1, -1))[0].reshape(*[lines] * config.noise_dim, 2)
    return edges, images


# The answers.


def answers(metrics: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """Each measure in the first and in the last tenth of the evaluations, over the seeds, beside its floor.

    Returns:
        a row for each measure; `last_tenth_std` is the standard deviation over the seeds, `last_tenth_ci95` the half
        width of the 95 % confidence interval of their mean (Student's t); both NaN for one seed.
    """
    tenth = max(1, metrics["iteration"].nunique() // 10)
    seeds = metrics.groupby("seed")
    early, late = (part.groupby("seed").mean() for part in (seeds.head(tenth), seeds.tail(tenth)))
    n, spread = len(late), late.std(ddof=1)
    half = stats.t.ppf(0.975, n - 1) * spread / n**0.5 if n > 1 else spread
    columns = {"first_tenth": early.mean(), "last_tenth": late.mean(), "last_tenth_std": spread}
    table = pd.DataFrame({**columns, "last_tenth_ci95": half, "seeds": n})
    names = [name.removesuffix(AVERAGED) for name in table.index]
    for column, values in (("floor", floors.mean()), ("floor_std", floors.std(ddof=1))):
        table[column] = values.reindex(names).to_numpy()
    return table.drop(index="iteration").rename_axis("measure")


def _with_spread(value: float, spread: float, form: str = ".4f") -> str:
    return f"{value:{form}}" + (f" ± {spread:{form}}" if math.isfinite(spread) else "")


def said_of_distance(value: pd.Series, floor: pd.Series, floor_std: pd.Series) -> str:
    """How close real and fake are, from KL, JS and W1 in this order and their floors; W1 decides about "close"."""
    if (value <= floor + 2 * floor_std).all():
        return "as close as two real samples are"
    return "close, not equal" if value.iloc[-1] < 3 * floor.iloc[-1] else "still apart"


def said_of_gradient(length: float, before: str, short: bool) -> str:
    """What the length of the arrows means, beside what they were before."""
    if short:
        meaning = "short: the discriminator is nearly flat where the fakes are, little pushes them on"
    else:
        meaning = "still long: the discriminator keeps pushing, so the fakes keep moving with the learning rate"
    return f"The gradient at the fakes is {length:.3g} long, {before}; {meaning}."


def said_of_accuracy(accuracy: float, optimal: float, floor: float, n: int) -> str:
    """Whether the discriminator can tell, from accuracies on n real and n fake samples."""
    coin = 0.5 / (2 * n) ** 0.5
    can = "is mostly wrong" if accuracy < 0.45 else "can hardly tell" if accuracy < 0.55 else "can still tell"
    return (
        f"The discriminator {can}: right on {accuracy:.1%} of fresh samples (a coin: 50 ± {coin:.1%}). "
        f"The best that sees only the grid cell: {optimal:.1%}, and {floor:.1%} on real against real."
    )


def said_of_gap(gap: str, floor: float) -> str:
    """How far D is from the optimal one."""
    perfect = f"(a constant 1/2 on real against real: {floor:.3f})"
    return f"D(x) differs from the optimum p/(p + q) by {gap} on average {perfect}."


def said_of_modes(modes: float, parts: int, quality: float, floor: float) -> str:
    """What is covered of the target, and how many samples are good."""
    return f"Modes covered {modes:.1f} of {parts}; high-quality samples {quality:.1%} (of real ones {floor:.1%})."


def discussion(config: Any, table: pd.DataFrame, first: str = "in the first tenth of training") -> list[str]:
    """The assignment's three questions, answered with `answers`, whose first column is called `first`."""
    value, spread, floor = table["last_tenth"], table["last_tenth_std"], table["floor"]
    n = int(table["seeds"].iloc[0])

    def against_floor(name: str, unit: str) -> str:
        measured = _with_spread(value[name], spread[name]) + unit
        real = _with_spread(floor[name], table["floor_std"][name])
        return f"{name.removesuffix(AVERAGED).upper()} {measured} ({value[name] / floor[name]:.1f} x its floor {real})"

    def distances(suffix: str) -> str:
        return ", ".join(against_floor(name + suffix, "" if name == "w1" else " nats") for name in DISTANCES)

    mine = [name + AVERAGED for name in DISTANCES]
    close = said_of_distance(value[mine], floor[mine], table["floor_std"][mine])
    length, before = value["gradient_at_fakes"], table["first_tenth"]["gradient_at_fakes"]
    who = f"mean ± standard deviation over {n} seeds" if n > 1 else "one seed"
    lines = [
        f"Real and fake are {close} (averaged weights, {who}): {distances(AVERAGED)}.",
        f"Without averaging: {distances('')}.",
        said_of_gradient(length, f"{before:.3g} {first}", length < before / 3),
        said_of_accuracy(value["accuracy"], value["optimal_accuracy"], floor["optimal_accuracy"], config.eval_samples),
        said_of_modes(value["modes"], target_of(config.target).parts, value["quality"], floor["quality"]),
    ]
    if "discriminator_gap" in value:
        gap = _with_spread(value["discriminator_gap"], spread["discriminator_gap"], ".3f")
        lines.insert(4, said_of_gap(gap, floor["discriminator_gap"]))
    return lines


# The files.


def report(run: Run, config: Any, players: Players) -> None:
    """Draw every figure, write `answers.csv` and say what was found and where it lies."""
    if not run.trained:
        run.say(f"{run.folder} holds this run, finished")
    run.say("drawing figures and training.html")
    draw(run, config, players.average)
    table = answers(run.rows("metrics"), run.rows("floors"))
    write_file(run.folder / "answers.csv", table.to_csv(float_format="%.5g").encode())
    for line in discussion(config, table):
        run.say(line)
    headline = table.loc[[name for name in table.index if name.removesuffix(AVERAGED) in DISTANCES]].reset_index()
    reference = read_reference(run.identity, "answers.csv")
    run.say("\n" + beside(headline, reference, ["measure"], "last_tenth", "last_tenth_std"))
    run.say(f"in {run.folder}: open training.html first, then answers.csv and divergences.png")


def draw(run: Run, config: Any, generator: nn.Module) -> None:
    """Every figure of a run, from its tables and kept tensors; the manifold is that of `generator`."""
    metrics, floors = run.rows("metrics"), run.rows("floors")
    first = metrics[metrics["seed"] == config.seed]
    kept = {name: tensor.numpy() for name, tensor in run.tensors.items()}
    real = target_of(config.target).sample(SHOWN, run.rng("shown", 1)).cpu().numpy()
    label = {"wgan-gp": "critic's score, relative to its range (1: most real)"}.get(config.loss, "D(x): 1 real, 0 fake")
    moments = first["iteration"].to_numpy()
    frames = figures.Frames(moments, real, kept["fakes"], kept["arrows"], kept["surface"], label)
    figures.snapshots(frames, run.folder / "snapshot.png")

    edges, images = manifold_of(config, generator, 67, run.device)
    figures.manifold(edges.cpu().numpy(), images.cpu().numpy(), real, run.folder / "manifold.png")

    sizes = (config.eval_samples, config.transport_samples)
    figures.divergences(metrics, floors, *sizes, run.folder / "divergences.png")
    figures.losses(kept["losses"][:, 0], first, equilibrium(config), run.folder / "losses.png")

    title = f"A GAN in the plane: target {config.target}, loss {config.loss}"
    text = (
        "Real samples are green, fake ones purple; each fake follows one noise vector. The background is the "
        "discriminator, green where it says real; the arrows show where it pushes the fakes. Bands: the values that "
        "real samples reach against other real samples."
    )
    figures.playback(frames, first, floors, title, text, run.folder)
