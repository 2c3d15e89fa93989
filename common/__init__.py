"""What several scripts share: data, networks, losses, measures, figures and runs."""
