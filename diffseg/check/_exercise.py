"""What an exercise check is: it tries the reader's function and reports what is wrong."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One input to try.

    Attributes:
        about: what is special about it, to follow "for": "two distributions over three positions".
        arguments: positional arguments of the reader's function.
    """

    about: str
    arguments: tuple


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer. A result that equals this function's is answered with its hint.

    Attributes:
        hint: a question or a sentence, e.g. "Did you forget the half?".
        function: takes the arguments of a case and makes the mistake.
    """

    hint: str
    function: Callable


class NotYet(AssertionError):
    """The reader's function is not right yet; Jupyter shows the message and no traceback."""

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


class _Unwritten(Exception):
    """The reader has not begun."""


class Check:
    """Compares a function with its reference on several inputs; call it with the function.

        check.symmetric_kl(my_symmetric_kl)

    Args:
        name: of the exercise.
        reference: gives the expected results.
        cases: inputs, the simplest first.
        mistakes: typical wrong answers.
        rtol, atol: tolerances of the comparison.
    """

    def __init__(
        self,
        name: str,
        reference: Callable,
        cases: Sequence[Case],
        mistakes: Sequence[Mistake] = (),
        rtol: float = 1e-4,
        atol: float = 1e-6,
    ) -> None:
        self.name, self.reference, self.cases, self.mistakes = name, reference, tuple(cases), tuple(mistakes)
        self.rtol, self.atol = rtol, atol

    def __repr__(self) -> str:
        return f"check.{self.name}(your function): tries it on {len(self.cases)} inputs"

    def __call__(self, mine: Any) -> None:
        """Print a line if the function is right on all cases, and another one if it is still to be written.

        Raises:
            NotYet: at the first case where it is not, with what was wrong and, if it is a known one, the mistake.
        """
        if not callable(mine):
            raise NotYet(
                f"check.{self.name} takes your function itself, not its result: "
                f"write check.{self.name}(f), without brackets after f. It was given this: {_short(mine)}."
            )
        try:
            for case in self.cases:
                self._try(mine, case)
        except _Unwritten:  # no fault: who runs all cells goes on to the end
            print(f"{self.name} is still to be written: replace `raise NotImplementedError`, then run this cell again.")
            return
        print(f"{self.name}: right on all {len(self.cases)} inputs")

    def _try(self, mine: Callable, case: Case) -> None:
        arguments = copy.deepcopy(case.arguments)
        try:
            result = mine(*arguments)
        except Exception as error:
            if isinstance(error, NotImplementedError) and not error.args:  # torch raises it, too, with a reason
                raise _Unwritten from error
            error.add_note(f"This was raised by your function, called by check.{self.name} for {case.about}.")
            raise
        self.judge(case, result, arguments)

    def judge(self, case: Case, result: Any, arguments: Sequence) -> None:
        """Compare what a function made of a case with what the reference makes of it.

        Args:
            case: one of the check's own.
            result: what the function returned.
            arguments: those of the case, as they were after the call.

        Raises:
            NotYet: as for a call of the check.
        """
        expected = self.reference(*copy.deepcopy(case.arguments))
        problem = self._difference(result, expected)
        if problem:
            hints = [m.hint for m in self.mistakes if self._is_mistake(m, case, result, expected)]
            lines = [f"{self.name} is not right yet, for {case.about}:", f"  {problem}", *hints[:1]]
            raise NotYet("\n".join(lines))
        if self._difference(arguments, case.arguments):
            raise NotYet(
                f"{self.name} gives the right result for {case.about}, but changes its arguments on the way.\n"
                "The caller may still need them: work on a copy (x.clone()), or write x = x * 2 instead of x *= 2."
            )

    def _is_mistake(self, mistake: Mistake, case: Case, result: Any, expected: Any) -> bool:
        wrong = mistake.function(*copy.deepcopy(case.arguments))
        return not self._difference(result, wrong) and bool(self._difference(wrong, expected))

    def _difference(self, result: Any, expected: Any) -> str:
        """How a result differs from the expected one, in words; "" if it does not."""
        if isinstance(expected, (tuple, list)):
            return self._difference_of_sequences(result, expected)
        if isinstance(expected, (Tensor, np.ndarray, Number)):
            return self._difference_of_arrays(result, expected)
        return "" if result == expected else f"your result is {_short(result)}, expected {_short(expected)}"

    def _difference_of_sequences(self, result: Any, expected: Sequence) -> str:
        if result is None:
            return "your function returned nothing: does it end with `return`?"
        if not isinstance(result, (tuple, list)):
            return f"your result is a {type(result).__name__}, expected {len(expected)} values in a list or tuple"
        if len(result) != len(expected):
            return f"your result has {len(result)} entries, expected {len(expected)}"
        for index, (mine, right) in enumerate(zip(result, expected)):
            if problem := self._difference(mine, right):
                return f"in entry {index} (counted from 0), {problem}"
        return ""

    def _difference_of_arrays(self, result: Any, expected: Any) -> str:
        if result is None:
            return "your function returned nothing: does it end with `return`?"
        if not isinstance(result, (Tensor, np.ndarray, Number)):
            return f"your result is a {type(result).__name__}, expected a {_kind(expected)}"
        mine, right = _array(result), _array(expected)
        if mine.shape != right.shape:
            return f"your result has the shape {list(mine.shape)}, expected {list(right.shape)}"
        if np.isnan(mine).any() and not np.isnan(right).any():
            return "your result holds NaN: is there a logarithm of 0, or a division by 0?"
        wrong = ~np.isclose(mine, right, rtol=self.rtol, atol=self.atol, equal_nan=True)
        if not wrong.any():
            return ""
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
        values = f"{_number(mine[first])}, expected {_number(right[first])}"
        if mine.ndim == 0:
            return f"your result is {values}"
        return f"the value at {list(first)} is {values}; {wrong.sum()} of {wrong.size} values differ"


def _array(value: Any) -> np.ndarray:
    """A number, array or tensor as float64, booleans as 0 and 1."""
    value = value.detach().cpu() if isinstance(value, Tensor) else value
    return np.asarray(value, dtype=np.float64)


def _kind(value: Any) -> str:
    return {Tensor: "torch.Tensor", np.ndarray: "numpy array"}.get(type(value), "number")


def _number(value: float) -> str:
    return f"{value:.5g}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def distributions(*shape: int, seed: int = 0) -> Tensor:
    """Random distributions over the last axis, float32: positive, each sums to 1; for building cases."""
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return logits.softmax(dim=-1)
