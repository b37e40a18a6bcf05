"""Time limits that a server raises between two lines, whichever these are."""

import sys
from contextlib import suppress


class TimeLimit(BaseException):
    """No error that a program expects."""


def cut(call, functions, last):
    """Call something until the line `last` of what some functions execute.

    Returns the code that the line is of: None if there are fewer lines.
    """
    functions = [getattr(each, "__wrapped__", each) for each in functions]
    codes = {getattr(each, "__code__", None) for each in functions}
    line, code = 0, None

    def trace(frame, event, arg):
        nonlocal line, code
        if event == "line" and frame.f_code in codes:
            line += 1
            if line == last:
                code = frame.f_code
                raise TimeLimit
        return trace if event != "call" or frame.f_code in codes else None

    before = sys.gettrace()  # of a debugger, or of what measures coverage
    sys.settrace(trace)
    try:
        with suppress(TimeLimit):
            call()
    finally:
        sys.settrace(before)
    return code
