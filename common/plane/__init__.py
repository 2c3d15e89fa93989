"""Question 2: a GAN in the plane."""
