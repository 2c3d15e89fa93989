"""Steps that are functions of tensors alone, and what stops them where numbers are not finite."""

import copy
from functools import partial

import pytest
import torch
from no_host import NoHost

import q4_dcgan
import q4_wgan_gp
from common.data import draw_offsets
from common.gan import results
from common.gan.networks import Critic, Generator, prepare
from common.run import Guard
from common.run.cli import TrainingFailed
from common.run.graphs import Graphed, adam, set_learning_rate


def gan(batch_norm):
    torch.manual_seed(0)
    generator, critic = Generator(4, 6, batch_norm), Critic(4, batch_norm)
    for network in (generator, critic):
        prepare(network, torch.device("cpu"), "float32")
    return results.Players(generator, critic, *(adam(n.parameters(), lr=1e-3) for n in (generator, critic)))


def steps_of(players, guard):
    """Every step function of question 4 with its inputs."""
    rng = torch.Generator().manual_seed(1)
    images = torch.randint(256, (5, 1, 28, 28), generator=rng).to(torch.uint8)
    noise, epsilon = torch.randn(5, 6, generator=rng), torch.rand(5, generator=rng)
    if isinstance(players.critic.norms[1], torch.nn.BatchNorm2d):
        offsets = [draw_offsets(5, rng, 1) for _ in range(2)]
        return [(partial(q4_dcgan.train_step, players, guard), (images, noise, *offsets), {"max_shift": 1})]
    fake = torch.rand(5, 1, 28, 28, generator=rng)
    return [
        (partial(q4_wgan_gp.critic_step, players, guard, 10.0), (images, fake, epsilon), {}),
        (partial(q4_wgan_gp.generator_step, players, guard), (noise,), {}),
    ]


@pytest.mark.parametrize("batch_norm", [False, True], ids=["wgan_gp", "dcgan"])
def test_steps_never_wait_for_the_device_and_make_no_tensor_of_python_numbers(batch_norm):
    players, guard = gan(batch_norm), Guard("cpu", deferred=True)
    for step, tensors, constants in steps_of(players, guard):
        step(*tensors, **constants)  # the optimizer's first step makes its state
        with NoHost() as mode:
            step(*tensors, **constants)
        assert mode.calls > 50


def test_the_mode_sees_a_value_read_and_a_tensor_made():
    x = torch.ones(3)
    for forbidden in (lambda: x.sum().item(), lambda: torch.tensor([1.0]), lambda: bool((x > 0).all())):
        with pytest.raises(AssertionError), NoHost():
            forbidden()


@pytest.mark.parametrize("batch_norm", [False, True], ids=["wgan_gp", "dcgan"])
def test_deferred_steps_equal_immediate_ones_bit_for_bit(batch_norm):
    found = []
    for deferred in (False, True):
        players, guard = gan(batch_norm), Guard("cpu", deferred=deferred)
        steps = [(Graphed(s, players, guard), tensors, constants) for s, tensors, constants in steps_of(players, guard)]
        losses = [step(*tensors, **constants) for _ in range(12) for step, tensors, constants in steps]
        guard.check()
        found.append((losses, [p.detach() for network in players[:2] for p in network.parameters()]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)
    assert all(a.equal(b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_deferred_fault_keeps_weights_and_moments_and_names_its_step(poison):
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    optimizer, guard = adam(network.parameters(), lr=0.1), Guard("cpu", deferred=True)

    def step(x, spoil):
        loss = network(x).square().mean() + (spoil.sum() if poison == "loss" else 0)
        optimizer.zero_grad()
        loss.backward()
        if poison == "gradient":
            network.weight.grad += spoil
        guard.step(optimizer, loss=loss)
        return {"loss": loss}

    run_step = Graphed(step, (network, optimizer), guard)
    kept = []
    for at in range(5):
        guard.now = at
        run_step(torch.ones(2, 3), torch.full((3,), float("nan") if at == 2 else 0.0))
        kept.append(copy.deepcopy((network.state_dict(), optimizer.state_dict()["state"])))
    for later in kept[2:]:
        assert all(later[0][name].equal(kept[1][0][name]) for name in later[0])
        assert all(later[1][i][name].equal(kept[1][1][i][name]) for i in later[1] for name in later[1][i])
    said = r"^step 2: not finite \(loss nan" if poison == "loss" else r"^step 2: not finite \(loss .*gradient norm nan"
    with pytest.raises(TrainingFailed, match=said):
        guard.check()


def test_learning_rate_is_a_number_on_the_processor():
    network = torch.nn.Linear(3, 1)
    optimizer = adam(network.parameters(), lr=0.1)
    set_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["capturable"] is False
