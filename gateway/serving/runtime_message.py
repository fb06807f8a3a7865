"""What ONNX Runtime says of a failure: without paths of this machine, and fit for a client."""

import re

# The prefix of the runtime's errors: its own codes, and the place in its source, with the function's signature.
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_PLACE = re.compile(r"\S*\.(?:cc|h|cpp):\d+(?: [^()]{0,200}\([^()]{0,200}\)(?: const)?)? ?")
NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'[^']*' Status Message: ")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+\b")
_MAX_PUBLIC = 300
_LOCALE = re.compile(r"Failed to construct locale with name:(([\w-]{1,40})[\w.@-]{0,40})")
_SOURCE_PATH = re.compile(r"/onnxruntime_src/(?:[\w.-]+/)*")


def reason_of(error: Exception, directory: str = "") -> str:
    """Returns the runtime's message without paths of this machine and of the machine that built the runtime."""
    text = _SOURCE_PATH.sub("", " ".join(str(error).split()))
    if directory:
        text = text.replace(f"{directory}/", "")
    locale = _LOCALE.search(text)
    if locale is not None:
        return (
            f"a string normalizer of the model needs the locale {locale[1]!r}, which this machine lacks: generate it "
            f"(Debian: package locales, then `localedef -i {locale[2]} -f UTF-8 {locale[1]}`), or export the model "
            "with a locale that is there (`locale -a`)"
        )
    return text[:2000] or type(error).__name__


def without_places(text: str) -> str:
    """Returns the runtime's message without its own codes and the places in its source."""
    return _PLACE.sub("", _CODE.sub("", text))


def public_text(reason: str) -> str:
    """Returns the reason fit for a client: the operator and what it says, no places in source, no addresses."""
    text = _ADDRESS.sub("...", without_places(NODE.sub(r"\1: ", reason)))
    text = "".join(character if character.isprintable() else " " for character in text).strip()
    return text if len(text) <= _MAX_PUBLIC else f"{text[:_MAX_PUBLIC]}..."
