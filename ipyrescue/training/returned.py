"""What a restore has brought back, and whether a loop that goes on trains that.

Turns the first step of an optimizer within such a loop into a refusal, where what it trains stood there when the loop
was taken up, and is nothing that came back: the iterations that were done would be in none of its weights. What is made
within the loop, what came back, and what has the values of that (a `load_state_dict`) are let alone. Knows torch only
where somebody else has loaded it, and no snapshots.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

from ipyrescue import stack

if TYPE_CHECKING:
    from ipyrescue.restoring import Restored

_MOST_OBJECTS = 20_000
_MOST_ITEMS = 1_000
"""In a larger container nobody keeps models."""
_MOST_SAMPLED = 256
_MOST_COMPARED = 64
_VALUES = 16
_FUNCTION = 0x2  # inspect.CO_NEWLOCALS
_LEAVES = (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, str, bytes, int, float)


class Returned:
    """What *restored* has bound in *namespace*, and the locals that it hands out. Keeps none of it alive."""

    def __init__(self, restored: Restored, namespace: Mapping[str, Any]) -> None:
        bound = [namespace[name] for name in restored.names if name in namespace]
        of_functions = [value for frame in restored.frames for value in frame.locals.values()]
        self.snapshot_id = restored.snapshot.id
        self.is_out_of_reach = bool(of_functions) and not any(map(_is_data, bound))
        """Whether all that came back are locals of functions, and nobody has asked for those yet."""
        found = list(parameters_in([*bound, *of_functions]))
        self._parameters = _Known(found)
        self._samples = _samples(islice((each for each in found if each.requires_grad), _MOST_SAMPLED))
        self.has_parameters = bool(found)

    def has(self, parameters: list[Any]) -> bool:
        """Whether some of *parameters* are those that came back, or most of them have the values of such."""
        if any(each in self._parameters for each in parameters):
            return True
        compared = islice((each for each in parameters if each.requires_grad), _MOST_COMPARED)
        now = [(shape, sample) for shape, samples in _samples(compared).items() for sample in samples]
        same = sum(any(_same(was, sample) for was in self._samples.get(shape, ())) for shape, sample in now)
        return 2 * same >= len(now)


class Watch:
    """Calls *refuse* before the first step within the loop that *is_running*, taken up in *frame*, if that is lost."""

    def __init__(
        self, returned: Returned, frame: FrameType, is_running: Callable[[], bool], refuse: Callable[[Any], None]
    ) -> None:
        self._returned = returned
        self._is_running = is_running
        self._refuse = refuse
        self._is_over = False
        register = getattr(sys.modules.get("torch.optim.optimizer"), "register_optimizer_step_pre_hook", None)
        self._stood_there = _Known(parameters_in(_in_reach(frame)) if register is not None else ())
        self._hook = register(self._before_step) if register is not None else None

    @property
    def is_over(self) -> bool:
        """Whether the first step was made, or the loop has come to its end without one."""
        return self._is_over or not self._is_running()

    def stop(self) -> None:
        """Give the hook back. Not from within a step: torch goes through its hooks just then."""
        self._is_over = True
        if self._hook is not None:
            self._hook.remove()

    def _before_step(self, optimizer: Any, args: object, kwargs: object) -> None:
        if self.is_over:
            return
        self._is_over = True
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        if any(each in self._stood_there for each in parameters) and not self._returned.has(parameters):
            self._refuse(optimizer)


class _Known:
    """Tensors, known by identity without being kept: what a tensor is equal to is a tensor."""

    def __init__(self, tensors: Iterable[Any]) -> None:
        self._references = {id(each): weakref.ref(each) for each in tensors}

    def __contains__(self, tensor: object) -> bool:
        reference = self._references.get(id(tensor))
        return reference is not None and reference() is tensor


def parameters_in(values: Iterable[Any]) -> Iterator[Any]:
    """What can be trained of *values*: parameters of modules and optimizers, in containers and attributes too."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "optim"):
        return
    seen: set[int] = set()
    waiting = list(values)
    while waiting and len(seen) < _MOST_OBJECTS:
        value = waiting.pop()
        if id(value) in seen or issubclass(type(value), _LEAVES):
            continue
        seen.add(id(value))
        if issubclass(type(value), (torch.nn.Module, torch.optim.Optimizer, torch.Tensor)):
            yield from _parameters_of(value, torch)
        else:
            waiting.extend(_parts(value))


def _parameters_of(value: Any, torch: Any) -> list[Any]:
    try:
        if isinstance(value, torch.nn.Module):
            return list(value.parameters())
        if isinstance(value, torch.optim.Optimizer):
            return [each for group in value.param_groups for each in group["params"]]
        return [value] if value.requires_grad and value.is_leaf else []
    except Exception:  # noqa: BLE001 - the user's own methods may answer; what they cannot say is not compared
        return []


def _parts(value: Any) -> Iterable[Any]:
    """The items of a container, the attributes of an object; past its own methods."""
    kind = next((kind for kind in (dict, list, tuple, set) if issubclass(type(value), kind)), None)
    if kind is not None:
        small = kind.__len__(value) <= _MOST_ITEMS
        return list(dict.values(value) if kind is dict else kind.__iter__(value)) if small else ()
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except AttributeError:
        return ()


def _in_reach(frame: FrameType) -> Iterator[Any]:
    """The values of all names that code in *frame* and in what called it can use, out to the cell or the script."""
    at: FrameType | None = frame
    globals_seen: set[int] = set()
    codes: set[CodeType] = set()
    while at is not None:
        if id(at.f_globals) not in globals_seen:
            globals_seen.add(id(at.f_globals))
            yield from list(at.f_globals.values())
        if not at.f_code.co_flags & _FUNCTION:
            break
        yield from list(at.f_locals.values())
        codes.add(at.f_code)
        at = at.f_back
    stack.let_go(frame, codes.__contains__)


def _is_data(value: object) -> bool:
    return not issubclass(type(value), (types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType))


def _samples(parameters: Iterable[Any]) -> dict[Any, list[Any]]:
    """A few values of each of *parameters*, by its shape; not of those that are the same all over, as when made."""
    found: dict[Any, list[Any]] = {}
    for each in parameters:
        sample = _sample(each)
        if sample is not None:
            found.setdefault(tuple(each.shape), []).append(sample)
    return found


def _sample(parameter: Any) -> Any | None:
    try:
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _VALUES)][:_VALUES].cpu()
        return sample if len(sample) > 0 and bool((sample != sample[0]).any()) else None
    except Exception:  # noqa: BLE001 - layouts and devices that have no values to show; nothing is said of those
        return None


def _same(was: Any, now: Any) -> bool:
    return bool((was.to(now.dtype) == now).all())
