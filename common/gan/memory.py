"""What the scripts of question 4 need of memory: estimates [bytes], measured within 30 % on the CPU in float32."""

from functools import partial
from typing import Any

from common.gan.networks import Critic, Generator
from common.run.memory import KEPT, parameters

FLAGS = ("width", "latent_dim", "discriminator_width", "batch_size", "critic_steps")
PIXELS = 4 * 16 + 2 * 49 + 196  # values of the inner layers per image and channel of the width


def wgan_gp_bytes(config: Any) -> float:
    """Of weights, of a critic step (real, fake and interpolated images), of the fakes until the generator moves."""
    generator = parameters(partial(Generator, config.width, config.latent_dim, True))
    critic = parameters(partial(Critic, config.width))
    step = config.batch_size * 7 * PIXELS * config.width
    fakes = config.batch_size * config.critic_steps * (784 + config.latent_dim)
    return 4.0 * (KEPT * generator + KEPT / 2 * critic + step + fakes)


def dcgan_bytes(config: Any) -> float:
    """Of weights, of which lookahead keeps a copy, and of a step of both networks."""
    generator = parameters(partial(Generator, config.width, config.latent_dim, True, config.detail))
    discriminator = parameters(partial(Critic, config.discriminator_width, True))
    drawn = PIXELS * config.width + 784 * config.detail
    step = config.batch_size * (4.3 * drawn + 1.6 * PIXELS * config.discriminator_width)
    return 4.0 * ((KEPT + 4) * generator + KEPT * discriminator + step)
