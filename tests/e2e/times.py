"""Times as docs/INTERFACE.md, Common rules, writes them: microseconds in UTC."""

import calendar
import re
import time

_FORM = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")


def parse(text):
    """A leap second is the last microsecond of its minute."""
    year, month, day, hour, minute, second, fraction, zone = _FORM.fullmatch(text).groups()
    if second == "60":
        second, fraction = "59", "999999"
    seconds = calendar.timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))
    if zone not in "Zz":
        offset = int(zone[1:3]) * 3600 + int(zone[4:]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return seconds * 1_000_000 + int(((fraction or "") + "000000")[:6])


def text(micros):
    seconds, rest = divmod(micros, 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:06d}Z"


def now():
    return time.time_ns() // 1_000
