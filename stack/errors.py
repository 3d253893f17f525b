"""The one exception that reaches the user as a message: what is wrong, and the way to fix it."""


class StackError(Exception):
    """Something the user can mend. `str()` is the problem in one line; `fix` the way out (may be empty).

    Attributes:
        fix: what to type or change.
        code: exit code of the command (2: usage, or could not run).
    """

    def __init__(self, problem: str, fix: str = "", code: int = 2) -> None:
        super().__init__(problem)
        self.fix = fix
        self.code = code

    def show(self) -> str:
        """The lines for stderr."""
        return f"wslab: {self}" + (f"\n  fix: {self.fix}" if self.fix else "")
