"""The two faults that a script says in one line."""


class BadInput(Exception):
    """Something the user can mend; the message is one line that names the flag or file, what was found, what to do."""


class TrainingFailed(Exception):
    """Training cannot go on; the message is one line that names the step and the values."""
