"""Durations as text. Not in `monitoring`, because this module must not import TensorFlow."""


def format_duration(seconds: float) -> str:
    """`1h02m`, `3m05s` or `12s`."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"
