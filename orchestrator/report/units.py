"""How quantities are written for people."""

_KILO = 1000.0


def bytes_text(size: float) -> str:
    """`812 B`, `1.2 MB`: decimal units, as file managers show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _KILO:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= _KILO
    return f"{size:.1f} TB"


def amount(number: float) -> str:
    """`35,012`."""
    return f"{number:,.0f}"


def gib_text(gib: float) -> str:
    """`22.4 GiB`, `80 GiB`."""
    return f"{gib:.1f}".removesuffix(".0") + " GiB"


def seconds_text(seconds: float) -> str:
    """`8.2 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
