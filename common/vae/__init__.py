"""Question 3: a VAE and what its latents are worth."""
