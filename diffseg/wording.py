"""Words that figures and widgets share."""


def count(number: int, one: str, many: str | None = None) -> str:
    """The number with its noun, such as "1 class" and "2 classes"; without `many`, the plural is `one` and an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
