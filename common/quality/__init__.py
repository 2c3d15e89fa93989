"""The yardstick: how good images are."""
