"""Question 1: two parallel lines."""
