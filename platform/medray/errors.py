"""The one exception that means: the user can mend this. Everything else keeps its traceback."""


class UserError(Exception):
    """A wrong flag, file or setting, told in one sentence that names it and what was expected.

    The command line prints the sentence alone and exits with code 2; in a notebook it is an ordinary exception.
    """
