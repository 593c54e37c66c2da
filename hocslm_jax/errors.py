"""The one exception for mistakes that a user can make and mend.

Its message is a single line: what is wrong, where (file or id), what to do. Command lines print it
as `error: …` and exit with status 2; anything else that is raised is a bug and keeps its traceback.
"""


class UserError(Exception):
    """A mistake in what the user asked for or supplied, told in one line."""
