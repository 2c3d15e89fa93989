"""What the tables of Q1 say: the answers, the figures behind the conclusion, the words.

As in `tables`, a function that yields rows fills the table of its name.
"""

import math
from typing import Any

import numpy as np

from common.lines import figures
from common.lines.networks import LOSSES
from common.lines.tables import MESHES, Rows, numpy_rng, pieces
from common.run import Run
from common.run.reference import beside, read_reference


def answers(config: Any, run: Run) -> Rows:
    """The rows of `divergences` at the question's theta (a) and at 0 (b), one estimate a line."""
    table = run.rows("divergences").set_index("theta")
    for question, theta in (("a", config.theta), ("b", 0.0)):
        for divergence, name, way in (
            ("KL(P || Q)", "kl", "neighbours"),
            ("KL(Q || P)", "reverse_kl", "neighbours"),
            ("Jensen-Shannon", "js", "discriminator"),
            ("Wasserstein-1", "wasserstein", "samples"),
            ("Wasserstein-1", "wasserstein", "critic"),
        ):
            at = table.loc[theta]
            value, estimate, std = (float(at[f"{name}{end}"]) for end in ("", f"_{way}", f"_{way}_std"))
            row = {"question": question, "theta": theta, "divergence": divergence, "exact": value, "estimator": way}
            yield row | {"estimate": estimate, "std": std, "error": estimate - value}


def conclusions(config: Any, run: Run) -> Rows:
    """The figures on which the answer to (c) rests: mean and standard deviation over seeds, and what theory expects.

    The growth of the KL estimate is fitted over n >= 30; "late" is the last quarter of the descent. Theory for critics
    is the best penalised critic on the finest mesh (`best_critic.csv`), which says more than theta.
    """
    estimates, trained, path = run.rows("knn"), run.rows("learned"), run.rows("descent")
    apart = estimates[(estimates["theta"] == 1) & (estimates["n"] >= 30)].groupby("seed")
    growth = [np.polyfit(np.log10(rows["n"]), rows["kl"], 1)[0] for _, rows in apart]
    near, far = (trained[trained["theta"] == theta] for theta in (0.1, 1.0))
    finest = run.rows("best_critic").query(f"mesh == {MESHES[-1]}").set_index("theta")
    found: list[tuple[str, Any, float]] = [
        ("kl growth", growth, 2 * math.log(10)),
        ("js at 0.1", near["discriminator"], math.log(2)),
        ("js at 1", far["discriminator"], math.log(2)),
        ("critic at 0.1", near["critic"], finest["difference"][0.1]),
        ("critic at 1", far["critic"], finest["difference"][1.0]),
        ("slope at 1, minimax", far["slope_minimax"], 0.0),
        ("slope at 1, non-saturating", far["slope_non-saturating"], math.nan),  # it depends on how long one trains
        ("slope at 1, wasserstein", far["slope_wasserstein"], finest["slope"][1.0]),
    ]
    for loss, rows in path.groupby("loss", sort=False):
        theta = rows.pivot(index="step", columns="seed", values="theta")
        late = theta.tail(math.ceil(len(theta) / 4))
        found += [
            (f"last theta, {loss}", theta.iloc[-1], math.nan),
            (f"lowest theta, {loss}", theta.min(), math.nan),
            (f"late |theta|, {loss}", late.abs().mean(), math.nan),
        ]
    for quantity, values, theory in found:
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
        yield {"quantity": quantity, "mean": mean, "std": std, "theory": float(theory)}


def draw_figures(config: Any, run: Run) -> None:
    """Draw every figure from the run's tables and kept tensors."""
    profiles = {name: run.tensors[name].cpu().numpy() for name in ("profile_x", "discriminators", "critics")}
    heights = numpy_rng(config.seed, "setup", 0).random((2, 25))
    table = {name: run.rows(name) for name in run.tables}
    drawings = (
        (figures.setup, (*heights, config.theta), "setup.png"),
        (figures.divergences, (table["divergences"], config.n_samples), "divergences.png"),
        (figures.relaxations, (table["relaxations"],), "relaxations.png"),
        (figures.finite_samples, (table["laws"], table["knn"], table["costs"]), "finite_samples.png"),
        (figures.learned, (table["learned"], table["best_critic"], profiles, config.theta), "learned.png"),
        (figures.descent, (table["descent"],), "descent.png"),
        (figures.descent_animation, (table["descent"],), "descent.gif"),
    )
    run.say("figures and descent.gif")
    for draw, arguments, name in pieces(run, "figures", drawings):
        draw(*arguments, run.folder / name)


def say_answers(config: Any, run: Run) -> None:
    """Print the answers to (a) and (b) as a table, that to (c) in a few lines, and where to look first."""
    run.say("\n     theta  distance        exact    estimate            error     estimator")
    for row in run.tables["answers"]:
        run.say(
            f"({row['question']})  {row['theta']:<5g}  {row['divergence']:<14}  {row['exact']:<7.4g}"
            f"  {row['estimate']:7.4f} ± {row['std']:.4f}  {row['error']:+8.4f}  {row['estimator']}"
        )
    key = ["question", "theta", "divergence", "estimator"]
    reference = read_reference(run.identity, "answers.csv")
    run.say("\n" + beside(run.rows("answers"), reference, key, "estimate", "std"))
    rows = {row["quantity"]: row for row in run.tables["conclusions"]}
    found = {quantity: f"{row['mean']:.3g} ± {row['std']:.1g}" for quantity, row in rows.items()}
    growth, js, js_far = found["kl growth"], found["js at 0.1"], found["js at 1"]
    critic, critic_far = found["critic at 0.1"], found["critic at 1"]
    best, best_far = (rows[f"critic at {theta}"]["theory"] for theta in ("0.1", "1"))
    minimax, other, wasserstein = (found[f"slope at 1, {loss}"] for loss in LOSSES)
    late = ", ".join(f"{found[f'late |theta|, {loss}']} {loss}" for loss in LOSSES).replace("wasserstein", "W1")
    for sentence in (
        f"\n(c) KL is infinite for every theta > 0; its estimate grows by {growth} nats a decade (finite_samples.png).",
        f"    JS is log 2 near and far: learned {js} at 0.1, {js_far} at 1; slope {minimax} or {other} (learned.png).",
        f"    W1 is theta, continuous: learned {critic} at 0.1, {critic_far} at 1; slope {wasserstein} (learned.png).",
        f"    The penalty lets the best critic say more than theta: {best:.4g} at 0.1, {best_far:.4g} at 1"
        " (best_critic.csv).",
        f"    Descent from 1, |theta| late: {late} (descent.png).",
        f"Mean ± standard deviation, {config.seeds} seeds. Slopes at theta = 1; of JS: minimax or non-saturating loss.",
        f"\nFigures and tables: {run.folder}. Open first: divergences.png, learned.png, descent.gif, answers.csv.",
    ):
        run.say(sentence)
