"""Question 4: DCGAN and WGAN-GP."""
