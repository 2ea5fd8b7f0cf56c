"""The one exception that means: the caller gave something that cannot be used."""


class InputError(ValueError):
    """Bad input from outside: a file, an option, a recipe key, a row.

    Its text is one line that names the argument, the rule and what came. The command line prints
    that line and ends with status 2; any other exception keeps its traceback.
    """
