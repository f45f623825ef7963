"""JSON as resaga promises to treat it: key order and the text of numbers survive."""

import json


class Number(str):
    """A JSON number by its text: 1.10 and 1.1 are not the same."""

    __slots__ = ()

    def __repr__(self):
        return f"Number({str(self)!r})"


def loads(text):
    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse)


def _refuse(name):
    raise ValueError(f"{name} is not JSON")


def dumps(value):
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{dumps(member)}" for key, member in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(dumps(member) for member in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def plain(value):
    """The same with ordinary numbers, for answers where only the value counts."""
    return json.loads(dumps(value))
