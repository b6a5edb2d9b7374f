"""Descriptions of tensors in a pickle, built by an interpreter that can build nothing else.

Python's unpickler makes what a file asks for before anything can be checked: keys of tuples in
tuples exhaust the stack when they are hashed, a memo at place 300,000,000 takes gigabytes, and
dicts that hold each other thirty times never end. So the few opcodes that files of weights have are
interpreted here, one after another, each in constant time, within stated limits:

    opcodes 2,000,000     bytes 16 MiB     keys: whole numbers, and texts of 1,000 characters

What other objects a pickle would make, and which functions it would call, is refused by name;
nothing is executed.

Source: public CPython repository, Lib/pickletools.py, for the meaning of each opcode.
"""

import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_MOST_OPCODES = 2_000_000
_LARGEST = 1 << 24
_LONGEST_KEY = 1000
# NumPy's own limit is 64; tensors of these networks have 5 axes at most.
_MOST_AXES = 16


class ForbiddenGlobalError(ValueError):
    """A pickle names a global that weights do not need."""


class Storage(NamedTuple):
    """A storage of a torch file: its class, its member, and its length in elements."""

    kind: str
    key: str
    length: int


class Strided(NamedTuple):
    """A view of a storage; offset and strides in elements; `dtype` where the storage has none."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str = ""


class _Global(NamedTuple):
    module: str
    name: str


class _Mark:
    """Where the arguments of the next opcode that takes several begin."""


_MARK = _Mark()
_Opcode = Callable[["_Interpreter"], None]


def read_pickle(content: bytes, kinds: Mapping[str, Any]) -> Any:
    """What a pickle describes: `Strided`s and plain values within dicts, lists and tuples.

    Args:
      content: the pickle.
      kinds: torch's storage classes and dtypes that are known.

    Raises:
      ForbiddenGlobalError: the pickle asks for something that weights do not need.
      ValueError: it is damaged, or larger or deeper than any file of weights.
    """
    if len(content) > _LARGEST:
        raise ValueError(
            f"its description has {len(content)} bytes, and at most {_LARGEST} are read"
        )
    return _Interpreter(content, kinds).run()


class _Interpreter:
    """The state of reading: place in the pickle, stack and memo."""

    def __init__(self, content: bytes, kinds: Mapping[str, Any]):
        self.content, self.kinds = content, kinds
        self.place = 0
        self.stack: list[Any] = []
        # A dict, not a list: a place in it costs nothing, however large its number.
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_OPCODES):
            code = self.take(1)
            if code == pickle.STOP:
                return self.pop()
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise ValueError(f"opcode {code!r} at byte {self.place - 1} is in no such file")
            opcode(self)
        raise ValueError(f"its description has more than {_MOST_OPCODES} opcodes")

    def take(self, count: int) -> bytes:
        piece = self.content[self.place : self.place + count]
        if len(piece) < count:
            raise ValueError("its description ends too early")
        self.place += count
        return piece

    def line(self) -> str:
        end = self.content.find(b"\n", self.place)
        if end < 0:
            raise ValueError("its description ends too early")
        piece, self.place = self.content[self.place : end], end + 1
        return piece.decode("utf-8", "replace")

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("an opcode lacks its argument")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise ValueError("an opcode lacks its argument")
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """Everything above the last mark, which is taken away."""
        # From the end, so that the search costs what is taken away.
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise ValueError("an opcode lacks its mark")


def _text(form: str) -> _Opcode:
    def opcode(state: _Interpreter) -> None:
        state.push(state.take(state.number(form)).decode("utf-8"))

    return opcode


def _number(form: str) -> _Opcode:
    return lambda state: state.push(state.number(form))


def _skip(count: int) -> _Opcode:
    def opcode(state: _Interpreter) -> None:
        state.take(count)

    return opcode


def _constant(value: Any) -> _Opcode:
    return lambda state: state.push(value)


def _long(state: _Interpreter) -> None:
    # At most 255 bytes: sizes have eight.
    state.push(int.from_bytes(state.take(state.number("<B")), "little", signed=True))


def _put(form: str) -> _Opcode:
    def opcode(state: _Interpreter) -> None:
        state.memo[state.number(form)] = state.top()

    return opcode


def _memoize(state: _Interpreter) -> None:
    state.memo[len(state.memo)] = state.top()


def _get(form: str) -> _Opcode:
    def opcode(state: _Interpreter) -> None:
        place = state.number(form)
        if place not in state.memo:
            raise ValueError(f"it refers to place {place} of its memo, which is empty")
        state.push(state.memo[place])

    return opcode


def _tuple(count: int) -> _Opcode:
    return lambda state: state.push(tuple([state.pop() for _ in range(count)][::-1]))


def _empty(kind: type[dict] | type[list] | type[tuple]) -> _Opcode:
    return lambda state: state.push(kind())


def _append(state: _Interpreter, values: list[Any]) -> None:
    items = state.top()
    if type(items) is not list:
        raise ValueError("it appends to what is no list")
    items.extend(values)


def _set_items(state: _Interpreter, values: list[Any]) -> None:
    items = state.top()
    if type(items) is not dict or len(values) % 2:
        raise ValueError("it sets an entry of what is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Only these: hashing a tuple visits all that is in it, however deep.
        if type(key) not in (str, int):
            raise ValueError(f"a key is a {type(key).__name__}, and no text or whole number")
        if type(key) is str and len(key) > _LONGEST_KEY:
            raise ValueError(
                f"a key has {len(key)} characters, and at most {_LONGEST_KEY} are read"
            )
        items[key] = value


def _global(state: _Interpreter) -> None:
    module, name = state.line(), state.line()
    state.push(_known(state, module, name))


def _stack_global(state: _Interpreter) -> None:
    name, module = state.pop(), state.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("it asks for what has no name")
    state.push(_known(state, module, name))


_CALLS = frozenset(
    {
        _Global("torch._utils", "_rebuild_tensor_v2"),
        _Global("torch._utils", "_rebuild_tensor_v3"),
        _Global("torch._utils", "_rebuild_parameter"),
        _Global("torch", "Size"),
        _Global("collections", "OrderedDict"),
    }
)


def _known(state: _Interpreter, module: str, name: str) -> _Global:
    asked = _Global(module, name)
    # Storage classes and dtypes are only ever arguments: their name is enough.
    is_kind = module in ("torch", "torch.storage") and name in state.kinds
    if asked not in _CALLS and not is_kind:
        raise ForbiddenGlobalError(f"asks for {module[:80]}.{name[:80]}")
    return asked


def _reduce(state: _Interpreter) -> None:
    arguments, called = _arguments(state.pop()), state.pop()
    match called:
        case _Global("torch._utils", "_rebuild_parameter") if arguments:
            state.push(arguments[0])
        case _Global("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor_v3"):
            state.push(_strided(*arguments))
        case _Global("collections", "OrderedDict"):
            state.push(_ordered(arguments))
        case _Global("torch", "Size") if len(arguments) == 1:
            state.push(arguments[0])
        case _:
            raise ValueError("it calls what is no function")


def _arguments(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple:
        raise ValueError("it calls a function without arguments")
    return value


def _ordered(arguments: tuple[Any, ...]) -> dict[str | int, Any]:
    # Entries come behind, as of any dict; only Python 2 wrote an (empty) list of them here.
    if arguments and arguments[0] != []:
        raise ValueError("it makes an OrderedDict of entries, which torch does not")
    return {}


def _build(state: _Interpreter) -> None:
    # What torch sets on a dict (`_metadata`) are versions of modules: no tensors.
    state.pop()
    if type(state.top()) is not dict:
        raise ValueError("it sets attributes of what has none")


def _persistent(state: _Interpreter) -> None:
    # The one left out is the device that the tensor was on when it was saved.
    match _arguments(state.pop()):
        case ("storage", _Global(_, kind), str(key), _, length, *_) if kind in state.kinds:
            state.push(Storage(kind, key, _natural(length)))
        case _:
            raise ValueError("a storage of unknown kind")


def _strided(
    storage: Any = None, offset: Any = None, shape: Any = None, strides: Any = None, *rest: Any
) -> Strided:
    # A pickle may call this with anything; what is not a storage and natural numbers ends here.
    if not (isinstance(storage, Storage) and type(shape) is type(strides) is tuple):
        raise ValueError("a tensor without storage or strides")
    if len(shape) != len(strides) or len(shape) > _MOST_AXES:
        raise ValueError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
    # The third version names the dtype of untyped bytes, behind what the second one has.
    dtype = next((value.name for value in rest if isinstance(value, _Global)), "")
    return Strided(
        storage, _natural(offset), tuple(map(_natural, shape)), tuple(map(_natural, strides)), dtype
    )


def _natural(number: Any) -> int:
    # Below 2^63: sizes that no file has would overflow where they are multiplied.
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise ValueError("a size that is no whole number of at most 63 bits")
    return number


_OPCODES: Mapping[bytes, _Opcode] = {
    pickle.PROTO: _skip(1),
    pickle.FRAME: _skip(8),
    pickle.MARK: _constant(_MARK),
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),  # noqa: FBT003
    pickle.NEWFALSE: _constant(False),  # noqa: FBT003
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.LONG1: _long,
    pickle.BINFLOAT: lambda state: state.push(struct.unpack(">d", state.take(8))[0]),
    pickle.SHORT_BINUNICODE: _text("<B"),
    pickle.BINUNICODE: _text("<I"),
    pickle.BINUNICODE8: _text("<Q"),
    pickle.EMPTY_DICT: _empty(dict),
    pickle.EMPTY_LIST: _empty(list),
    pickle.EMPTY_TUPLE: _empty(tuple),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.TUPLE: lambda state: state.push(tuple(state.marked())),
    pickle.APPEND: lambda state: _append(state, [state.pop()]),
    pickle.APPENDS: lambda state: _append(state, state.marked()),
    pickle.SETITEM: lambda state: _set_items(state, [state.pop(), state.pop()][::-1]),
    pickle.SETITEMS: lambda state: _set_items(state, state.marked()),
    pickle.BINPUT: _put("<B"),
    pickle.LONG_BINPUT: _put("<I"),
    pickle.MEMOIZE: _memoize,
    pickle.BINGET: _get("<B"),
    pickle.LONG_BINGET: _get("<I"),
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _reduce,
    pickle.BUILD: _build,
    pickle.BINPERSID: _persistent,
}
