"""When two strings mean the same answer."""

import unicodedata


def normalised(text: str) -> str:
    """`text` in NFKC and lower case, with white space collapsed: "Swimming  Pool " and "swimming pool" are one."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
